"""Protocols of masks and maps of change."""

from __future__ import annotations

from rsw_rewards.core.records import Task
from rsw_rewards.evaluation.protocols.protocol import Protocol

VALID_NOTE = "Pixels outside reference.valid, where a sample has it, and of the truth's nodata value are not counted."
SEMANTIC_KEYS = ("sek", "fscd", "miou", "oa", "kappa", "score")
SEMANTIC_BASELINES = ("all_unchanged", "all_changed", "swapped", "oracle")

PROTOCOLS = (
    Protocol(
        name="change-mask",
        title="Binary change masks",
        task=Task.CHANGE_MASK,
        source="one confusion matrix over all pixels that count, as in github.com/wgcban/ChangeFormer misc/metric_tool.py",
        components=({"use": "change_mask"},),
        headline=("f1", "iou", "precision", "recall", "oa", "kappa"),
        diagnostic=("mf1", "miou"),
        baselines=("all_unchanged", "all_changed", "oracle"),
        notes=(VALID_NOTE,),
    ),
    Protocol(
        name="levir-mci-mask",
        title="LEVIR-MCI: masks of changed roads and buildings",
        task=Task.CHANGE_MASK,
        source=(
            "Liu et al. 2024 (Change-Agent, arXiv 2403.19646); Evaluator in github.com/Chen-Yang-Liu/Change-Agent"
            " Multi_change/utils_tool/metrics.py"
        ),
        components=({"use": "class_map", "config": {"classes": 3}},),
        headline=("miou", "iou_0", "iou_1", "iou_2"),
        diagnostic=("pixel_accuracy", "mean_pixel_accuracy", "fwiou"),
        only_named=False,
        baselines=("all_unchanged", "all_changed", "oracle"),
        notes=(
            "Classes: 0 background, 1 road, 2 building. Predictions hold these indices, also where the labels are grey levels.",
            VALID_NOTE,
        ),
    ),
    Protocol(
        name="class-map",
        title="Maps of any number of classes",
        task=Task.CHANGE_MASK,
        source="mean IoU from one summed matrix, as Mean_Intersection_over_Union of ChenHongruixuan/BRIGHT@15ffc77 bda_benchmark/util_func/metrics.py",
        components=({"use": "class_map", "config": {"classes": 4}},),
        headline=("miou", "pixel_accuracy", "fwiou"),
        diagnostic=("mean_pixel_accuracy",),
        only_named=False,
        baselines=("all_unchanged", "all_changed", "oracle"),
        notes=(
            "The number of classes is set: --set class_map.classes=4 for BRIGHT, which is the default, 5 for LandCover.ai, 7 for LoveDA.",
            "Pixels without a label are declared by nodata of the mask, such as 0 in LoveDA's.",
            VALID_NOTE,
        ),
    ),
    Protocol(
        name="second-stacked7",
        title="SECOND: semantic change, both dates in one matrix of 7 classes",
        task=Task.SEMANTIC_CHANGE,
        source=(
            "Yang et al. 2020 (SECOND, arXiv 2010.05687); github.com/ggsDing/Bi-SRNet Eval_SCD.py and utils/utils.py, as SCanNet,"
            " Mamba-FCS and others evaluate"
        ),
        components=({"use": "semantic_change", "config": {"joint": "stacked"}},),
        headline=SEMANTIC_KEYS,
        baselines=SEMANTIC_BASELINES,
        notes=(
            "Not comparable with second-fromto37: the same maps get a higher SeK here.",
            "kappa leaves out pixels that both sides call unchanged; oa is the mean of per-image accuracies.",
            VALID_NOTE,
        ),
    ),
    Protocol(
        name="second-fromto37",
        title="SECOND: semantic change, 37 classes of transitions",
        task=Task.SEMANTIC_CHANGE,
        source=(
            "Yang et al. 2020 (SECOND, arXiv 2010.05687); github.com/Z-Zheng/pytorch-change-models torchange/metrics/second.py"
        ),
        components=({"use": "semantic_change", "config": {"joint": "from_to"}},),
        headline=SEMANTIC_KEYS,
        baselines=SEMANTIC_BASELINES,
        notes=(
            "Not comparable with second-stacked7: the same maps get a lower SeK here.",
            "kappa leaves out pixels that both sides call unchanged; oa is the mean of per-image accuracies.",
            "A pixel that only one of the two maps calls changed is wrong.",
            VALID_NOTE,
        ),
    ),
    Protocol(
        name="xview2-damage",
        title="xView2: buildings and their damage",
        task=Task.DAMAGE,
        source=(
            "Gupta et al. 2019 (xBD, arXiv 1911.09296); github.com/DIUx-xView/xView2_scoring xview2_metrics.py as of commit acb007a"
        ),
        components=({"use": "building_damage"},),
        headline=("score", "localization_f1", "damage_f1"),
        diagnostic=("f1_no_damage", "f1_minor", "f1_major", "f1_destroyed"),
        baselines=("empty", "no_damage", "oracle"),
        notes=(
            "Where no true building has one of the four levels, damage_f1 and score are undefined; the original gives about 0.",
            VALID_NOTE,
        ),
    ),
    Protocol(
        name="xbd-unmasked-damage",
        title="xBD: buildings and their damage, as MambaBDA evaluates",
        task=Task.DAMAGE,
        source="ChenHongruixuan/MambaCD@96c3240 changedetection/script/infer_MambaBDA.py and utils_func/metrics.py (arXiv 2404.03425)",
        components=({"use": "building_damage", "config": {"unmasked": True}},),
        headline=("score", "localization_f1", "damage_f1"),
        diagnostic=("f1_no_damage", "f1_minor", "f1_major", "f1_destroyed"),
        baselines=("empty", "no_damage", "oracle"),
        notes=(
            "Damage counts in every true building, also where the model sees none, so that numbers are higher than those of xview2-damage.",
            "A level without a pixel in the truth has F1 0, and with it damage_f1 is 0.",
            VALID_NOTE,
        ),
        lenient=True,
    ),
)
