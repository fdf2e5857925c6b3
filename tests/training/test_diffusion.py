"""Flow-GRPO and DDPO on tiny pipelines: the sampler's densities, learning, faults, and runs that are taken up again."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file as load_weights

from rsw_rewards.config import DiffusionSupervisedConfig, load_config
from rsw_rewards.core.image_ref import ImageRef
from rsw_rewards.core.plugins import load_file
from rsw_rewards.core.records import Output, Sample
from rsw_rewards.errors import ConfigError, RunStopped
from rsw_rewards.rollouts.diffusion_forecaster import DiffusionForecaster
from rsw_rewards.rollouts.policy import Request
from rsw_rewards.rollouts.weights import trained_weights
from rsw_rewards.training.diffusion import DiffusionLearner, FlowGrpoConfig, FlowGrpoRunConfig, train
from rsw_rewards.training.diffusion_supervised import train as train_supervised
from tests.training.run_files import changed, dumped_rewards, log, same, without_times
from tests.training.taught import fit

HERE = Path(__file__).parent
MADE = f"{HERE / 'brightness.py'}:brightness"
brightness = load_file(HERE / "brightness.py").brightness
KINDS = ("instruct_pix2pix", "flux_kontext")
SIDE, STEPS = 8, 3


class Mortal(DiffusionForecaster):
    """Kills its process when that version of the weights arrives, once (``mark`` appears then)."""

    def __init__(self, die_at: int, mark: str, **rest: Any) -> None:
        super().__init__(**rest)
        self.die_at, self.mark = die_at, mark

    def load_weights(self, weights: Mapping[str, torch.Tensor], version: int) -> None:
        if version == self.die_at and not Path(self.mark).exists():
            Path(self.mark).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        super().load_weights(weights, version)


def policy(kind: str, **changes: Any) -> DiffusionForecaster:
    made = DiffusionForecaster(**{"path": f"tiny:{kind}", "size": SIDE, "steps": STEPS, **changes})
    made.setup()
    return made


def configuration(out: Path, **changes: Any) -> dict[str, Any]:
    config: dict[str, Any] = {
        "method": "flow_grpo",
        "out": str(out),
        "seed": 5,
        "policy": {"use": "diffusion_forecaster", "path": "tiny:instruct_pix2pix", "size": SIDE, "steps": STEPS},
        "train": {"source": MADE, "count": 8, "side": SIDE},
        "rubric": {"components": [{"use": "gain_over_copy"}]},
        "flow_grpo": {"steps": 3, "prompts": 2, "group": 2, "learning_rate": 1e-3, "threads": 1},
        "rollouts": {"actors": 0, "chunk": 1},
        "checkpoints": {"every": 1},
        "log": [],
    }
    return changed(config, changes)


def run(out: Path, resume: bool = False, **changes: Any) -> dict[str, torch.Tensor]:
    out.mkdir(parents=True, exist_ok=True)
    train(FlowGrpoRunConfig.model_validate(configuration(out, **changes)), resume)
    (weights,) = (out / "final").glob("unet/*.safetensors")
    return load_weights(weights)


def learner_and_outputs(
    kind: str = "instruct_pix2pix", lora: dict[str, Any] | None = None, **changes: Any
) -> tuple[DiffusionLearner, list[Sample], list[Output]]:
    made = policy(kind, lora=lora)
    samples = [sample for sample in brightness(2, side=SIDE) for _ in range(3)]
    outputs = made.generate([Request(sample, row % 3, row, 1.0) for row, sample in enumerate(samples)])
    config = FlowGrpoConfig.model_validate({"learning_rate": 1e-3, "threads": 1, **changes})
    return DiffusionLearner(made, config, 0), samples, outputs


GIVEN: list[float | None] = [0.1, 0.9, 0.7, 0.3, 0.4, 0.8]


def weights_of(learner: DiffusionLearner) -> dict[str, torch.Tensor]:
    return {key: tensor.clone() for key, tensor in trained_weights(learner.model).items()}


SAMPLERS = [("instruct_pix2pix", "ddim"), *(("flux_kontext", name) for name in ("sde", "dance", "cps"))]


@pytest.mark.parametrize(("kind", "sampler"), SAMPLERS)
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_the_learner_gives_every_step_the_density_it_was_sampled_with(kind: str, sampler: str, guidance: float) -> None:
    """Ratios of the first update against the sampler's own densities, in batches of other sizes."""
    made = policy(kind, guidance_scale=guidance, sampler=sampler)
    samples = brightness(5, side=SIDE)
    told = made.conditions(samples)
    drawn = made.draw(told, range(5), stochastic=True)
    assert drawn.log_probs.shape == (5, STEPS - 1)
    for rows in ([0, 1], [2, 3, 4]):
        part = {key: value[rows] for key, value in made.conditions(samples).items()}
        for number in range(STEPS - 1):
            step = made.pipeline.step(drawn.latents[rows, number], part, number, STEPS, made.noise)
            ratio = (step.log_prob(drawn.latents[rows, number + 1]) - drawn.log_probs[rows, number]).exp()
            assert float((ratio - 1).detach().abs().max()) < 1e-5


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lora", [None, {"r": 4}])
def test_the_first_update_is_on_policy_and_later_ones_are_not(kind: str, lora: dict[str, Any] | None) -> None:
    learner, samples, outputs = learner_and_outputs(kind, lora, epochs=2, micro_batch=4, beta=0.1)
    rows_seen = []
    optimize = learner.optimize

    def looked(*args: Any) -> dict[str, float]:
        rows_seen.append(optimize(*args))
        return rows_seen[-1]

    learner.optimize = looked  # type: ignore[method-assign]
    numbers = learner.update(samples, outputs, GIVEN, 0)
    first, second = rows_seen
    assert first["ratio_gap"] < 1e-6 and second["ratio_gap"] > 1e-6
    assert first["kl"] < 1e-9 < second["kl"]
    assert first["grad_norm"] > 0 and numbers["rows"] == 6 and numbers["reward"] == pytest.approx(np.mean(GIVEN))  # type: ignore[arg-type]
    assert lora is None or all("lora" in key for key in trained_weights(learner.model))


@pytest.mark.parametrize("ratio", ["density", "distance", "guard"])
@pytest.mark.parametrize("epochs", [1, 2])
def test_every_ratio_starts_at_one_and_points_the_same_way(ratio: str, epochs: int) -> None:
    """Ratios differ in their scale alone at the start, so the direction of the first gradient of a step is the same."""
    learner, samples, outputs = learner_and_outputs("flux_kontext", ratio=ratio, timestep_share=0.1, epochs=epochs)
    rows_seen: list[dict[str, float]] = []
    optimize = learner.optimize

    def looked(*args: Any) -> dict[str, float]:
        rows_seen.append(optimize(*args))
        return rows_seen[-1]

    learner.optimize = looked  # type: ignore[method-assign]
    before = torch.cat([weight.detach().flatten() for weight in learner.weights])
    learner.update(samples, outputs, GIVEN, 0)
    assert rows_seen[0]["ratio_gap"] < 1e-6 and rows_seen[0]["grad_norm"] > 0
    if epochs == 2:
        assert rows_seen[1]["ratio_gap"] > 1e-7
        return
    plain, *_ = learner_and_outputs("flux_kontext", timestep_share=0.1)
    plain.update(samples, outputs, GIVEN, 0)
    moves = [torch.cat([weight.detach().flatten() for weight in one.weights]) - before for one in (learner, plain)]
    assert float(torch.nn.functional.cosine_similarity(*moves, dim=0)) > 0.99


@pytest.mark.parametrize("kl", ["step", "flow_grpo", "velocity"])
def test_the_divergence_is_zero_at_the_start_and_not_after(kl: str) -> None:
    learner, samples, outputs = learner_and_outputs("flux_kontext", kl=kl, beta=0.1)
    found = [learner.update(samples, outputs, GIVEN, step)["kl"] for step in range(2)]
    assert found[0] < 1e-9 < found[1]  # type: ignore[operator]


@torch.no_grad()
def densities(made: DiffusionForecaster, samples: list[Sample], outputs: list[Output]) -> torch.Tensor:
    """(n,) log-densities of whole trajectories."""
    told = made.conditions(samples)
    kept = [torch.from_numpy(out.trajectory.pixels().astype(np.float32)) for out in outputs if out.trajectory]
    latents, total = torch.stack(kept), torch.zeros(len(outputs))
    for number in range(STEPS - 1):
        total += made.pipeline.step(latents[:, number], told, number, STEPS, made.noise).log_prob(
            latents[:, number + 1]
        )
    return total


@pytest.mark.parametrize("kind", KINDS)
def test_an_update_makes_better_pictures_more_probable(kind: str) -> None:
    """Which of two pictures of one prompt is the better one decides where the densities go."""
    for better in (0, 1):
        learner, samples, outputs = learner_and_outputs(kind, learning_rate=1e-4)
        pair = learner.policy, samples[:2], outputs[:2]
        before = densities(*pair)
        learner.update(*pair[1:], [1.0 - better, 0.0 + better], 0)
        moved = densities(*pair) - before
        assert moved[better] > moved[1 - better]


def test_a_share_of_the_steps_is_learnt_from() -> None:
    """Of nine noisy steps a third: the noisiest three, or three others in every generation, the same when it is repeated."""
    first, *_ = learner_and_outputs(timestep_share=0.34)
    drawn, *_ = learner_and_outputs(timestep_share=0.34, timestep_order="random")
    for learner in (first, drawn):
        learner.policy.steps = 10
    assert [first.steps_learnt(step) for step in (0, 1)] == [[0, 1, 2]] * 2
    several = [drawn.steps_learnt(step) for step in range(20)]
    assert several == [drawn.steps_learnt(step) for step in range(20)] and {len(set(part)) for part in several} == {3}
    assert {number for part in several for number in part} == set(range(9))


def test_only_the_chosen_steps_have_a_gradient() -> None:
    learner, samples, outputs = learner_and_outputs(timestep_share=0.5)
    seen = []
    step = learner.denoising_step

    def looked(latents: torch.Tensor, told: Any, number: int) -> Any:
        seen.append(number)
        return step(latents, told, number)

    learner.denoising_step = looked  # type: ignore[method-assign]
    assert learner.update(samples, outputs, GIVEN, 0)["grad_norm"] > 0  # type: ignore[operator]
    assert set(seen) == {0}


@pytest.mark.parametrize("kind", KINDS)
def test_only_a_window_of_steps_is_stochastic_and_learnt_from(kind: str) -> None:
    """Weights of version 1 have another window than those of version 0, and the learner knows of both."""
    made = policy(kind, steps=6, window={"size": 2, "every": 1})
    samples = brightness(2, side=SIDE)
    learner = DiffusionLearner(made, FlowGrpoConfig(), 0)
    for version in (0, 1):
        made.load_weights(trained_weights(made.model), version)
        told = made.conditions(samples)
        drawn = made.draw(told, range(2), stochastic=True)
        assert drawn.log_probs.shape == (2, 2) and learner.steps_learnt(version) == [version, version + 1]
        for number in range(6):
            plain = made.pipeline.step(drawn.latents[:, number], told, number, 6, 0.0).mean.detach()
            moved = float((plain.half().float() - drawn.latents[:, number + 1]).abs().max())
            assert (moved > 0.05) == (number in (version, version + 1)), (number, moved)


def test_random_windows_stay_within_their_range_and_are_drawn_again_alike() -> None:
    made = [policy("flux_kontext", steps=10, window={"size": 2, "order": "random", "every": 1, "within": [0, 5]})] * 2
    places = [[list(one.noisy_steps(version)) for version in range(50)] for one in made]
    assert places[0] == places[1] and {part[0] for part in places[0]} == {0, 1, 2, 3}


def test_a_run_can_end_with_the_moving_average_of_its_weights(tmp_path: Path) -> None:
    learner, samples, outputs = learner_and_outputs(ema=0.9)
    start = {key: tensor.clone() for key, tensor in weights_of(learner).items()}
    learner.update(samples, outputs, GIVEN, 0)
    trained = weights_of(learner)
    assert learner.average is not None
    learner.average.apply()
    for key, tensor in weights_of(learner).items():
        torch.testing.assert_close(tensor, start[key] + (1 - 2 / 11) * (trained[key] - start[key]))
    averaged = run(tmp_path, flow_grpo={"ema": 0.9, "steps": 1})
    kept = torch.load(tmp_path / "checkpoints" / "checkpoint-1" / "learner_state.pt", weights_only=True)
    assert not same(averaged, kept["policy"])


def test_micro_batches_add_up_to_the_whole_batch() -> None:
    found = []
    for micro in (None, 4, 1):
        learner, samples, outputs = learner_and_outputs(micro_batch=micro, beta=0.1)
        found.append(learner.update(samples, outputs, GIVEN, 0))
    for key in ("loss", "grad_norm"):
        assert [part[key] for part in found] == pytest.approx([found[0][key]] * 3, rel=1e-3, abs=1e-7)


def test_rows_without_reward_or_picture_teach_nothing() -> None:
    learner, samples, outputs = learner_and_outputs()
    given = [0.1, None, 0.7, float("nan"), 0.4, 0.9]
    holes = list(outputs)
    holes[2] = Output(outputs[2].sample_id, 2, lost="its actor died")
    numbers = learner.update(samples, holes, [*given[:2], None, *given[3:]], 0)
    assert numbers["rows"] == 3 and numbers["reward"] == pytest.approx(np.mean([0.1, 0.4, 0.9]))
    alone, *_ = learner_and_outputs()
    kept = [0, 4, 5]
    alone.update([samples[p] for p in kept], [outputs[p] for p in kept], [given[p] for p in kept], 0)
    for key, weight in weights_of(alone).items():
        torch.testing.assert_close(weight, weights_of(learner)[key], rtol=0, atol=2e-3 * 1e-3 + 1e-6)


def test_a_generation_without_any_reward_changes_nothing() -> None:
    learner, samples, outputs = learner_and_outputs()
    before = weights_of(learner)
    assert learner.update(samples, outputs, [None] * 6, 0)["loss"] is None
    assert learner.update(samples, outputs, [0.5] * 6, 0)["grad_norm"] == 0.0
    assert same(weights_of(learner), before)


def test_a_gradient_that_is_no_number_stops_the_run_before_it_does_harm() -> None:
    learner, samples, outputs = learner_and_outputs()
    broken = np.full((STEPS + 1, 4, SIDE, SIDE), np.nan, np.float16)
    outputs[0] = Output(samples[0].id, trajectory=ImageRef(array=broken))
    before = weights_of(learner)
    with pytest.raises(RunStopped, match=r"step 1: .* not finite"):
        learner.update(samples, outputs, GIVEN, 0)
    assert same(weights_of(learner), before)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, torch.Tensor]]:
    out = tmp_path_factory.mktemp("whole")
    return out, run(out, dump_every=1)


def test_a_run_leaves_its_log_policy_dumps_and_newest_checkpoints(whole: tuple[Path, dict[str, torch.Tensor]]) -> None:
    out, weights = whole
    rows = log(out)
    assert [row["step"] for row in rows] == [1, 2, 3]
    for key in ("reward", "reward_task/forecast", "policy_loss", "clip_fraction", "grad_norm", "rows"):
        assert rows[0][key] is not None, key
    assert {path.name for path in (out / "checkpoints").iterdir()} == {"checkpoint-2", "checkpoint-3"}
    dumped = list(dumped_rewards(out / "dumps" / "step_000000").values())
    assert np.mean([value for value in dumped if value is not None]) == pytest.approx(rows[0]["reward"])
    assert not same(weights, trained_weights(policy("instruct_pix2pix").model))


@pytest.mark.parametrize("changes", [{}, {"epochs": 2, "minibatches": 2, "beta": 0.05, "micro_batch": 1, "ema": 0.9}])
def test_a_run_taken_up_again_ends_where_the_whole_one_ends(
    changes: dict[str, Any], whole: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    if not changes:
        expected, rows = whole[1], without_times(log(whole[0]))
    else:
        expected, rows = run(tmp_path / "whole", flow_grpo=changes), without_times(log(tmp_path / "whole"))
    run(tmp_path / "part", flow_grpo={**changes, "steps": 1})
    assert same(run(tmp_path / "part", resume=True, flow_grpo=changes), expected)
    assert without_times(log(tmp_path / "part")) == rows


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_actors_train_what_this_process_trains_though_one_is_killed(
    whole: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    mortal = {"use": f"{Path(__file__)}:Mortal", "die_at": 1, "mark": str(tmp_path / "died")}
    weights = run(tmp_path, policy=mortal, rollouts={"actors": 1})
    assert (tmp_path / "died").exists()
    assert same(weights, whole[1])


def test_a_failing_verifier_stops_the_run_and_is_never_a_zero(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(
        "from rsw_rewards import verifier\n"
        "@verifier(tasks={'forecast'})\n"
        "def broken(sample, output):\n"
        "    raise RuntimeError('no disk left')\n",
        encoding="utf-8",
    )
    with pytest.raises(RunStopped, match=r"broken .*no disk left"):
        run(tmp_path, rubric={"components": [{"use": f"{tmp_path / 'broken.py'}:broken"}]})


@pytest.mark.parametrize("kind", KINDS)
def test_true_futures_are_learnt(kind: str) -> None:
    made = policy(kind)
    losses = list(fit(made, brightness(64, side=SIDE), 40, 16, 3e-3, seed=1, drop_text=0.1))
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])


def test_supervised_training_writes_a_policy_and_refuses_others(tmp_path: Path) -> None:
    given: dict[str, Any] = {
        "out": tmp_path / "start",
        "policy": {"use": "diffusion_forecaster", "path": "tiny:flux_kontext", "size": SIDE},
        "train": {"source": MADE, "count": 4, "side": SIDE},
        "steps": 2,
        "batch": 2,
        "threads": 1,
    }
    train_supervised(DiffusionSupervisedConfig.model_validate(given))
    policy("flux_kontext", path=str(tmp_path / "start"))
    with pytest.raises(ConfigError, match="trains a 'diffusion_forecaster', not 'copy_before'"):
        train_supervised(DiffusionSupervisedConfig.model_validate({**given, "policy": {"use": "copy_before"}}))


def test_a_sampler_that_a_pipeline_does_not_have_is_refused() -> None:
    with pytest.raises(ConfigError, match="FluxKontextPipeline has no sampler 'ddim'; known are sde, dance, cps"):
        policy("flux_kontext", sampler="ddim")
    with pytest.raises(ConfigError, match="with the sampler 'cps' it must be at most 1"):
        policy("flux_kontext", sampler="cps", noise=1.2)


def test_a_window_without_room_is_refused() -> None:
    with pytest.raises(ConfigError, match="window: a window of 4 steps has no room between step 0 and step 2"):
        policy("flux_kontext", window={"size": 4})
    with pytest.raises(ConfigError, match="window: unknown key 'width'"):
        policy("flux_kontext", window={"width": 4})


def test_what_cannot_be_is_said(tmp_path: Path) -> None:
    given = {**configuration(tmp_path / "other"), "policy": "token_world_model"}
    with pytest.raises(ConfigError, match="trains a 'diffusion_forecaster', not 'token_world_model'"):
        train(FlowGrpoRunConfig.model_validate(given))
    each = {"components": [{"use": "gain_over_copy"}, {"use": "l1"}], "combine": "normalize_each"}
    undone = configuration(tmp_path / "undone", rubric=each, flow_grpo={"scale_rewards": "group"})
    with pytest.raises(ConfigError, match="would undo the rubric's 'normalize_each'; set it to 'batch' or 'none'"):
        train(FlowGrpoRunConfig.model_validate(undone))
    file = tmp_path / "run.yaml"
    text = "method: flow_grpo\nout: x\npolicy: x\ntrain: {source: x}\nrubric: {components: [{use: exact_match}]}\n"
    file.write_text(text + "flow_grpo: {prompts: 1, group: 1}\n")
    with pytest.raises(ConfigError, match=r"flow_grpo\.group"):
        load_config(file)
    file.write_text(text + "flow_grpo: {ema_every: 8}\n")
    with pytest.raises(ConfigError, match="but there is none; set 'ema' to its decay"):
        load_config(file)
    file.write_text(text + "flow_grpo: {fsdp: true}\n")
    with pytest.raises(ConfigError, match="'fsdp' is not for 'flow_grpo', which learns with whole weights"):
        load_config(file)
    file.write_text(text + "flow_grpo: {kl: velocity}\n")
    with pytest.raises(ConfigError, match="'beta' is 0, so there is no KL term"):
        load_config(file)
    for changes in ({"ratio": "guard"}, {"kl": "flow_grpo", "beta": 0.1}):
        with pytest.raises(ConfigError, match="needs the length of a step in the time of a flow; DDIM steps"):
            learner_and_outputs(**changes)
    file.write_text(text + "flow_grpo: {prompts: 1, group: 2, minibatches: 3}\n")
    with pytest.raises(ConfigError, match="2 rollouts cannot be divided into 3 minibatches"):
        load_config(file)
