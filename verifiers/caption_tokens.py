"""How captions become tokens: the three ways that published change-captioning numbers are made with."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Literal

from rsw_rewards.errors import ConfigError, Unreadable

Tokens = Literal["words", "ids", "ptb"]
"""``words``: what stands between blanks, in lower case. ``ids``: numbers of those words in a word map, unknown words all one
number (RSICC, Change-Agent). ``ptb``: the Penn Treebank tokens of coco-caption."""

MAX_CHARACTERS = 8_192
MAX_TOKENS = 256
"""Longest text that is scored, in characters and in words and signs; change captions have about ten words."""
_PIECE = re.compile(r"[A-Za-z0-9\u00c0-\u024f]+|\S")


class TextTooLong(Unreadable):
    """A text is beyond the limits."""


def clean(text: str) -> str:
    """The text without what cannot be written as UTF-8: half surrogates, which JSON can smuggle in, become question marks.

    Raises:
        TextTooLong: more than :data:`MAX_CHARACTERS` characters.
    """
    if len(text) > MAX_CHARACTERS:
        raise TextTooLong(f"the text has {len(text)} characters, more than the {MAX_CHARACTERS} that are scored")
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def pieces(tokens: Iterable[str]) -> int:
    """How many words and signs tokens hold, as METEOR's program takes them apart: ``and/or`` is three."""
    return sum(len(_PIECE.findall(token)) for token in tokens)


def words(text: str) -> list[str]:
    """Lower-case words between blanks; punctuation is not taken off."""
    return text.lower().split()


def ids(text: str, word_map: Mapping[str, str]) -> list[str]:
    """The number of every word, that of ``<unk>`` for unknown ones, as texts (eval.py of github.com/Chen-Yang-Liu/RSICC).

    Two unknown words are the same token, so that they match each other.
    """
    unknown = word_map["<unk>"]
    return [word_map.get(word, unknown) for word in text.lower().split()]


def load_word_map(path: Path) -> dict[str, str]:
    """Read a word map: a JSON object word -> whole number, with an entry for unknown words (``<unk>`` or ``<UNK>``).

    Returns:
        Word -> its number as a text; the unknown word under ``<unk>``.

    Raises:
        ConfigError: the file cannot be read or is no such object.
    """
    try:
        entries = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"the word map {path} cannot be read: {error}") from error
    if not isinstance(entries, dict) or not all(type(number) is int for number in entries.values()):
        raise ConfigError(f"the word map {path} must be a JSON object of words and their whole numbers")
    unknown = next((key for key in ("<unk>", "<UNK>") if key in entries), None)
    if unknown is None:
        raise ConfigError(f"the word map {path} has no '<unk>': unknown words would have no number")
    return {**{str(word): str(number) for word, number in entries.items()}, "<unk>": str(entries[unknown])}


def make_tokeniser(tokens: Tokens, word_map: Mapping[str, str] | None = None) -> Callable[[str], list[str]]:
    """The tokeniser of that name, within the limits.

    Args:
        tokens: which one.
        word_map: of :func:`load_word_map`, for ``ids``.

    Returns:
        A function from a text to its tokens, none of which holds white space. It raises :class:`TextTooLong`.

    Raises:
        ConfigError: ``ids`` without a word map.
    """
    if tokens == "ids":
        if word_map is None:
            raise ConfigError("tokens 'ids' need a word map: set 'word_map' to its JSON file")
        split: Callable[[str], list[str]] = partial(ids, word_map=word_map)
    else:
        split = words if tokens == "words" else ptb

    def tokenise(text: str) -> list[str]:
        found = split(clean(text))
        count = len(found) if len(text) <= MAX_TOKENS else pieces(found)
        if count > MAX_TOKENS:
            raise TextTooLong(f"the text has {count} words and signs, more than the {MAX_TOKENS} that are scored")
        return found

    return tokenise


_DROPPED = frozenset(("''", "'", "``", "`", ".", "..", "...", "?", "!", ",", ":", "-", "--", ";"))
"""Punctuation that coco-caption leaves out (ptbtokenizer.py)."""
_PARTS = {
    "cannot": "can not", "gonna": "gon na", "gotta": "got ta", "wanna": "wan na", "gimme": "gim me", "lemme": "lem me",
}  # fmt: skip
_NAMES = {
    "(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-", "&amp;": "&", "&lt;": "<", "&gt;": ">",
    "&quot;": "''", "&apos;": "'", "&nbsp;": "", "€": "$", "£": "#", "¢": "cents", "…": "...",
    "\u2013": "--", "\u2014": "--",
}  # fmt: skip
"""Symbols that the treebank writes differently."""
_SHORT = frozenset(
    """al cf co ct dr ft ga jr ky lt md mo mr ms mt ph rd rt sq sr st va vs vt wm adj adm adv ala apr aug ave bhd cie col cos cpl
    dak dec det drs ens esq est etc ext feb fla fri gen gov hon inc ind jan jos jul jun kan ltd maj mar mfg mme mon mrs mtg neb nev
    nov oct pfc plc pte pty pvt rep rev sen sep seq sfc sgt spc ste sys tel thu tue wed wis wyo alex ariz assn asst atty bldg blvd
    brig bros capt cmdr colo conn corp dept elec govs insp intl invt kans mich minn mlle mont msgr natl okla penn ppte ppty pres
    prof ptes ptys reps sens sept supt tenn tues univ wisc assoc messrs thurs calif bancorp profs supts attys treas""".split()  # noqa: SIM905
)
"""Abbreviations that keep their full stop."""
_SHORT_NAMES = frozenset("ark az del ill la mass miss ore pa tex wash".split())  # noqa: SIM905
"""States that keep theirs where they are written with a capital."""
_SHORT_NUMBERS = frozenset("ca no nos op pp art fig figs prop".split())  # noqa: SIM905
"""Abbreviations that keep theirs before a number."""

_FEW = "{0,255}"  # bounds what a hostile text can make an expression look ahead
_LETTER, _SIGN = r"[^\W\d_]", r"[^\W_]"
_WORDS = [
    re.compile(pattern)
    for pattern in (
        rf"{_LETTER}(?:{_SIGN})*(?:[.!?]{_LETTER}{_SIGN}*){_FEW}",  # roads.The
        rf"(?:[dDoOlL]'(?={_SIGN}))?{_SIGN}+(?:[-_]{_SIGN}+)*",  # t-shaped, d'accord
        rf"[A-Za-z0-9][A-Za-z0-9.,]{_FEW}(?:-[A-Za-z0-9]+)+",  # 0.5-m
        r"[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}(?:/[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}){1,2}",  # and/or
        r"[A-Z]+(?:[&+][A-Z]+)+|[A-Za-z]\+\+|[CcFf]\#",  # R&D, C++
        r"(?i:n't)(?![A-Za-z])",
        r"(?:[A-Za-z]\.)+|[Pp][Hh]\.[Dd]\.",  # U.S., a.
        r"(?i:o'clock|ma'am|c'mon|y'(?=[a-z]))",
        rf"(?i:https?://|www\.)[^\s<>\"|(){{}}]{_FEW}[^\s<>\"|(){{}}.,!?'-]",
        r"[A-Za-z0-9][\w.+-]{0,63}@\w(?:[\w.-]{0,253}\w)?",
        r"(?:\d{1,4} )?\d{1,4}/\d{1,4}",  # 3 1/2
        r"\d+(?:[.:,]\d+)*",
    )
]
"""What can begin with a letter or a digit; the longest counts."""
_NEGATED = re.compile(rf"({_SIGN}+?)(n't)(?![A-Za-z])", re.IGNORECASE)
_NUMBER = re.compile(r"\s*\d")
_SIMPLE = re.compile(rf"{_SIGN}+(?:[-_]{_SIGN}+)*")
_PAUSES = frozenset(",;:")
"""A full stop before one of these belongs to the word, as that of "etc.," does."""
_OTHERS = re.compile(
    r"""</?[A-Za-z][\w:.-]{0,63}(?:\s+[A-Za-z][\w:.-]{0,63}=(?:'[^'<>]{0,255}'|"[^"<>]{0,255}"|[^\s"'<>]{1,255})){0,8}\s?/?>
    |<[\w.+-]{1,64}@[\w.-]{1,255}>
    |[-+]?\d*(?:[.:,]\d+)+|[-+]\d+
    |\#[A-Za-z_]+|@[A-Za-z_]\w*
    |(?P<smiley>[<>]?[:;=][-o*']?[()DPdpO\\{@|\[\]](?![A-Za-z0-9]))
    |&(?:amp|lt|gt|quot|apos|nbsp);
    |'(?:[tT](?=is\b|was\b)|[sSmMdD](?![A-Za-z])|(?i:re|ve|ll)(?![A-Za-z])|\d\d(?!\S)|(?i:cause|em|til|till|n'?)(?!\w))
    |(?i:n't)(?![A-Za-z])
    |\.{3}|-{5,}|-{2,4}|[!?]+|\*+|_+|\#+|@+|<<|>>|``|''
    |.""",
    re.VERBOSE | re.DOTALL,
)
"""What begins with anything else."""
_OPENING = re.compile(
    r"\s+(?i:about|according|additionally|after|an?|as|at|but|earlier|here?|her|however|if|in|it|last|many|more|mr\.|now|once|one|other|our"
    r"|she|since|so|some|such|that|the|their|then|there|these|they|this|we|what|when|while|yet|you)(?!\S)"
)
"""Words that open a sentence where they have a capital: the full stop before them ends the one before."""
_SPANS = re.compile(r"\d\s+\d{1,4}/|<\S{1,64}\s[^<>]{0,255}>|\.\s+\d|\b[^\W\d_]\.(?!\S)")
"""Tokens that a blank stands in, and full stops whose meaning depends on what follows the blank."""
_PLAIN = re.compile(r"[a-z]{2,}(?:[ -][a-z]+)*[.]?")
_SIGNS = str.maketrans(
    {
        **dict.fromkeys("\u2019\u2039\u203a", "'"), "\u2018": "`", **dict.fromkeys('\u201c\u201d«»', '"'),
        "½": " 1/2 ", "¼": " 1/4 ", "¾": " 3/4 ", "²": " ² ", "³": " ³ ", "¹": " ¹ ",
    }
)  # fmt: skip
"""Quotation marks as ASCII has them; fractions and raised numbers as tokens of their own."""


def ptb(text: str) -> list[str]:
    """The tokens of coco-caption: Penn Treebank tokens in lower case, punctuation left out.

    Clitics are split off (``do n't``, ``it 's``), brackets written as ``-lrb-``, hyphenated and slashed words kept whole, and
    known abbreviations keep their full stop. That of a single letter at the end of a caption is taken as the sentence's where the
    caption begins with a capital: the original looks at the next caption. Held against Stanford CoreNLP 3.4.1's ``PTBTokenizer -lowerCase``, which
    pycocoevalcap calls: equal on the captions of LEVIR-CC that were tried and on 5,995 of 6,000 made-up captions with ordinary
    punctuation; 1 in 75 differs where signs are put into captions at random. It may differ at mark-up, telephone numbers, text
    faces, and apostrophes, at-signs and several signs in a row inside words. A token that holds a
    blank there (``3 1/2``) is two tokens here, as BLEU and CIDEr take it.
    """
    if _PLAIN.fullmatch(text):
        found = text.split()
        last = found[-1]
        if last.endswith(".") and last[:-1] not in _SHORT and len(last) > 2:
            found[-1] = last[:-1]
        if not found[-1].endswith("."):
            return found if _PARTS.keys().isdisjoint(found) else " ".join([_PARTS.get(w, w) for w in found]).split()
    text = text.translate(_SIGNS)
    if _SPANS.search(text):
        return list(_lex(text))
    return [token for piece in text.split() for token in (_lex_cached(piece) if len(piece) <= 40 else _lex(piece))]


def _lex(text: str) -> tuple[str, ...]:
    """The tokens that are kept of a text, the longest possible one at every place."""
    found: list[str] = []
    place = 0
    while place < len(text):
        sign = text[place]
        if sign.isspace() or sign == "\ufe0f" or ord(sign) > 0xFFFF:  # pictographs are beyond its alphabet
            place += 1
            continue
        token, length = _word(text, place) if sign.isalnum() else _other(text, place)
        if not length:
            token, length = _other(text, place)
        place += length
        token = token.lower()
        if token not in _DROPPED:
            found += _PARTS.get(token, token).split()
    return tuple(found)


_lex_cached = lru_cache(maxsize=1 << 16)(_lex)


def _word(text: str, place: int) -> tuple[str, int]:
    """What begins with a letter or digit at ``place``, and how long it is."""
    end = max((match.end() for pattern in _WORDS if (match := pattern.match(text, place))), default=place)
    if (negated := _NEGATED.match(text, place)) and negated.end() >= end:
        return negated[1], len(negated[1])
    if end - place == 2 and text[end - 1] == "." and _ends_sentence(text, end):
        end -= 1
    if text[end : end + 1] == ".":
        word = text[place:end]
        low = word.lower()
        known = low in _SHORT or (low in _SHORT_NAMES and word[0].isupper())
        paused = text[end + 1 : end + 2] in _PAUSES and _SIMPLE.fullmatch(word)
        if known or paused or (low in _SHORT_NUMBERS and _NUMBER.match(text, end + 1)):
            end += 1
    return text[place:end], end - place


def _ends_sentence(text: str, place: int) -> bool:
    """Whether the full stop of a single letter before ``place`` ends a sentence.

    coco-caption tokenises all captions as one text. The next caption opens a sentence where captions are written with a capital.
    """
    if not text[place:].strip():
        return text.lstrip()[:1].isupper()
    return (following := _OPENING.match(text, place)) is not None and following[0].lstrip()[0].isupper()


def _other(text: str, place: int) -> tuple[str, int]:
    """What begins with a sign at ``place``, as the treebank writes it, and how long it is."""
    match = _OTHERS.match(text, place)
    assert match is not None  # its last alternative is any character
    token = match[0]
    if match["smiley"]:
        written = token.replace("(", "-lrb-").replace(")", "-rrb-")
    elif token[0] == "-" and 2 <= len(token) <= 4 and not token.strip("-"):
        written = "--"
    elif token == '"':
        written = "''"
    else:
        written = _NAMES.get(token, token)
    return written, len(token)
