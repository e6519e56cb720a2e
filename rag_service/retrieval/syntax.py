"""What a question says beyond its words: `"exact words"` that must occur, `-word` that must not.

Words are compared as they are written, not by their stems: case, accents and width are folded, and what stands between
words (blanks, line ends, punctuation) does not count. Scripts without blanks are compared character by character.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from rag_service.embedding.languages import INDIC, SOUTH_EAST, without_accents
from rag_service.types import ConfirmedChunk

_QUOTED = r'"(?P<straight>[^"]+)"|[“„](?P<curly>[^“”„]+)[”“]|«(?P<angled>[^«»]+)»'
_EAST = "\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_UNSPACED = SOUTH_EAST + _EAST
_LETTER = rf"[^\W_{_UNSPACED}]"
# `_` joins the parts of a name; at the edge of a word it is Markdown.
_WORD = re.compile(rf"[{_UNSPACED}]|{_LETTER}++(?:(?:[{INDIC}]|_++(?={_LETTER})){_LETTER}*+)*+")
_ASCII_WORD = re.compile("[a-z0-9]++(?:_++[a-z0-9]++)*+")  # the same for most texts, in half the time
_SIGNED = rf"\w\u00ad\u0300-\u036f\u0591-\u05c7\u0610-\u061a\u064b-\u0670{INDIC}{_UNSPACED}"
# A minus counts after a blank and before a word of two letters or more: not in "e-mail", "3 - 2", "--flag" or "rm -r".
_EXCLUDED = (
    rf"(?<!\S)-(?:(?P<word>[^\W\d_][{_SIGNED}][{_SIGNED}.'-]*)|{_QUOTED.replace('?P<', '?P<not_')})(?=[\s,;.?!)]|$)"
)
_OPERATOR = re.compile(f"{_EXCLUDED}|{_QUOTED}")
# Names that people copy: snake_case, dotted.names, paths, camelCase, codes such as CVE-2025-64712 or E1234.
_IDENTIFIER = re.compile(
    r"(?<![\w.])(?:\w+_\w+|\w{2,}(?:\.\w{2,})+\w|\w+(?:::|->)\w+|(?=\w*[a-z][A-Z])[A-Za-z]\w{4,}"
    r"|[A-Z]{2}[\w-]{0,60}\d|[A-Z]\d{3,})(?!\w)",  # no further: each hyphen may begin another
    re.ASCII,
)
_OPENING = "not_"
_LONGEST_SEARCH = 12  # words beside the operators
# What a word is about as long as, where no blanks show it: two characters of Han and Kana, four of Thai to Khmer.
_COUNTED = re.compile(rf"[{_EAST}]{{1,2}}|[{SOUTH_EAST}]{{1,4}}|[^\W{_UNSPACED}][^\s{_UNSPACED}]*")


@dataclass(frozen=True, slots=True)
class Question:
    """`text` is what both legs read: without exclusions and without the marks around phrases.

    `phrases` and `excluded` are folded and begin and end with a blank, as `folded` gives texts: `in` compares them.
    """

    text: str
    phrases: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()

    @property
    def demands(self) -> bool:
        """Whether passages have to be looked into."""
        return bool(self.phrases or self.excluded)

    @property
    def names_something(self) -> bool:
        """Whether it quotes exact words, or is a third an identifier such as `RAG_DATA_DIR` or `CVE-2025-1`."""
        named = sum(len(found[0]) for found in _IDENTIFIER.finditer(self.text))
        return bool(self.phrases) or 3 * named >= len(self.text)

    @property
    def lexical_text(self) -> str:
        """Phrases once more: passages that hold them are then drawn before those that hold the other words."""
        return f"{self.text} {' '.join(self.phrases)}" if self.phrases else self.text

    def admits(self, passage: ConfirmedChunk) -> bool:
        """Whether its text, title or headings hold every phrase, each in one of them, and nothing that is excluded."""
        return not self.demands or self.unmet(passage) == ((), ())

    def unmet(self, passage: ConfirmedChunk) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The phrases that `passage` lacks, and the excluded words that it has."""
        content = passage.chunk.content
        parts = (content.text, passage.title, *content.heading_path)

        def told(phrase: str) -> bool:
            return any(_says(part, phrase) for part in parts)

        lacking = tuple(phrase.strip() for phrase in self.phrases if not told(phrase))
        return lacking, tuple(phrase.strip() for phrase in self.excluded if told(phrase))


def read(query: str, operators: Literal["auto", "on", "off"] = "auto") -> Question:
    """Marks without a partner are plain text, and so is everything where nothing but exclusions would be left.

    `auto`: a query of more than twelve words beside its operators is prose, in which quotes are mentions (as demands
    they cost 0.034 and 0.047 of nDCG@10 on two collections of long questions).
    """
    if operators == "off" or ('"' not in query and "-" not in query and query.isascii()):
        return Question(query)
    phrases: list[str] = []
    excluded: list[str] = []

    def take(found: re.Match[str]) -> str:
        negative = found["word"] or next(
            (v for k, v in found.groupdict().items() if v and k.startswith(_OPENING)), None
        )
        inner = negative or found["straight"] or found["curly"] or found["angled"]
        words = folded(inner)
        if words.isspace():
            return found[0]
        (excluded if negative else phrases).append(words)
        return " " if negative else f" {inner} "

    text = _OPERATOR.sub(take, query)
    if not (phrases or excluded) or not folded(text).strip():
        return Question(query)
    if operators == "auto" and len(_COUNTED.findall(_OPERATOR.sub(" ", query))) > _LONGEST_SEARCH:
        return Question(query)
    return Question(" ".join(text.split()), tuple(dict.fromkeys(phrases)), tuple(dict.fromkeys(excluded)))


def _says(text: str, phrase: str) -> bool:
    """Whether the folded `phrase` is in `text`. Its words are looked for first: they leave most texts out at once."""
    if text.isascii():
        plain = text.lower()
        if not all(word in plain for word in phrase.split()):
            return False
    return phrase in folded(text)


def folded(text: str) -> str:
    """The words of `text`, folded, with one blank around each."""
    if text.isascii():
        return f" {' '.join(_ASCII_WORD.findall(text.lower()))} "
    return f" {' '.join(_WORD.findall(without_accents(text).replace('ı', 'i').casefold()))} "
