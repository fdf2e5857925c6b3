"""Our rewards in verl: its own reward loop calls them, and its own arithmetic says what an advantage is."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import rsw_rewards as rsw
from rsw_rewards.integrations.verl import Rewards, compute_score
from tests.foreign import package
from tests.integrations.shown import QUESTIONS, RUBRIC, TEXTS, Words, expected

PAGES = Path(__file__).parents[2] / "docs/integrations"
BLOCKS = re.findall(r"```(?:yaml|python)\n(.*?)```", (PAGES / "verl.md").read_text(), re.DOTALL)
NORMALIZED = {"combine": "normalize_each", "components": [{"use": "exact_match"}]}


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the page's configuration names, in the working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PWD", str(tmp_path))
    Path("samples.jsonl").write_text("\n".join(map(json.dumps, QUESTIONS)))
    Path("rubric.yaml").write_text("components:\n" + "".join(f"  - {{use: {k}, weight: {v}}}\n" for k, v in RUBRIC.items()))  # fmt: skip


class Settings(dict):
    """A configuration whose entries are attributes as well, as those of verl."""

    def __getattr__(self, name: str) -> Any:
        value = self[name]
        return Settings(value) if isinstance(value, Mapping) else value


def settings(workers: int = 1, validation: int = 4, count: int = 4, use_v1: bool = True, **given: Any) -> Settings:
    return Settings(
        reward={"num_workers": workers, "custom_reward_function": {"reward_kwargs": given}},
        actor_rollout_ref={"rollout": {"n": count, "val_kwargs": {"n": validation}}},
        trainer={"val_before_train": True, "test_freq": -1, "use_v1": use_v1},
    )


class Tokenizer(Words):
    eos_token_id = 0


def held(truth: Any = "a", **more: Any) -> dict[str, Any]:
    return {"uid": "u", "reward_model": {"ground_truth": truth}, **more}


def test_a_function_gives_our_rewards(files: None) -> None:
    for text, reward in zip(TEXTS, expected(TEXTS), strict=True):
        given = compute_score("levir", text, "a", {"index": 0}, rubric="rubric.yaml", samples="samples.jsonl")
        assert given["score"] == pytest.approx(reward)
        assert set(given) == {"score", *RUBRIC}
    truth = ["change_qa", "answers"]
    assert compute_score("levir", "yes", "yes", rubric={"exact_match": 1.0}, truth=truth)["score"] == 1.0
    with pytest.raises(rsw.ConfigError, match="verl shows its reward function one output at a time"):
        compute_score("levir", "yes", "a", rubric=NORMALIZED, samples=QUESTIONS)


def test_a_row_that_was_cut_off_is_invalid_and_its_prompts_images_are_the_samples() -> None:
    rewards = Rewards(settings(rubric=RUBRIC, samples=QUESTIONS, eos_token_id=[0, 1]), Tokenizer())
    rows = [asyncio.run(rewards.of_row("yes", ids, held())) for ids in ([7, 0], [7, 1], [7], [])]
    assert [row["reward_score"] for row in rows] == [1.0, 1.0, 0.0, 0.0]
    seen: list[Any] = []

    @rsw.verifier(tasks="change_qa")
    def images_seen(sample: rsw.Sample, output: rsw.Output) -> float:
        seen.extend(image.pixels() for image in sample.images)
        return 1.0

    before = Image.new("RGB", (8, 8))
    parts = [{"type": "text", "text": "Changed?"}, {"type": "image", "image": before}]
    prompt = [{"role": "system", "content": "Look."}, {"role": "user", "content": parts}]
    rewards = Rewards(settings(rubric=images_seen), Tokenizer())
    asyncio.run(rewards.of_row("yes", [7, 0], held(json.dumps(QUESTIONS[0]), raw_prompt=prompt)))
    assert np.array_equal(seen, [np.asarray(before)])


def test_rows_of_a_group_wait_for_each_other() -> None:
    rewards = Rewards(settings(rubric=NORMALIZED, samples=QUESTIONS), Tokenizer())
    texts = ["yes", "no", "no", "yes"]

    async def step() -> list[Any]:
        first = [asyncio.ensure_future(rewards.of_row(text, [1, 0], held())) for text in texts[:3]]
        await asyncio.sleep(0.05)
        assert not any(row.done() for row in first)
        other = [rewards.of_row(text, [1, 0], {**held(), "uid": "other"}) for text in texts]
        return await asyncio.gather(*first, rewards.of_row(texts[3], [1, 0], held()), *other)

    given = [row["reward_score"] for row in asyncio.run(step())]
    whole = rsw.Reward(NORMALIZED).many(texts, [QUESTIONS[0]] * 4)
    assert given == [result.reward for result in whole] * 2


def test_a_group_that_is_never_whole_has_no_rewards() -> None:
    rewards = Rewards(settings(rubric=NORMALIZED, samples=QUESTIONS, group_timeout_s=0.05), Tokenizer())
    with pytest.raises(rsw.RunStopped, match=r"1 of 4 outputs of a group came within 0\.05 s"):
        asyncio.run(rewards.of_row("yes", [1, 0], held()))


def test_a_configuration_that_divides_groups_is_refused() -> None:
    groups = {"rubric": NORMALIZED, "samples": QUESTIONS}
    with pytest.raises(rsw.ConfigError, match=r"normalize_each.* over its workers; set reward\.num_workers to 1"):
        Rewards(settings(workers=8, **groups), Tokenizer())
    with pytest.raises(
        rsw.ConfigError, match=r"'group_mean', and verl does not say .* set rollout\.val_kwargs\.n to 4"
    ):
        Rewards(settings(validation=1, rubric=RUBRIC, samples=QUESTIONS, on_failure="group_mean"), Tokenizer())
    with pytest.raises(rsw.ConfigError, match=r"older trainer .* set trainer\.use_v1 to True"):
        Rewards(settings(use_v1=False, **groups), Tokenizer())
    with pytest.raises(rsw.ConfigError, match="reward_kwargs names no 'rubric'"):
        Rewards(settings(), Tokenizer())
    with pytest.raises(rsw.ConfigError, match=r"normalize_each.* and rollout\.n is 1; set it to 2 or more"):
        Rewards(settings(count=1, **groups), Tokenizer())
    assert Rewards(settings(workers=8, validation=1, rubric=RUBRIC, samples=QUESTIONS), Tokenizer()).why == ""


def test_keywords_that_the_function_does_not_read_are_refused() -> None:
    with pytest.raises(
        rsw.ConfigError, match=r"reward_kwargs holds \['on_failure'\]; the function reads rubric, samples"
    ):
        compute_score("levir", "yes", "a", rubric=RUBRIC, samples=QUESTIONS, on_failure="group_mean")


def test_the_pages_rows_name_their_samples(files: None) -> None:
    samples = [{**sample, "prompt": "Changed?", "images": ["before.png", "after.png"]} for sample in QUESTIONS]
    Path("samples.jsonl").write_text("\n".join(map(json.dumps, samples)))
    exec(BLOCKS[2], {})
    row = pd.read_parquet("train.parquet").iloc[1]
    assert row["prompt"][0] == {"role": "user", "content": "<image><image>Changed?"}
    assert list(row["images"]) == ["before.png", "after.png"]
    assert (
        compute_score("levir", "no", row["reward_model"]["ground_truth"], rubric=RUBRIC, samples=samples)["score"] == 1
    )


def composed(*overrides: str, folder: Path = PAGES, name: str = "verl_qwen2_5_vl_7b") -> Any:
    """A configuration as verl's command makes it."""
    from hydra import compose, initialize_config_dir
    from verl.experimental.reward_loop import migrate_legacy_reward_impl

    with initialize_config_dir(str(folder.absolute()), version_base=None):
        return migrate_legacy_reward_impl(compose(name, list(overrides)))


def rows(words: Tokenizer, texts: list[str], end: str = "</s>", **more: Any) -> Any:
    """Rows as verl's agent loop hands them to the reward loop."""
    import torch
    from tensordict import TensorDict
    from verl import DataProto

    ids = [[*words.encode(text), *([0] if end else [])] for text in texts]
    width = max(map(len, ids))
    filled = [[*row, *[0] * (width - len(row))] for row in ids]
    mask = [[1, 1, *[1] * len(row), *[0] * (width - len(row))] for row in ids]
    tensors = {
        "prompts": torch.zeros(len(texts), 2, dtype=torch.long),
        "responses": torch.tensor(filled, dtype=torch.long),
        "attention_mask": torch.tensor(mask),
    }
    fields = {"data_source": "levir", "reward_model": {"ground_truth": "a"}, "extra_info": {}, "uid": "u", **more}
    return DataProto(
        batch=TensorDict(tensors, batch_size=len(texts)),
        non_tensor_batch={key: np.array([value] * len(texts), dtype=object) for key, value in fields.items()},
    )


def asked(manager: Any, data: Any) -> list[Any]:
    async def all_of_them() -> list[Any]:
        one_by_one = [manager.run_single(data[place : place + 1]) for place in range(len(data))]
        return await asyncio.gather(*one_by_one, return_exceptions=True)

    return manager.loop.run_until_complete(all_of_them())


def test_the_pages_function_in_verls_own_manager(files: None) -> None:
    package("verl")
    from verl.trainer.ppo.reward import load_reward_manager

    verls_own = "hydra: {searchpath: [pkg://verl.trainer.config]}\ndefaults: [ppo_trainer, _self_]\n"
    Path("mine.yaml").write_text(verls_own + BLOCKS[0])
    words = Tokenizer()
    manager = load_reward_manager(composed(folder=Path(), name="mine"), words)
    given = asked(manager, rows(words, TEXTS))
    assert [row["reward_score"] for row in given] == pytest.approx(expected(TEXTS))
    assert all(set(row["reward_extra_info"]) == {"score", *RUBRIC} for row in given)


def test_the_pages_configuration_and_our_manager(files: None) -> None:
    package("verl")
    from verl.trainer.ppo.reward import load_reward_manager
    from verl.utils.config import validate_config

    config = composed("reward.custom_reward_function.reward_kwargs.eos_token_id=0")
    validate_config(config, use_reference_policy=True, use_critic=False)
    words = Tokenizer()
    manager = load_reward_manager(config, words)
    given = asked(manager, rows(words, TEXTS))
    assert [row["reward_score"] for row in given] == pytest.approx(expected(TEXTS))
    assert all(set(row["reward_extra_info"]) == {"score", *RUBRIC} for row in given)
    cut_off = asked(manager, rows(words, ["yes"], end=""))
    assert cut_off[0]["reward_score"] == 0.0


def advantages(manager: Any, data: Any, scores: list[float]) -> list[float]:
    from verl.trainer.ppo.core_algos import compute_grpo_outcome_advantage

    mask = data.batch["attention_mask"][:, 2:]
    given, _ = compute_grpo_outcome_advantage(
        manager.assemble_rm_scores(data, scores), mask, data.non_tensor_batch["uid"]
    )
    return given[:, 0].tolist()


@pytest.mark.parametrize("on_failure", ["raise", "group_mean"])
def test_a_failure_moves_no_siblings_advantage(files: None, on_failure: str) -> None:
    package("verl")
    from verl.trainer.ppo.reward import load_reward_manager

    kwargs = "reward.custom_reward_function.reward_kwargs"
    whole = ["reward.num_workers=1", "actor_rollout_ref.rollout.n=4", "actor_rollout_ref.rollout.val_kwargs.n=4"]
    Path("verifier.py").write_text(
        "import rsw_rewards as rsw\n@rsw.verifier(tasks='change_qa')\ndef share(sample, output):\n    return float(output.text)\n"
    )
    Path("rubric.yaml").write_text("components:\n  - {use: 'verifier.py:share'}\n")
    config = composed(*whole, f"+{kwargs}.on_failure={on_failure}", f"{kwargs}.eos_token_id=0")
    words = Tokenizer()
    manager = load_reward_manager(config, words)
    data = rows(words, ["1", "0", "broken", "1"])
    given = asked(manager, data)
    others = rows(words, ["1", "0", "1"])
    reference = advantages(manager, others, [1.0, 0.0, 1.0])
    if on_failure == "raise":  # the trainer goes on with the outputs that have a reward
        assert isinstance(given[2], rsw.RunStopped)
        scores = [row["reward_score"] for row in (given[0], given[1], given[3])]
        assert advantages(manager, others, scores) == pytest.approx(reference, abs=1e-6)
    else:
        found = advantages(manager, data, [row["reward_score"] for row in given])
        assert found[2] == pytest.approx(0, abs=1e-6)
        assert [found[place] for place in (0, 1, 3)] == pytest.approx(np.multiply(reference, np.sqrt(3 / 2)), abs=1e-5)
