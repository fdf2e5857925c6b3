"""Protocols of places pointed at, of scenes named and of changes listed: boxes, referred masks, labels, lists."""

from __future__ import annotations

from rsw_rewards.core.records import Task
from rsw_rewards.evaluation.protocols.protocol import Protocol

_PUBLISHED = (
    (
        "vrsbench-grounding", "VRSBench's visual grounding: inclusive ends on a grid of 0 to 100", "vrsbench",
        "lx709/VRSBench@d38cee1 eval_fianl/eval_utils.py computeIoU and compute_metrics.ipynb",
        ("acc@0.5", "acc@0.7", "mean_iou", "cumulative_iou"),
        ("Each side is a step longer than in visual-grounding. Unreadable answers count in acc and mean_iou, and not in cumulative_iou.",),
    ),
    (
        "opt-rsvg", "OPT-RSVG: boxes cut to the image", "opt-rsvg",
        "like413/OPT-RSVG@ff0fc20 utils/eval_utils.py trans_vg_eval_test",
        ("acc@0.5", "acc@0.7", "acc@0.9", "mean_iou", "cumulative_iou", "acc@0.6", "acc@0.8"),
        ("The original cuts boxes to the square that an image is padded to; here they are cut to the image, which is the same where it is square.",),
    ),
    (
        "choice-grounding", "CHOICE's visual grounding: four numbers divided by ten until none is over 1", "choice",
        "ShawnAn-WHU/CHOICE@eb6c430 ms-swift/infer_vlm/evaluator.py bbox_evaluater",
        ("acc@0.5", "acc@0.3", "mean_iou"),
        ("acc@0.5 asks for more than 0.5, and is what the tables have.",),
    ),
    (
        "earthdial-detection", "EarthDial's detection: precision of turned boxes", "earthdial",
        "hiyamdebary/EarthDial@92c1260 src/earthdial/eval/rs_detection/eval.py",
        ("precision", "precision/single", "precision/multiple"),
        ("There is no recall: one sure box, also many times, has a precision of 1, and answers without a box are not counted.",),
    ),
    (
        "earthdial-change-detection", "EarthDial's change detection: precision at 0.25 without angles", "earthdial-change",
        "hiyamdebary/EarthDial@92c1260 src/earthdial/eval/rs_change_detection/eval_detection.py",
        ("precision", "precision/single", "precision/multiple"),
        ("There is no recall: one sure box, also many times, has a precision of 1, and answers without a box are not counted.",),
    ),
)  # fmt: skip
"""Name, title, reading, original, numbers and notes of published definitions of boxes."""

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
            "Masks may stand in texts: --set referring_mask.text=text4seg for run lengths, teochat for boxes in percent.",
        ),
    ),
    Protocol(
        name="segearth-r1",
        title="Referring segmentation as SegEarth-R1 measures it",
        task=Task.GROUNDING,
        source="earth-insights/SegEarth-R1@e796b3b segearth_r1/eval_and_test/eval.py compute_metric",
        components=({"use": "referring_mask", "config": {"no_target": "segearth-r1"}},),
        headline=("giou_mean", "ciou_cumulative", "p@0.5"),
        diagnostic=("p@0.6", "p@0.7", "p@0.8", "p@0.9"),
        baselines=("empty", "whole_image", "oracle"),
        notes=(
            "p@x asks for more than x, over all expressions; two empty masks have IoU 1. The original resizes masks to 1024 pixels first.",
            "1e-5 is added to unions and to the number of expressions, so that a perfect model stays just below 1.",
        ),
        lenient=True,
    ),
    Protocol(
        name="visual-grounding",
        title="Visual grounding by boxes",
        task=Task.GROUNDING,
        source="DIOR-RSVG (arXiv 2210.12634); several boxes or none after GREC (arXiv 2308.16182)",
        components=({"use": "box_iou"},),
        headline=("acc@0.5", "mean_iou"),
        diagnostic=("acc@0.6", "acc@0.7", "acc@0.8", "acc@0.9", "cumulative_iou"),
        baselines=("empty", "whole_image", "oracle"),
        notes=(
            "Widths are x2 - x1 without a pixel added; rotated boxes are compared as polygons.",
            "More boxes than targets never count for acc@x and divide the IoU, so compare with models that give one box.",
            "cumulative_iou is the shared area over the united area, both summed over samples of one target, so that large targets decide it.",
            "Where answers are texts, say how they write boxes: --set box_iou.text=geochat (earthdial, teochat, qwen2-vl, qwen2.5-vl, qwen3-vl).",
        ),
    ),
    Protocol(
        name="detection",
        title="Detection: COCO's average precision of labelled boxes",
        task=Task.GROUNDING,
        source="github.com/cocodataset/cocoapi by pycocotools (Lin et al. 2014, arXiv 1405.0312)",
        components=({"use": "detection_ap"},),
        headline=("map", "map50", "map75"),
        slices=False,
        baselines=("empty", "oracle"),
        notes=(
            "Answers are a JSON list of objects with bbox_2d, label and score; without scores a model is ranked in its own order.",
            "There is no interval, since precision is ranked over all images.",
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
    *(
        Protocol(
            name=name,
            title=title,
            task=Task.GROUNDING,
            source=source,
            components=({"use": "published_box", "config": {"reading": reading}},),
            headline=keys[:6],
            diagnostic=keys[6:],
            baselines=("empty", "whole_image", "oracle"),
            notes=(*notes, "A published reading beside the strict protocol visual-grounding; it rewards nothing."),
            lenient=True,
        )
        for name, title, reading, source, keys, notes in _PUBLISHED
    ),
)
