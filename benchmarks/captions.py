"""How fast captions are scored, beside pycocoevalcap on the same tokens: sentence BLEU, ROUGE-L and CIDEr-D of eight candidates a pair.

Run: python benchmarks/captions.py [--pairs 200] [--meteor]. Prints JSON. Times are CPU seconds of this process, the best of
several turns that both sides take alternately. Reference sets are prepared anew in every turn.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from rsw_rewards.core.records import Output, Sample, Task
from rsw_rewards.core.rubric import Rubric
from rsw_rewards.core.verifier import Batch
from rsw_rewards.engine.scorer import Scorer
from rsw_rewards.verifiers import caption_base
from rsw_rewards.verifiers.caption_tokens import ptb
from rsw_rewards.verifiers.meteor import Meteor, MeteorError
from rsw_rewards.verifiers.ngrams import CiderD, DocumentFrequency, ReferenceSet, bleu

CANDIDATES = 8
THINGS = [
    "many houses",
    "a road",
    "several villas",
    "some trees",
    "a parking lot",
    "two buildings",
    "a playground",
    "bare land",
]
DEEDS = ["are built", "is built", "appear", "are constructed", "are removed", "has been replaced", "shows up"]
PLACES = [
    "along the road",
    "in the desert",
    "at the bottom of the scene",
    "beside the forest",
    "in the top left corner",
    "",
]
ENDS = [
    "and the vegetation is removed",
    "with some trees planted around",
    "instead of the former woods",
    "next to the houses",
    "",
]
NO_CHANGE = sorted(caption_base.NO_CHANGE)

Captions = list[str]


def changed(chance: random.Random) -> str:
    """A sentence of about ten words about a change."""
    return " ".join(chance.choice(part) for part in (THINGS, DEEDS, PLACES, ENDS)).strip().replace("  ", " ")


def corpus(pairs: int, unchanged: float) -> tuple[list[Captions], list[Captions]]:
    """Five references and eight candidates for every pair, a share of the pairs unchanged, as half of LEVIR-CC's are."""
    chance = random.Random(7)
    references: list[Captions] = []
    candidates: list[Captions] = []
    for pair in range(pairs):
        same = pair < unchanged * pairs
        references.append(NO_CHANGE if same else [changed(chance) for _ in range(5)])
        own = references[-1]
        candidates.append([chance.choice(own) if chance.random() < 0.3 else changed(chance) for _ in range(CANDIDATES)])
    return references, candidates


def ours(references: list[Captions], candidates: list[Captions]) -> list[tuple[float, float, float]]:
    """BLEU-4, ROUGE-L and CIDEr-D of every candidate."""
    known: dict[tuple[str, ...], ReferenceSet] = {}
    for texts in references:
        if tuple(texts) not in known:
            known[tuple(texts)] = ReferenceSet(text.split() for text in texts)
    sets = [known[tuple(texts)] for texts in references]
    # pycocoevalcap is given every pair eight times, once for each candidate, and counts it as eight documents.
    cider = CiderD(DocumentFrequency.of(one for one in sets for _ in range(CANDIDATES)))
    found = []
    for one, texts in zip(sets, candidates, strict=True):
        for text in texts:
            match = one.match(text.split())
            found.append((bleu(match.bleu_counts())[3], one.rouge_l(match.tokens), cider.score(match)))
    return found


def theirs(references: list[Captions], candidates: list[Captions]) -> list[tuple[float, float, float]]:
    """The same by pycocoevalcap."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    truth = {(i, j): texts for i, texts in enumerate(references) for j in range(CANDIDATES)}
    made = {(i, j): [text] for i, texts in enumerate(candidates) for j, text in enumerate(texts)}
    _, per_order = Bleu(4).compute_score(truth, made, verbose=0)
    scores = (per_order[3], Rouge().compute_score(truth, made)[1], Cider().compute_score(truth, made)[1])
    return [(float(a), float(b), float(c)) for a, b, c in zip(*scores, strict=True)]


def rewarded(references: list[Captions], candidates: list[Captions]) -> None:
    """The three rewards through the engine, from texts to a score table."""
    caption_base._references.cache_clear()
    samples = [Sample(str(i), Task.CHANGE_CAPTION, (), reference={"captions": t}) for i, t in enumerate(references)]
    outputs = [Output(str(i), j, text=text) for i, texts in enumerate(candidates) for j, text in enumerate(texts)]
    rubric = Rubric.model_validate({"components": [{"use": name} for name in ("bleu", "rouge_l", "cider_d")]})
    with Scorer(rubric) as scorer:
        scorer.prepare(samples)
        scorer.score(Batch.of(samples, outputs))


def seconds(work: Callable[[], Any]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def measure(pairs: int, unchanged: float, turns: int) -> dict[str, Any]:
    """Captions a second, ours and theirs, with a share of unchanged pairs."""
    data = corpus(pairs, unchanged)
    gap = np.abs(np.array(ours(*data)) - np.array(theirs(*data))).max()
    best = {"ours": np.inf, "pycocoevalcap": np.inf, "verifiers": np.inf}
    for _ in range(turns):
        for name, work in (("ours", ours), ("pycocoevalcap", theirs), ("verifiers", rewarded)):
            best[name] = min(best[name], seconds(lambda work=work: work(*data)))  # type: ignore[misc]
    captions = pairs * CANDIDATES
    rates = {f"{name}_captions_per_s": round(captions / spent) for name, spent in best.items()}
    ratio = round(float(best["pycocoevalcap"] / best["ours"]), 1)
    return {**rates, "times_faster": ratio, "largest_difference": float(gap)}


def meteor_rate(pairs: int) -> dict[str, Any]:
    """Wall-clock seconds until METEOR's program answers, and captions a second after that."""
    references, candidates = corpus(pairs, 0.5)
    program = Meteor()
    try:
        start = time.perf_counter()
        program.stats([(["a"], [["b"]])])
        ready = time.perf_counter()
        tokens = [[text.split() for text in texts] for texts in references]
        found = program.stats([(t.split(), own) for own, texts in zip(tokens, candidates, strict=True) for t in texts])
        return {"start_s": round(ready - start, 1), "captions_per_s": round(len(found) / (time.perf_counter() - ready))}
    except MeteorError as error:
        return {"reason": str(error)}
    finally:
        program.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--meteor", action="store_true", help="measure METEOR too, which starts Java")
    arguments = parser.parse_args()
    texts = [text for group in corpus(arguments.pairs, 0.0)[1] for text in group]
    ptb(texts[0])
    found: dict[str, Any] = {
        "candidates_per_pair": CANDIDATES,
        "all_pairs_changed": measure(arguments.pairs, 0.0, arguments.turns),
        "half_of_the_pairs_unchanged": measure(arguments.pairs, 0.5, arguments.turns),
        "ptb_us_per_caption": round(
            min(seconds(lambda: [ptb(t) for t in texts]) for _ in range(5)) / len(texts) * 1e6, 1
        ),
        "target": {"times_faster": 10, "ours_captions_per_s": 5000},
    }
    if arguments.meteor:
        found["meteor"] = meteor_rate(arguments.pairs)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
