"""Reward models of images for Flow-Factory, which its configuration names: one for outputs alone, one for whole groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rsw_rewards.core.image_values import describe
from rsw_rewards.core.records import Sample
from rsw_rewards.engine.reward import Result
from rsw_rewards.errors import InputError
from rsw_rewards.integrations.adapter import shared
from rsw_rewards.io.given_images import from_images
from rsw_rewards.io.in_memory import as_samples
from rsw_rewards.serve.compatible import by_prompt

_ALONE = "a PointwiseRewardModel is shown outputs one by one, so that it needs RSWGroupwiseReward"


class Rewards:
    """The rewards of a batch. Both reward models ask it.

    Args:
        given: ``rubric``, ``samples``, ``on_failure`` and ``settings``, as for
            :class:`~rsw_rewards.integrations.adapter.Adapter`; what the configuration has beside Flow-Factory's own entries.
        groups: whether a batch is one whole group.

    >>> from PIL import Image
    >>> before, after = Image.new("RGB", (8, 8)), Image.new("RGB", (8, 8), "white")
    >>> sample = {"id": "a", "task": "forecast", "images": [before], "prompt": "a road", "reference": {"images": [after]}}
    >>> rewards = Rewards({"rubric": {"gain_over_copy": 1.0}, "samples": [sample]}, groups=True)
    >>> rewards.of_batch(["a road"] * 2, [[after], [before]])
    ([1.0, 0.5], {'gain_over_copy': [1.0, 0.5]})
    """

    def __init__(self, given: Mapping[str, Any], groups: bool) -> None:
        shown = {"choices": ("group_mean", "raise"), "on_failure": "group_mean"} if groups else {"alone": _ALONE}
        options = {"gives": "image", **shown, **given}
        settings = options.pop("settings", None) or {}
        self.groups = groups
        self.adapter = shared(**options, **settings)
        samples = given.get("samples")
        self.by_prompt = by_prompt([] if samples is None else as_samples(samples))

    def of_batch(
        self,
        prompts: Sequence[str],
        images: Sequence[Sequence[Any]],
        conditions: Sequence[Sequence[Any]] | None = None,
        names: Sequence[Any] | None = None,
    ) -> tuple[list[float | None], dict[str, list[float]]]:
        """The reward of every output, and the values of each component.

        Args:
            prompts: n texts, each of which names the sample with this prompt.
            images: the images of each output, as PIL: one, or those of a forecast in their order.
            conditions: the images that were shown for each, as PIL; those of a sample that a row holds whole and that names none.
            names: what names the samples in place of the prompts: the id of each, or the whole sample, as a mapping or as JSON.
        """
        samples = [
            self._of_prompt(prompt)
            if names is None
            else self.adapter.sample(names[row], conditions and conditions[row])
            for row, prompt in enumerate(prompts)
        ]
        outputs = [from_images(frames, "pil") for frames in images]
        keys = [0] * len(outputs) if self.groups else list(range(len(outputs)))
        results: list[Result] = self.adapter.reward.many(outputs, samples, keys)
        logged = [self.adapter.logged(result) for result in results]
        return self.adapter.numbers(results, keys), {
            name: [row[name] for row in logged] for name in self.adapter.labels
        }

    def _of_prompt(self, prompt: str) -> Sample:
        found = self.by_prompt.get(prompt, [])
        if len(found) != 1:
            raise InputError(
                f"{len(found)} samples have the prompt {describe(prompt)}; give each sample a prompt of its own, or Flow-Factory's"
                " samples a field 'sample_id'"
            )
        return found[0]


def __getattr__(name: str) -> Any:
    """``RSWPointwiseReward`` and ``RSWGroupwiseReward``, which derive from Flow-Factory's own classes and so need it."""
    if name not in ("RSWPointwiseReward", "RSWGroupwiseReward"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from flow_factory.rewards.abc import GroupwiseRewardModel, PointwiseRewardModel, RewardModelOutput

    groups = name == "RSWGroupwiseReward"

    class RSWReward(GroupwiseRewardModel if groups else PointwiseRewardModel):  # type: ignore[misc]
        required_fields = ("prompt", "image", "video")

        def __init__(self, config: Any, accelerator: Any) -> None:
            super().__init__(config, accelerator)
            self.rewards = Rewards(config.extra_kwargs, groups)

        def __call__(
            self, prompt: Any, image: Any = None, video: Any = None, condition_images: Any = None, sample_id: Any = None
        ) -> Any:
            images = video if image is None else [[one] for one in image]
            rewards, parts = self.rewards.of_batch(prompt, images, condition_images, sample_id)
            return RewardModelOutput(rewards=rewards, extra_info=parts)

    RSWReward.__name__ = RSWReward.__qualname__ = name
    return globals().setdefault(name, RSWReward)
