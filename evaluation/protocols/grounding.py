"""Protocols of places pointed at, of scenes named and of changes listed: boxes, referred masks, labels, lists."""

from __future__ import annotations

from rsw_rewards.core.records import Task
from rsw_rewards.evaluation.protocols.protocol import Protocol

CHANGE_LIST = Protocol(
    name="change-list",
    title="Open change answers as lists of atomic changes",
    task=Task.CHANGE_QA,
    source="pooled precision, recall and F1 under a largest one-to-one matching; see the card of difference_list",
    components=({"use": "difference_list"},),
    headline=("difference_f1", "difference_precision", "difference_recall"),
    baselines=("empty", "shuffled", "all_labels", "oracle"),
    notes=(
        "Samples without reference.changes are not counted; 'where' and 'count' must agree where the truth states them.",
        "An empty list adds nothing to the pooled numbers where nothing changed, and a list there costs precision.",
    ),
)

PROTOCOLS = (
    Protocol(
        name="referring-segmentation",
        title="Referring segmentation",
        task=Task.GROUNDING,
        source="GRES (arXiv 2306.00968), github.com/henghuiding/ReLA gres_model/evaluation/refer_evaluation.py",
        components=({"use": "referring_mask", "config": {"no_target": "match"}},),
        headline=("giou_mean", "ciou_cumulative", "p@0.5"),
        diagnostic=("p@0.6", "p@0.7", "p@0.8", "p@0.9", "no_target_accuracy", "target_accuracy"),
        baselines=("empty", "whole_image", "oracle"),
        notes=(
            "An empty mask for an expression without a target has IoU 1; p@x is over the expressions with a target.",
            "The script of RRSIS-D (github.com/Lsan2401/RMSIN test.py) gives such a mask 0 and takes p@x over all expressions:"
            " set referring_mask.no_target to zero. Where every expression has a target the two agree.",
        ),
    ),
    Protocol(
        name="visual-grounding",
        title="Visual grounding by boxes",
        task=Task.GROUNDING,
        source="DIOR-RSVG (arXiv 2210.12634); several boxes or none after GREC (arXiv 2308.16182)",
        components=({"use": "box_iou"},),
        headline=("acc@0.5", "mean_iou"),
        diagnostic=("acc@0.6", "acc@0.7", "acc@0.8", "acc@0.9"),
        baselines=("empty", "whole_image", "oracle"),
        notes=(
            "Widths are x2 - x1 without a pixel added; rotated boxes are compared as polygons.",
            "More boxes than targets never count for acc@x and divide the IoU, so compare with models that give one box.",
        ),
    ),
    Protocol(
        name="scene-classification",
        title="Scene classification, of pictures and series",
        task=Task.CLASSIFICATION,
        source="overall accuracy and accuracy per class, as for NWPU-RESISC45 (arXiv 1703.00121) and ERA (arXiv 2001.11394)",
        components=({"use": "scene_label"},),
        headline=("oa", "aa"),
        only_named=False,
        baselines=("majority", "all_labels", "oracle"),
        notes=(
            "oa/<class> is over the scenes of a true class, and aa their mean; from 201 classes on only aa is given.",
        ),
    ),
    Protocol(
        name="multi-label",
        title="Multi-label classification",
        task=Task.CLASSIFICATION,
        source="micro and macro F1 and mean average precision as scikit-learn defines them; see the card of label_set",
        components=({"use": "label_set"},),
        headline=("micro_f1", "macro_f1", "map"),
        baselines=("majority", "all_labels", "oracle"),
        notes=(
            "map needs a score for every label (a JSON object of label to score); from sets of labels it is null.",
            "macro_f1 and map are over the classes that the truths have.",
        ),
    ),
    CHANGE_LIST,
)
