"""PPO on a toy policy: learning, the sampler's distribution, faults, and runs that are killed and taken up again."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file as load_weights

from rsw_rewards.config import PpoConfig, PpoRunConfig, load_config
from rsw_rewards.core.plugins import load_file
from rsw_rewards.core.records import Output, Sample
from rsw_rewards.data.scene_world import scene_world_samples
from rsw_rewards.errors import ConfigError, RunStopped
from rsw_rewards.rollouts.policies import build_policy
from rsw_rewards.rollouts.pool import RolloutPool
from rsw_rewards.rollouts.tiny_vlm import build_tiny
from rsw_rewards.rollouts.trained import LEARNER, MARK
from rsw_rewards.rollouts.vision_language import VisionLanguageModel
from rsw_rewards.rollouts.weights import trained_weights
from rsw_rewards.training import ppo
from rsw_rewards.training.checkpoints import last_complete
from rsw_rewards.training.critic import Rows, score_rows
from rsw_rewards.training.ppo import PpoLearner, train_ppo
from tests.training.run_files import changed, dumped_rewards, log, same, without_times

TOY = str(Path(__file__).parent / "toy_lm.py")
toy = load_file(Path(TOY))
pytestmark = pytest.mark.usefixtures("ray_cluster")


def configuration(out: Path, policy: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    config: dict[str, Any] = {
        "method": "ppo",
        "out": str(out),
        "seed": 5,
        "policy": {"use": f"{TOY}:ToyLM", **(policy or {})},
        "train": {"source": f"{TOY}:toy_data"},
        "rubric": {"components": [{"use": f"{TOY}:near_three"}, {"use": f"{TOY}:bright"}]},
        "ppo": {"steps": 4, "prompts": 4, "group": 4, "learning_rate": 5e-3, "threads": 1},
        "rollouts": {"actors": 0, "chunk": 1},
        "log": [],
    }
    return changed(config, changes)


def run(out: Path, resume: bool = False, **changes: Any) -> dict[str, torch.Tensor]:
    out.mkdir(parents=True, exist_ok=True)
    train_ppo(PpoRunConfig.model_validate(configuration(out, **changes)), resume)
    return load_weights(out / "final" / "model.safetensors")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, torch.Tensor]]:
    out = tmp_path_factory.mktemp("whole")
    return out, run(out)


def test_a_run_leaves_its_log_its_policy_and_the_newest_checkpoints(
    whole: tuple[Path, dict[str, torch.Tensor]],
) -> None:
    out, _ = whole
    rows = log(out)
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    for key in (
        "reward",
        "reward/bright/mean",
        "reward_task/change_qa",
        "policy_loss",
        "value_loss",
        "moved_kl",
        "entropy",
    ):
        assert rows[0][key] is not None, key
    assert {path.name for path in (out / "checkpoints").iterdir()} == {"checkpoint-3", "checkpoint-4"}


@pytest.mark.parametrize("changes", [{}, {"critic": "copy", "beta": 0.01, "kl_estimator": "k3", "micro_batch": 8}])
def test_the_toy_learns_both_tasks(tmp_path: Path, changes: dict[str, Any]) -> None:
    run(tmp_path, ppo={"steps": 16, "group": 8, "learning_rate": 1e-2, **changes}, checkpoints={"every": 0})
    rows = log(tmp_path)
    for task in ("reward_task/change_qa", "reward_task/forecast"):
        start, end = (float(np.mean([row[task] for row in part])) for part in (rows[:3], rows[-3:]))
        assert end > start + 0.1, (task, start, end)
    assert not (tmp_path / "checkpoints").exists()
    if changes:
        assert rows[0]["kl"] == 0.0 and rows[-1]["kl"] > 0.0


def test_a_killed_run_resumes_and_ends_where_the_whole_one_ends(
    whole: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    die_at = 3
    policy = {"die_at": die_at, "mark": str(tmp_path / "died")}
    program = (
        "import json, sys\nfrom rsw_rewards.config import PpoRunConfig\n"
        "from rsw_rewards.training.ppo import train_ppo\n"
        "train_ppo(PpoRunConfig.model_validate(json.loads(sys.argv[1])))\n"
    )
    killed = subprocess.run([sys.executable, "-c", program, json.dumps(configuration(tmp_path, policy))], check=False)
    assert killed.returncode == -signal.SIGKILL
    found = last_complete(tmp_path / "checkpoints")
    assert found is not None and found.name == f"checkpoint-{die_at}"  # nothing but the step under way is lost
    assert same(run(tmp_path, resume=True, policy=policy), whole[1])
    assert without_times(log(tmp_path)) == without_times(log(whole[0]))


def test_a_checkpoint_that_was_interrupted_is_ignored(
    whole: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    run(tmp_path, ppo={"steps": 3})
    (tmp_path / "checkpoints" / "checkpoint-3" / MARK).unlink()
    (tmp_path / "checkpoints" / "checkpoint-3" / LEARNER).write_bytes(b"cut off")
    assert same(run(tmp_path, resume=True), whole[1])


def test_reference_and_copied_critic_resume_exactly(tmp_path: Path) -> None:
    changes = {"beta": 0.05, "critic": "copy", "micro_batch": 3, "epochs": 3, "entropy_weight": 0.01}
    expected = run(tmp_path / "whole", ppo={**changes, "steps": 3})
    run(tmp_path / "part", ppo={**changes, "steps": 1})
    assert same(run(tmp_path / "part", resume=True, ppo={**changes, "steps": 3}), expected)


def test_another_critic_cannot_take_up_a_run(whole: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path) -> None:
    run(tmp_path, ppo={"steps": 1})
    with pytest.raises(ConfigError, match="another policy or critic"):
        run(tmp_path, resume=True, ppo={"steps": 2, "critic": "copy"})


@pytest.mark.slow
def test_actors_train_what_this_process_trains(whole: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path) -> None:
    policy = {"die_at": 2, "mark": str(tmp_path / "died")}  # and one of them is killed on the way
    weights = run(tmp_path, policy=policy, rollouts={"actors": 2})
    assert (tmp_path / "died").exists()
    assert same(weights, whole[1])


def test_a_failing_verifier_stops_the_run_and_is_never_a_zero(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(
        "from rsw_rewards import verifier\n"
        "@verifier(tasks={'change_qa'})\n"
        "def broken(sample, output):\n"
        "    raise RuntimeError('no disk left')\n",
        encoding="utf-8",
    )
    components = [{"use": f"{TOY}:bright"}, {"use": f"{tmp_path / 'broken.py'}:broken"}]
    with pytest.raises(RunStopped, match=r"broken .*no disk left"):
        run(tmp_path, rubric={"components": components})
    dump = max((tmp_path / "dumps").iterdir())
    assert all(reward is None for (sample, _), reward in dumped_rewards(dump).items() if sample[0] == "q")


# The learner by itself


def learner_and_outputs(**changes: Any) -> tuple[PpoLearner, list[Any], list[Output]]:
    policy: Any = build_policy({"use": f"{TOY}:ToyLM"})
    policy.setup()
    config = PpoConfig.model_validate({"epochs": 1, "minibatches": 1, "threads": 1, **changes})
    with RolloutPool(build_policy({"use": f"{TOY}:ToyLM"}), actors=0) as pool:
        groups = list(pool.generate(toy.toy_data(4), 2, 1.0, run_seed=1))
    outputs = [output for group in groups for output in group]
    samples = {sample.id: sample for sample in toy.toy_data(4)}
    return PpoLearner(policy, config, 0), [samples[output.sample_id] for output in outputs], outputs


def weights_of(learner: PpoLearner) -> dict[str, torch.Tensor]:
    return {key: tensor.clone() for key, tensor in learner.model.state_dict().items()}


def test_rows_that_were_lost_or_have_no_reward_teach_nothing() -> None:
    given: list[float | None] = [0.1, None, 0.7, 0.3, None, 0.9, 0.2, 0.5]
    learner, samples, outputs = learner_and_outputs()
    holes = list(outputs)
    holes[4] = Output(outputs[4].sample_id, outputs[4].candidate, lost="its actor died")
    numbers = learner.update(samples, holes, given, 0)
    assert numbers["rows"] == 6 and numbers["reward"] == pytest.approx(np.mean([0.1, 0.7, 0.3, 0.9, 0.2, 0.5]))
    alone, *_ = learner_and_outputs()
    kept = [place for place in range(8) if given[place] is not None]
    alone.update([samples[p] for p in kept], [outputs[p] for p in kept], [given[p] for p in kept], 0)
    assert same(weights_of(learner), weights_of(alone))


def test_sequences_that_were_cut_off_are_ends_or_go_on_or_teach_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is handed to the estimate of advantages, for two outputs of which one was cut off."""
    given: list[float | None] = [0.1, 0.9]
    seen: dict[str, Any] = {}
    real = ppo.gae

    def looked(*arguments: Any) -> Any:
        seen["after"] = arguments[5]
        return real(*arguments)

    monkeypatch.setattr(ppo, "gae", looked)
    for truncated in ("end", "bootstrap", "leave_out"):
        learner, samples, outputs = learner_and_outputs(truncated=truncated)
        with torch.no_grad():
            learner.critic.head[-1].bias.fill_(0.5)  # type: ignore[operator, union-attr]
        monkeypatch.setattr(learner.critic, "start_from", lambda value: None)
        cut = replace(outputs[0], finish_reason="length")
        numbers = learner.update(samples[:2], [cut, outputs[1]], given, 0)
        if truncated == "leave_out":
            assert numbers["rows"] == 1 and numbers["reward"] == pytest.approx(0.9)
            continue
        assert numbers["rows"] == 2 and numbers["truncated"] == 0.5
        after = seen["after"]
        assert after is None if truncated == "end" else after.tolist() == pytest.approx([0.5, 0.0])


def test_a_generation_without_any_reward_changes_nothing() -> None:
    learner, samples, outputs = learner_and_outputs()
    before = weights_of(learner)
    assert learner.update(samples, outputs, [None] * 8, 0)["loss"] is None
    assert same(weights_of(learner), before)


def test_equal_rewards_move_the_policy_nowhere() -> None:
    """The critic starts from the mean reward, so that nothing is an advantage."""
    learner, samples, outputs = learner_and_outputs()
    numbers = learner.update(samples, outputs, [0.5] * 8, 0)
    assert numbers["grad_norm"] == numbers["critic_grad_norm"] == 0.0 and numbers["value"] == pytest.approx(0.5)


def test_a_gradient_that_is_no_number_stops_the_run() -> None:
    learner, samples, outputs = learner_and_outputs()
    with torch.no_grad():
        learner.critic.head[1].bias.fill_(float("nan"))  # type: ignore[operator, union-attr]
    before = weights_of(learner)
    with pytest.raises(RunStopped, match=r"step 1: .* not finite"):
        learner.update(samples, outputs, [0.5] * 8, 0)
    assert same(weights_of(learner), before)


def test_micro_batches_add_up_to_the_whole_batch() -> None:
    given = [0.1, 0.9, 0.7, 0.3, 0.4, 0.9, 0.2, 0.5]
    found = []
    for micro in (None, 3, 1):
        learner, samples, outputs = learner_and_outputs(micro_batch=micro)
        found.append(learner.update(samples, outputs, given, 0))
    for key in ("loss", "grad_norm", "critic_grad_norm", "entropy"):
        assert [part[key] for part in found] == pytest.approx([found[0][key]] * 3, rel=1e-4)


def test_the_critic_does_not_change_what_the_policy_does() -> None:
    learner, samples, outputs = learner_and_outputs(lam=1.0, whiten="none")
    rows = Rows([out.tokens for out in outputs if out.tokens], samples, 0)
    scored = score_rows(learner.model, rows, 1.0)
    learner.critic(rows, scored, 1.0)[0].sum().backward()
    assert all(parameter.grad is None for parameter in learner.model.parameters())


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probabilities_are_those_of_a_plain_forward_pass(temperature: float) -> None:
    learner, samples, outputs = learner_and_outputs()
    traces = [out.tokens for out in outputs if out.tokens]
    scored = score_rows(learner.model, Rows(traces, samples, 0), temperature)
    for row, trace in enumerate(traces):
        ids = torch.tensor([[*trace.prompt_ids, *trace.completion_ids]])
        out = learner.model(ids, output_hidden_states=True)
        log_p = torch.log_softmax(out.logits[0] / temperature, -1)
        start, count = len(trace.prompt_ids) - 1, len(trace.completion_ids)
        expected = log_p[start : start + count].gather(1, ids[0, start + 1 :, None])[:, 0]
        torch.testing.assert_close(scored.log_probs[row, :count], expected, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(scored.hidden[row, :count], out.hidden_states[-1][0, start:-1], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(scored.after[row], out.hidden_states[-1][0, -1], atol=1e-5, rtol=1e-4)
        assert not scored.log_probs[row, count:].any() and not scored.hidden[row, count:].any()


def compared_with_sampler(policy: Any, sampler: Any, samples: list[Sample]) -> PpoLearner:
    """Check the learner's log-probabilities of a padded batch against the sampler's, learn once, and give the learner."""
    with RolloutPool(sampler, actors=0) as pool:
        made = {group[0].sample_id: group for group in pool.generate(samples, 2, 0.7, run_seed=1)}
    outputs = [output for sample in samples for output in made[sample.id]]
    config = PpoConfig.model_validate({"epochs": 1, "temperature": 0.7, "micro_batch": 3, "threads": 1})
    learner = PpoLearner(policy, config, 0)
    before = {key: tensor.clone() for key, tensor in trained_weights(policy.model).items()}
    rows = [sample for sample in samples for _ in range(2)]
    numbers = learner.update(rows, outputs, [float(place % 2) for place in range(len(rows))], 0)
    assert numbers["sampler_gap"] < 1e-3 and numbers["rows"] == len(rows)  # type: ignore[operator]
    after = trained_weights(policy.model)
    assert any(not torch.equal(before[key], after[key]) for key in before)
    return learner


def test_world_models_are_scored_as_they_were_sampled() -> None:
    """Short answers and pictures in one batch, masked by segment, at a temperature that is not 1."""
    pair = [build_policy("token_world_model") for _ in range(2)]
    pair[0].setup()
    compared_with_sampler(pair[0], pair[1], scene_world_samples(4, split="dev"))


@pytest.mark.parametrize("lora", [None, {"r": 4}])
def test_vision_language_models_are_scored_as_they_were_sampled(lora: dict[str, Any] | None, tmp_path: Path) -> None:
    """Two images a prompt, prompts of different lengths; adapters alone are trained and kept where there are any."""
    model = build_tiny("qwen2_5_vl", tmp_path / "model")
    pair = [VisionLanguageModel(model, max_new_tokens=4, lora=lora) for _ in range(2)]
    pair[0].setup()
    squares = load_file(Path(__file__).parents[2] / "examples/squares.py").squares(3)
    placed = (
        "<|vision_start|><|image_pad|><|vision_end|>did a bright square appear?<|im_end|>"  # words, not a third image
    )
    samples = [*squares[:2], replace(squares[2], prompt=placed)]
    learner = compared_with_sampler(pair[0], pair[1], samples)
    kept = learner.state_dict()["policy"]
    assert lora is None or all("lora" in key for key in kept)
    with torch.no_grad():
        for parameter in pair[0].model.parameters():
            parameter.add_(parameter.requires_grad)
    learner.load_state_dict(learner.state_dict() | {"policy": {key: tensor * 0 for key, tensor in kept.items()}})
    assert not any(tensor.any() for tensor in trained_weights(pair[0].model).values())


def test_what_cannot_be_is_said(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    text = "method: ppo\nout: x\npolicy: token_world_model\ntrain: {source: scene-world}\nrubric: {components: [{use: exact_match}]}\n"
    file.write_text(text + "ppo: {prompts: 1, group: 1, minibatches: 2}\n")
    with pytest.raises(ConfigError, match="1 rollouts cannot be divided into 2 minibatches"):
        load_config(file)
    file.write_text(text + "ppo: {prompts: 2, lambda: 0.9}\n")
    with pytest.raises(ConfigError, match=r"unknown key 'ppo\.lambda'"):
        load_config(file)
    file.write_text(text + "ppo: {epsilon_high: 2.5, dual_clip: 3}\n")
    with pytest.raises(ConfigError, match=r"'dual_clip' is 3, inside of the range of ratios, which ends at 3\.5"):
        load_config(file)
    file.write_text(text + "control: supervised\n")
    with pytest.raises(ConfigError, match="control"):
        load_config(file)
