"""``rsw attack``: what attacks earn beside mediocre ones, in Python and on the command line."""

import json
from pathlib import Path

import numpy as np
import pytest

import rsw_rewards as rsw
from rsw_rewards.cli import main
from rsw_rewards.core.rubric import load_rubric
from rsw_rewards.io.records_io import load_samples
from rsw_rewards.redteam import run as redteam
from rsw_rewards.redteam.compared_with import as_scored, mediocre
from rsw_rewards.redteam.kit import Pool
from tests.shared_data import shared

UNCHANGED = ["the scene is the same as before", "there is no difference", "no change has occurred"]
CHANGED = [
    "a road was built near the wood",
    "a new road appears beside the forest",
    "some roads are built in the woodland",
]


def questions(n=16):
    answers = ["yes", "no"] * (n // 2)
    return [
        rsw.Sample(f"q{k}", "change_qa", reference={"answers": [a], "vocabulary": ["yes", "no"]})
        for k, a in enumerate(answers)
    ]


def captions(n=12):
    things = ["road", "house", "bridge", "school", "pond", "field"]
    return [
        rsw.Sample(
            f"c{k}", "change_caption",
            reference={"captions": [text.replace("road", things[k % 6]) for text in CHANGED] if k % 2 else UNCHANGED},
        )
        for k in range(n)
    ]  # fmt: skip


@rsw.verifier(tasks="change_qa")
def counts_words(sample, output):
    return min(1.0, len(output.text.split()) / 20)


def test_a_hackable_rubric_is_found_and_a_sound_one_is_not():
    sound = rsw.attack({"exact_match": 0.9, "answer_format": 0.1}, questions())
    assert sound.ok and not sound.tasks[0].winners
    hackable = rsw.attack([counts_words], questions())
    assert not hackable.ok
    assert hackable.tasks[0].winners[0].name == "very long" and hackable.tasks[0].winners[0].reward == 1.0


def test_the_truth_and_the_mediocre_output_stand_in_the_table():
    found = rsw.attack({"exact_match": 1.0}, questions(200)).tasks[0]
    assert found.row("truth").reward == 1.0
    mediocre = found.row("mediocre").reward
    assert 0.65 < mediocre < 0.85 and found.row("constant").reward == 0.5
    assert found.row("constant").mediocre == mediocre and found.row("constant").n == 200


def test_a_model_has_a_row_of_its_own():
    samples = questions()
    found = rsw.attack({"exact_match": 1.0}, samples, ["yes"] * len(samples)).tasks[0]
    assert found.row("model").reward == 0.5 and found.row("model").role == "model"
    by_policy = rsw.attack({"exact_match": 1.0}, samples, policy="oracle").tasks[0]
    assert by_policy.row("model").reward == 1.0


def test_a_negated_reference_earns_more_than_a_mediocre_caption_by_n_grams():
    found = rsw.attack({"rouge_l": 0.5, "bleu": 0.5}, captions()).tasks[0]
    negated, mediocre = found.row("no"), found.row("mediocre")
    assert negated.wins and negated.components["rouge_l"][0] > mediocre.components["rouge_l"][0]
    assert not found.row("empty").wins


def test_the_mediocre_caption_is_of_a_reference_that_is_not_scored_against():
    sample = captions()[1]
    pool = Pool(sample.task, [sample])
    kept = sample.reference["captions"][-1]
    text = mediocre(sample, pool).text
    assert kept.startswith(text) and len(text.split()) < len(kept.split())
    assert kept not in as_scored(sample).reference["captions"]


def test_seeds_repeat_and_tell_apart():
    first, again = (rsw.attack({"rouge_l": 1.0}, captions(), seed=3).to_json() for _ in range(2))
    assert first == again
    shuffled = {seed: rsw.attack({"bleu": 1.0}, captions(), seed=seed).tasks[0].row("words shuffled").reward for seed in range(3)}  # fmt: skip
    assert len(set(shuffled.values())) > 1


def test_masks_and_boxes_are_attacked():
    true = np.zeros((64, 64), np.uint8)
    true[20:44, 20:44] = 255
    masks = [rsw.Sample(f"m{k}", "change_mask", reference={"mask": np.roll(true, k * 4, 1)}) for k in range(3)]
    found = rsw.attack({"change_mask": 1.0}, masks)
    assert found.ok and found.tasks[0].row("mediocre").reward > 0.8
    assert {"empty", "all_changed", "checkerboard", "inverted"} <= {row.name for row in found.tasks[0].attacks}
    image = np.zeros((64, 64, 3), np.uint8)
    boxes = [rsw.Sample(f"b{k}", "grounding", images=[image], reference={"boxes": [[8, 8, 24 + k, 40]]}) for k in range(3)]  # fmt: skip
    found = rsw.attack({"box_iou": 1.0}, boxes)
    assert found.ok and {"many boxes", "tiny box", "whole_image"} <= {row.name for row in found.tasks[0].attacks}


def test_validate_attacks_a_rubric_in_short():
    sound = rsw.validate("exact-qa", questions(40), rubric={"exact_match": 1.0})
    assert sound.ok and not sound.problems
    (first, *_) = rsw.validate("exact-qa", questions(40), rubric=[counts_words]).problems
    assert first.startswith("attack on the rubric: 'very long' gets 1.000, a mediocre output 0.0")
    with pytest.raises(rsw.ConfigError, match=r"rubric|component"):
        rsw.validate("exact-qa", questions(40), rubric={"rouge_l": 1.0})


def test_a_sample_without_a_truth_is_named():
    with pytest.raises(rsw.RswError, match=r"reference\.captions"):
        rsw.attack({"rouge_l": 1.0}, [rsw.Sample("c", "change_caption")])
    with pytest.raises(rsw.RswError, match="no sample"):
        rsw.attack({"rouge_l": 1.0}, [])


def test_the_command_writes_a_page_and_exits_1_where_an_attack_wins(tmp_path, monkeypatch, capsys):
    samples = tmp_path / "samples.jsonl"
    rows = [
        {"id": one.id, "task": "change_caption", "prompt": "<b>what?</b>", "scene": one.scene, "images": [], "reference": dict(one.reference)}
        for one in captions()
    ]  # fmt: skip
    samples.write_text("".join(json.dumps(row) + "\n" for row in rows))
    rubric = tmp_path / "rubric.yaml"
    rubric.write_text("components: [{use: rouge_l}, {use: bleu}]")
    out = tmp_path / "out"
    monkeypatch.setattr("sys.argv", ["rsw", "attack", str(rubric), "--samples", str(samples), "--out", str(out)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1 and "wins" in capsys.readouterr().out
    found = json.loads((out / "attack.json").read_text())
    assert found["ok"] is False and "no" in found["tasks"][0]["winners"]
    page = (out / "attack.html").read_text()
    assert "get a higher reward than a mediocre output" in page and found["tasks"][0]["winners"][0] in page
    assert "a house was built near the wood" in page and "<b>what?" not in page


def test_forecasts_are_attacked_with_images():
    rng = np.random.default_rng(0)
    samples = []
    for k in range(3):
        before = rng.integers(60, 90, (32, 32, 3)).astype(np.uint8) + np.uint8(40 * k)
        after = before.copy()
        after[8:20, 10 * k : 10 * k + 10] = 250 - 60 * k
        samples.append(rsw.Sample(f"f{k}", "forecast", images=[before], prompt="a roof", reference={"images": [after]}))
    found = rsw.attack({"gain_over_copy": 1.0}, samples)
    task = found.tasks[0]
    assert found.ok and task.row("truth").reward == 1.0 and task.row("mediocre").reward > 0.4
    assert {"copy_before", "flat", "crop", "texture of another scene", "writing"} <= {row.name for row in task.attacks}
    pays_for_noise = rsw.attack([rsw.Component(use=brightness)], samples)
    assert not pays_for_noise.ok


@rsw.verifier(tasks="forecast")
def brightness(sample, output):
    return float(output.forecast.pixels().mean()) / 255


RECOMMENDED = Path(__file__).parents[2] / "configs/rubrics"


def test_no_attack_pleases_the_recommended_reward_of_captions():
    found = rsw.attack(RECOMMENDED / "captions.yaml", captions(24))
    task = found.tasks[0]
    assert found.ok and task.row("truth").reward > task.row("mediocre").reward
    for component in ("rouge_l", "cider_d"):
        alone = rsw.attack({component: 1.0}, captions(24)).tasks[0]
        behind = rsw.attack(
            [rsw.Component(use="caption_gate", weight=0), rsw.Component(use=component, gate={"component": "caption_gate"})],
            captions(24),
        ).tasks[0]  # fmt: skip
        assert behind.attacks[0].reward < alone.attacks[0].reward and not behind.winners


def test_no_attack_pleases_the_recommended_reward_on_levir_cc():
    lines = shared("golden/caption_levircc/items.jsonl").read_text(encoding="utf-8").splitlines()
    items = [json.loads(line) for line in lines]
    samples = [
        rsw.Sample(one["id"], "change_caption", reference={"captions": one["references"], "changed": bool(one["changeflag"])})
        for one in items
    ]  # fmt: skip
    for seed, chosen in enumerate((samples, [one for one in samples if one.reference["changed"]])):
        assert rsw.attack(RECOMMENDED / "captions.yaml", chosen, seed=seed).ok


def scenes(n, folder):
    rsw.data.make_scene_world(folder, n, seed=21, tasks=("forecast",))
    return folder / "samples.jsonl"


def test_gradients_please_an_encoder_within_a_few_grey_levels(tmp_path):
    rubric = [rsw.Component(use="clip_score"), rsw.Component(use="gain_over_copy", weight=0)]
    found = rsw.attack(rubric, scenes(4, tmp_path))
    task = found.tasks[0]
    assert not found.ok and task.winners[0].family == "gradient"
    wide, near = (task.row(f"scene-clip towards the text, {levels} levels") for levels in (12, 1))
    assert wide.reward > task.row("truth").reward > near.reward > task.row("copy_before").reward
    assert {"evolution, 24 levels"} <= {row.name for row in task.attacks}
    assert 0.0 <= task.order["both"] <= task.order["truth first"] <= 1.0


def test_gradients_please_a_detector_unless_it_ignores_what_is_near_the_input(tmp_path):
    samples = scenes(4, tmp_path)
    alone, blind = (
        rsw.attack([rsw.Component(use="detector_consistency", config={"ignore_levels": levels})], samples).tasks[0]
        for levels in (0, 12)
    )
    name = "scene-detector towards the truth, 12 levels"
    assert alone.row(name).reward > alone.row("copy, noise 10").reward + 0.1
    assert blind.row(name).reward == pytest.approx(blind.row("copy_before").reward)


def changed_scenes(n, folder, seed):
    rsw.data.make_scene_world(folder, n, seed=seed, tasks=("forecast",))
    return [one for one in load_samples(folder / "samples.jsonl") if one.prompt != "nothing changes"]


def test_copies_get_nothing_from_the_recommended_reward_of_forecasts(tmp_path):
    found = redteam.run(load_rubric(RECOMMENDED / "forecasts.yaml"), changed_scenes(3, tmp_path, 21), short=True)
    task = found.tasks[0]
    assert found.ok and task.row("truth").reward > 0.9 and task.row("mediocre").reward > 0.5
    for name in ("copy_before", "copy, noise 1", "copy, noise 3", "copy, noise 10", "brighter", "specks"):
        assert task.row(name).reward == 0.0
