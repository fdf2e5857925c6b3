"""The gate of captions: honest sentences pass, denials, hedges, shuffled and repeated words do not."""

import json
import random
from pathlib import Path

import pytest

import rsw_rewards as rsw
from tests.shared_data import shared

CHANGED = {"captions": ["a road was built near the wood", "a new road appears beside the forest"], "changed": True}
UNCHANGED = {"captions": ["the scene is the same as before", "there is no difference"], "changed": False}

HONEST = [
    "a road was built near the wood", "a house was built near the road", "the trees are no longer there", "many villas near a road",
    "trees are removed and no vegetation is left", "not only a road but also houses are built", "the old house has been removed",
    "the road remains the same and some houses are built", "there is nothing but bare land now", "a house stands in an area with no trees now",
    "some houses appear at the same place", "nothing changed except for a new house", "some of the plants have been removed",
    "a new stable stands by the road", "A row of identical villas is built, and the bareland is not bare any more.", "more and more houses are built side by side",
]  # fmt: skip
SAYS_NOTHING = [
    "the scene is the same as before", "no change has occurred", "almost nothing has changed", "the two scenes seem identical",
    "There are no differences between the images.", "the scene did not change", "it has not changed", "no changes", "the trees and houses remain",
    "there isn't any difference", "nothing is different", "no significant change can be seen", "the town looks exactly like before", "the two views coincide", "the images are indistinguishable",
    "all structures persist", "no new buildings", "no road was built",
]  # fmt: skip
DISHONEST = [
    "no road was built near the wood", "a road was not built near the wood", "a road wasn't built near the wood", "a road appears not beside the wood",
    "it is not true that a road was built", "there is no sign that a road was built", "not a road was built", "nothing was built near the wood",
    "a road was built near the wood but the scene is the same as before", "maybe a road was built near the wood", "a road was built or not",
    "either a road was built or nothing has changed", "wood the near built was road a", "a road built near the was wood",
    "a road was built a road was built", "road road road", "a road was built near the wood " + "and a house is there " * 8,
    "n\u043e road was built near the wood", "n\u200bo road was built near the wood", "it is unclear whether a road was built",
    "a road was built near the wood a new road appears beside the forest",
]  # fmt: skip


def gate(text, reference):
    return rsw.score("caption_gate", output=text, reference=reference)


@pytest.mark.parametrize("text", HONEST)
def test_an_honest_caption_of_a_change_passes(text):
    assert gate(text, CHANGED).value == 1.0
    assert gate(text, UNCHANGED).value == 0.0


@pytest.mark.parametrize("text", SAYS_NOTHING)
def test_a_sentence_for_no_change_passes_where_it_is_true(text):
    assert gate(text, UNCHANGED).value == 1.0
    found = gate(text, CHANGED)
    assert found.value == 0.0 and found.raw["claim"] == 0.0 and found.reason.startswith("claim: it says")


@pytest.mark.parametrize("text", DISHONEST)
def test_a_caption_that_denies_hedges_shuffles_or_repeats_does_not_pass(text):
    assert gate(text, CHANGED).value == 0.0


def test_the_reason_names_the_part():
    assert gate("road road road", CHANGED).reason == "repetition: road"
    assert gate("a road was built near the", CHANGED).raw["order"] == 0.0
    assert gate("", CHANGED).status == "invalid_output"


def test_a_rule_that_a_reference_breaks_is_not_held_against_a_caption():
    other_language = {"captions": ["道路已建成"], "changed": True}
    assert gate("房屋已建成", other_language).value == 1.0
    hedged = {"captions": ["perhaps a road was built"], "changed": True}
    assert gate("maybe a house was built", hedged).value == 1.0


def test_a_data_sets_own_sentences_are_known():
    own = {"captions": ["rien de nouveau"], "no_change": ["rien de nouveau"]}
    assert gate("rien de nouveau", own).value == 1.0


def test_long_texts_are_quick_and_wrong():
    found = gate("road house " * 20_000, CHANGED)
    assert found.value == 0.0


def test_honest_references_of_levir_cc_pass_and_shuffled_ones_do_not():
    lines = shared("golden/caption_levircc/items.jsonl").read_text(encoding="utf-8").splitlines()
    items = [json.loads(line) for line in lines]
    chance, honest, shuffled = random.Random(0), [], []
    for item in items:
        captions, changed = item["references"], bool(item["changeflag"])
        for place, caption in enumerate(captions):
            others = {"captions": captions[:place] + captions[place + 1 :], "changed": changed}
            honest.append(gate(caption, others).value)
            words = caption.split()
            chance.shuffle(words)
            if changed and words != caption.split():
                shuffled.append(gate(" ".join(words), {"captions": captions, "changed": changed}).value)
    assert len(honest) == 300 and sum(honest) >= 0.99 * len(honest)
    assert sum(shuffled) <= 0.05 * len(shuffled)


def of_list(name):
    """The gate for the captions of a list, which marks those of a changed pair with a plus."""
    lines = (Path(__file__).parents[1] / "golden" / name).read_text(encoding="utf-8").splitlines()
    return [gate(line[2:], CHANGED if line[0] == "+" else UNCHANGED).value for line in lines]


def test_true_captions_in_free_words_pass():
    found = of_list("true_captions.txt")
    assert len(found) >= 550 and sum(found) >= 0.99 * len(found)


def test_false_captions_in_free_words_do_not():
    found = of_list("false_captions.txt")
    assert len(found) >= 450 and sum(found) <= 0.03 * len(found)
