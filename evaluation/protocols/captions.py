"""Protocols of change captions: the same metrics over the tokens that different published tables were made with."""

from __future__ import annotations

from rsw_rewards.core.records import Task
from rsw_rewards.evaluation.protocols.protocol import Protocol

_HEADLINE = ("bleu4", "meteor", "rouge_l", "cider", "s_star_m")
_DIAGNOSTIC = ("bleu1", "bleu2", "bleu3", "change_accuracy", "change_recall", "no_change_recall")
_SLICE_BY = ("changed", "changed", "unchanged")
_BASELINES = ("no_change", "constant", "shuffled", "oracle")
_NOTES = (
    "Half of LEVIR-CC's pairs are unchanged and share five sentences: read every number beside the baseline no_change, and by slice.",
    "cider is CIDEr-D. Word rarity is computed from the samples in this table, so the number of a subset is not comparable, and it is 0 "
    "where all samples have the same references. Rarity weights are fixed when the interval is computed.",
    "s_star_m is the mean of bleu4, meteor, rouge_l and cider. Without Java it is null, as meteor is.",
    "Change recognition takes the data set's sentences for no change: reference.no_change, else the five of LEVIR-CC.",
    "Metrics with another tokenisation (levir-cc-ids, levir-cc-words, coco-caption) cannot be compared, least of all METEOR.",
)

PROTOCOLS: tuple[Protocol, ...] = (
    Protocol(
        name="levir-cc-ids",
        title="Change captions, words as numbers of the training vocabulary (RSICC and what follows it)",
        task=Task.CHANGE_CAPTION,
        source="get_eval_score on texts of word numbers: eval.py and eval_func of github.com/Chen-Yang-Liu/RSICC; so do Change-Agent, Chg2Cap and RSCaMa, and MModalCC on SECOND-CC. PromptCC and DeltaVLM score GPT-2 word pieces, which is another definition",
        components=({"use": "captions", "config": {"tokens": "ids"}},),
        headline=_HEADLINE,
        diagnostic=_DIAGNOSTIC,
        slice_by=_SLICE_BY,
        baselines=_BASELINES,
        notes=(
            "It needs the word map of the model's vocabulary: --set captions.word_map=FILE, or the variable RSW_WORD_MAP.",
            "Each published number is on its own model's words: take RSICC's WORDMAP_*.json, Change-Agent's or RSCaMa's vocab.json as they are.",
            "The references are read by the adapter: levir-cc as RSICC; with --set reading=change-agent as Change-Agent, Chg2Cap and RSCaMa.",
            "Words outside the word map are one token and match each other; METEOR's stems and synonyms cannot match numbers.",
            *_NOTES,
        ),
    ),
    Protocol(
        name="levir-cc-words",
        title="Change captions, lower-case words between blanks",
        task=Task.CHANGE_CAPTION,
        source="this project: the scorers of github.com/salaniz/pycocoevalcap on the words themselves. No published table reads words: RSICC, Change-Agent, Chg2Cap and RSCaMa score word numbers (levir-cc-ids), PromptCC and DeltaVLM GPT-2 word pieces",
        components=({"use": "captions", "config": {"tokens": "words"}},),
        headline=_HEADLINE,
        diagnostic=_DIAGNOSTIC,
        slice_by=_SLICE_BY,
        baselines=_BASELINES,
        notes=(
            '"house." and "house" count as different words; remove punctuation, as the adapters do of references.',
            *_NOTES,
        ),
    ),
    Protocol(
        name="coco-caption",
        title="Captions by the standard of COCO: Penn Treebank tokens",
        task=Task.CHANGE_CAPTION,
        source="github.com/salaniz/pycocoevalcap (Chen et al. 2015, arXiv 1504.00325)",
        components=({"use": "captions", "config": {"tokens": "ptb"}},),
        headline=_HEADLINE,
        diagnostic=_DIAGNOSTIC,
        slice_by=_SLICE_BY,
        baselines=_BASELINES,
        notes=_NOTES,
    ),
)
