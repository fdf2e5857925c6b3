"""Policies that need no model: baselines that do not look at the images, and the truth. Every table is printed beside them.

| name | tasks | what it gives |
|---|---|---|
| ``constant`` | answers, classification, captions | the most common answer or caption of all samples |
| ``majority`` | answers, classification | the most common answer of each kind of question |
| ``blind`` | answers, classification | the most common answer to the same wording in other scenes; sees no image |
| ``shuffled`` | answers, classification, captions | another sample's truth (seeded): right style, wrong content |
| ``all_labels`` | answers, classification | every label of the vocabulary |
| ``no_change`` | captions | the first of the data set's sentences that nothing has changed |
| ``empty`` | all but forecasts | an empty text, an empty mask, empty maps, no boxes |
| ``all_changed``, ``all_unchanged`` | change masks, semantic change | one value in every pixel |
| ``swapped`` | semantic change | the true maps, before and after swapped |
| ``no_damage`` | damage | buildings everywhere, all undamaged |
| ``whole_image`` | grounding | the whole image as box or mask |
| ``copy_before``, ``blurred_copy`` | forecasts | the newest input, as it is or blurred |
| ``mean_image``, ``other_future`` | forecasts | the mean of all true futures; the future of another scene |
| ``persistence``, ``climatology`` | index series | the newest value of a pixel; its mean in that season |
| ``tokenizer_ceiling`` | forecasts | the true future through the visual tokenizer |
| ``oracle`` | all | the truth; of several captions the first |
| ``letter``, ``echo``, ``hedge``, ``every_tag``, ``repeat``, ``noise`` | | tricks that only ``rsw validate`` tries |

``constant`` and ``majority`` are counted on the samples they answer, which is generous to them; ``blind`` and ``shuffled``
never use a sample's own scene where there is another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rsw_rewards.core.plugins import named, user_code
from rsw_rewards.core.records import OUTPUT_FIELDS, Sample
from rsw_rewards.core.registry import Registry, a_function
from rsw_rewards.errors import ConfigError
from rsw_rewards.rollouts.baselines.base import Baseline as Baseline
from rsw_rewards.rollouts.baselines.base import true_text as true_text
from rsw_rewards.rollouts.baselines.ceilings import Oracle as Oracle
from rsw_rewards.rollouts.baselines.ceilings import TokenizerCeiling as TokenizerCeiling
from rsw_rewards.rollouts.baselines.futures import MeanImage, OtherFuture
from rsw_rewards.rollouts.baselines.pictures import BlurredCopy as BlurredCopy
from rsw_rewards.rollouts.baselines.pictures import CopyBefore as CopyBefore
from rsw_rewards.rollouts.baselines.pictures import Filled, NoDamage, Nothing, Swapped, WholeImage
from rsw_rewards.rollouts.baselines.series import Climatology, Persistence
from rsw_rewards.rollouts.baselines.texts import AllLabels, Blind, Empty, Majority, NoChange, Shuffled
from rsw_rewards.rollouts.baselines.texts import Constant as Constant
from rsw_rewards.rollouts.baselines.tricks import Echo, EveryTag, Hedge, Letter, Noise, Repeat
from rsw_rewards.rollouts.policy import Policy


def _empty(samples: Sequence[Sample]) -> Policy:
    return Empty() if samples and OUTPUT_FIELDS[samples[0].task] == ("text",) else Nothing()


_BUILT_IN: dict[str, Callable[[Sequence[Sample]], Policy]] = {
    "constant": Constant,
    "majority": Majority,
    "blind": Blind,
    "shuffled": Shuffled,
    "all_labels": AllLabels,
    "no_change": lambda samples: NoChange(),
    "empty": _empty,
    "all_changed": lambda samples: Filled(True),
    "all_unchanged": lambda samples: Filled(False),
    "swapped": lambda samples: Swapped(),
    "no_damage": lambda samples: NoDamage(),
    "whole_image": lambda samples: WholeImage(),
    "persistence": lambda samples: Persistence(),
    "climatology": lambda samples: Climatology(),
    "copy_before": lambda samples: CopyBefore(),
    "blurred_copy": lambda samples: BlurredCopy(),
    "mean_image": MeanImage,
    "other_future": OtherFuture,
    "tokenizer_ceiling": lambda samples: TokenizerCeiling(),
    "oracle": lambda samples: Oracle(),
    "letter": lambda samples: Letter(),
    "echo": lambda samples: Echo(),
    "hedge": Hedge,
    "every_tag": EveryTag,
    "repeat": lambda samples: Repeat(),
    "noise": lambda samples: Noise(),
}
BASELINES: Registry[Callable[[Sequence[Sample]], Policy]] = Registry("baseline", "baselines", _BUILT_IN, a_function)
"""What makes a baseline from all samples of a run, which must be of one task."""


def make_baseline(use: str | Any, samples: Sequence[Sample]) -> Policy:
    """The baseline that a name or an object of :data:`BASELINES` stands for, fitted on ``samples`` where it counts answers.

    Raises:
        ConfigError: nothing has that name, or it raises or makes no policy.
    """
    make = BASELINES.find(use)
    with user_code(f"the baseline {named(use)!r} raised"):
        made = make(samples)
    if not isinstance(made, Policy):
        raise ConfigError(
            f"the baseline {named(use)!r} makes an object of the type {type(made).__name__}, and must make a Policy"
        )
    return made
