"""Rewards for verl: a reward function that its configuration names, and a reward manager that sees truncation, images and groups."""

from __future__ import annotations

from typing import Any

from rsw_rewards.errors import ConfigError
from rsw_rewards.integrations.adapter import GroupsOf, from_text, plain, shared
from rsw_rewards.io.given_images import images_of

_ALONE = "verl shows its reward function one output at a time"
_OF_VERL = {"reward_router_address", "reward_model_tokenizer"}  # which it gives where it serves a reward model


def compute_score(
    data_source: Any,
    solution_str: str,
    ground_truth: Any,
    extra_info: Any = None,
    *,
    rubric: Any,
    samples: Any = None,
    truth: tuple[str, str] | None = None,
    settings: Any = None,
    **others: Any,
) -> dict[str, float]:
    """What verl calls by ``reward.custom_reward_function``; rubric and samples stand in its ``reward_kwargs``.

    Args:
        solution_str: the text. verl does not tell a function whether it was cut off; the reward manager knows.
        ground_truth: the id of a sample, a whole sample, or the field that ``truth`` names.
        rubric, samples, truth: as for :class:`~rsw_rewards.integrations.adapter.Adapter`.
        settings: further ones of :class:`rsw_rewards.Reward`, as a mapping.

    Returns:
        ``score`` and the value of every component, always under the same names.

    Raises:
        RunStopped: there is no reward; verl marks the group as failed.
        ConfigError: ``reward_kwargs`` holds something else.

    >>> rubric, sample = {"exact_match": 1.0}, {"task": "change_qa", "reference": {"answers": "yes"}}
    >>> compute_score("levir", "yes", sample, rubric=rubric)
    {'score': 1.0, 'exact_match': 1.0}
    """
    if unread := sorted(others.keys() - _OF_VERL):
        raise ConfigError(f"reward_kwargs holds {unread}; the function reads rubric, samples, truth and settings")
    adapter = shared(rubric, samples, truth=truth, alone=_ALONE, **(settings or {}))
    result = adapter.reward.one(from_text(solution_str, False), adapter.sample(ground_truth))
    return {"score": adapter.number(result), **adapter.logged(result)}


class Rewards:
    """The rewards of the rows that verl shows one by one, by its configuration and its tokenizer.

    Where the rubric compares a group, or ``on_failure`` is ``"group_mean"``, the rows of one ``uid`` wait for each other.

    Raises:
        ConfigError: whole groups are needed, and groups of one, several workers, verl's older trainer or groups of another size in
            validation break them.
    """

    def __init__(self, config: Any, tokenizer: Any) -> None:
        given = plain(config.reward.custom_reward_function.get("reward_kwargs") or {})
        if not given.get("rubric"):
            raise ConfigError("reward.custom_reward_function.reward_kwargs names no 'rubric'")
        if (ends := given.pop("eos_token_id", None) or tokenizer.eos_token_id) is None:
            raise ConfigError("the tokenizer names no end of a text; give 'eos_token_id' in the reward_kwargs")
        self.ends = frozenset([ends] if isinstance(ends, int) else ends)
        timeout_s, settings = given.pop("group_timeout_s", 3600.0), given.pop("settings", None) or {}
        self.adapter = shared(**given, choices=("raise", "group_mean"), **settings)
        means = "'on_failure' is 'group_mean'" if self.adapter.on_failure == "group_mean" else ""
        self.why = self.adapter.reward.needs_groups or means
        rollout, trainer = config.actor_rollout_ref.rollout, config.trainer
        self.groups = GroupsOf(rollout.n if self.why else 1, self.adapter, timeout_s)
        resized = rollout.val_kwargs.n != rollout.n and (trainer.val_before_train or trainer.test_freq > 0)
        breaks = {
            f"rollout.n is {rollout.n}; set it to 2 or more": rollout.n < 2,
            "verl divides a group over its workers; set reward.num_workers to 1": config.reward.num_workers != 1,
            "verl's older trainer gives the 'uid' of a group to copies that pad a batch and to baselines as well; set trainer.use_v1 to"
            " True": not trainer.use_v1,
            "verl does not say which outputs are of validation, whose groups have another size; set rollout.val_kwargs.n to"
            f" {rollout.n}, or trainer.val_before_train to False and trainer.test_freq to -1": resized,
        }
        if self.why and (broken := [what for what, applies in breaks.items() if applies]):
            raise ConfigError(f"{self.why}, and {broken[0]}")

    async def of_row(self, text: str, ids: Any, held: Any) -> dict[str, Any]:
        """``reward_score`` and, as ``reward_extra_info``, what :func:`compute_score` gives.

        Args:
            text: without special tokens.
            ids: int tensor of shape (tokens,), without padding; a text that ends with none of ``eos_token_id`` was cut off.
            held: the row's ``non_tensor_batch``; images of ``raw_prompt`` are those of a sample that it holds whole.
        """
        output = from_text(text, not len(ids) or int(ids[-1]) not in self.ends)
        sample = self.adapter.sample(held["reward_model"]["ground_truth"], images_of(held.get("raw_prompt")))
        number, result = await self.groups.reward(output, sample, held["uid"] if self.why else None)
        return {"reward_score": number, "reward_extra_info": {"score": number, **self.adapter.logged(result)}}


def __getattr__(name: str) -> Any:
    """``RSWRewardManager`` for ``reward.reward_manager``, which derives from verl's own class and so needs verl."""
    if name != "RSWRewardManager":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from verl.experimental.reward_loop.reward_manager.base import RewardManagerBase

    class RSWRewardManager(RewardManagerBase):
        def __init__(self, config: Any, tokenizer: Any, compute_score: Any, **unused: Any) -> None:
            super().__init__(config, tokenizer, compute_score)
            self.rewards = Rewards(config, tokenizer)

        async def run_single(self, data: Any) -> dict[str, Any]:
            row = data[-1:][0]  # verl rewards the last output of a row
            ids = row.batch["responses"]
            ids = ids[: row.batch["attention_mask"][-len(ids) :].sum()]
            text = self.tokenizer.decode(ids, skip_special_tokens=True)
            return await self.rewards.of_row(text, ids, row.non_tensor_batch)

    return globals().setdefault(name, RSWRewardManager)
