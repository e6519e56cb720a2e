"""From text to terms: words folded, cut and reduced as the language of the collection asks.

Every step looks at one text alone, so that a question and a passage meet without knowing of each other.
"""

from __future__ import annotations

import re
import zlib
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from functools import cached_property, lru_cache
from threading import Lock

import Stemmer

from rag_service.embedding.languages import FUNCTION_WORDS, INDIC, SNOWBALL, SOUTH_EAST, Language, without_accents

# Scripts that put no blanks between words (Thai to Khmer, Han, Kana), and Hangul, whose words carry their particles.
_EAST = "\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3\uf900-\ufaff\U00020000-\U0003ffff"
_LETTERS = rf"(?:[^\W_{SOUTH_EAST}{_EAST}]|[{INDIC}])+"
# Words, with what joins the parts of an identifier, a number or a code: snake_case, a.b.c, CVE-2024-1234.
_TOKEN = re.compile(rf"[{SOUTH_EAST}]+|[{_EAST}]+|{_LETTERS}(?:[._-]{_LETTERS})*")
_ASCII_TOKEN = re.compile(r"[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*")  # the same for most texts, in half the time
_UNSPACED = re.compile(f"[{SOUTH_EAST}{_EAST}]")
_SYLLABLE = re.compile(f"[{_EAST}]")
_JOINED = re.compile("[._-]")
# getUserName, userID and HTTPServer, but neither mRNA nor iPhone.
_HUMP = re.compile(r"(?<=[a-z]{3})(?=[A-Z])|(?<=[a-z0-9])(?=[A-Z][a-z]{2})|(?<=[A-Z]{2})(?=[A-Z][a-z]{2})")
_DIGITS_END = re.compile(r"(?<=\d)(?=\D)|(?<=\D)(?=\d)")
# Of the joined ones, those that are a name of their own: neither `well-known` nor `e.g`.
_NAME = re.compile(r"[\d_]|^[^.]{2,}(?:\.[^.]{2,})+$")

_SCRIPTS = (
    *((0, "latin"), (0x370, "greek"), (0x400, "cyrillic"), (0x530, "armenian"), (0x590, "hebrew"), (0x600, "arabic")),
    *((0x780, ""), (0x900, "devanagari"), (0x980, ""), (0xB80, "tamil"), (0xC00, ""), (0x1E00, "latin")),
    *((0x1F00, "greek"), (0x2000, "")),
)
_STARTS = [start for start, _ in _SCRIPTS]
# The language whose stemmer serves a script where nothing else is said; the commonest one written in it.
_STEMMERS = {
    "latin": "english",
    "greek": "greek",
    "cyrillic": "russian",
    "armenian": "armenian",
    "arabic": "arabic",
    "devanagari": "hindi",
    "tamil": "tamil",
}
_WRITTEN_IN = {
    "arabic": "arabic",
    "armenian": "armenian",
    "greek": "greek",
    "hindi": "devanagari",
    "nepali": "devanagari",
    "persian": "arabic",
    "russian": "cyrillic",
    "serbian": "cyrillic",
    "tamil": "tamil",
    "yiddish": "hebrew",
}

_REMEMBERED = 100_000  # words of one language, about 20 MB; then they are forgotten and met anew
# A form that a word has only if the question is in another language than it seems to be: weighs half.
_PERHAPS = 0.5
_CERTAIN = 2  # grammatical words by which a short text shows its language


class Terms:
    """The terms of texts in one `language`, by id. Safe to share between threads; remembers words it has met."""

    def __init__(self, language: Language) -> None:
        self._language = language
        self._ids: dict[str, dict[str, tuple[int, ...]]] = {}  # language -> word -> terms
        self._lock = Lock()  # a stemmer serves one thread at a time

    def of_document(self, text: str) -> dict[int, float]:
        """Term -> its count. A text that shows no language is taken for English where languages are guessed."""
        words = Counter(_words(text))
        return self._counts(words, self._told(words)[0])

    def of_query(self, text: str) -> dict[int, float]:
        """Term -> its count.

        Where languages are guessed and the question shows too little, its words count in the forms of other
        languages too, for half: passages in those languages hold them so.
        """
        words = Counter(_words(text))
        language, shown = self._told(words)
        counts = self._counts(words, language)
        if self._language != "auto" or (language == "english" and shown):
            return counts
        latin = Counter({word: count for word, count in words.items() if _script(word) == "latin"})
        for other in ("english",) if shown >= _CERTAIN else FUNCTION_WORDS:
            for term, count in self._counts(latin, other, FUNCTION_WORDS[language]).items():
                counts.setdefault(term, count * _PERHAPS)
        return counts

    def _told(self, words: Counter[str]) -> tuple[str, int]:
        """The language of words in Latin letters, and how many grammatical words show it."""
        if self._language != "auto":
            return self._latin, 0
        shown = Counter(language for word in words.keys() & _SHOWN_BY.keys() for language in _SHOWN_BY[word])
        most = max(shown.values(), default=0)
        best = [language for language, number in shown.items() if number == most]
        return (best[0], most) if len(best) == 1 else ("english", most if "english" in best else 0)

    @cached_property
    def _latin(self) -> str:
        if self._language in ("multilingual", "code"):
            return ""
        elsewhere = self._language in _WRITTEN_IN and self._language != "serbian"  # which is written in both
        return self._language if self._language in SNOWBALL and not elsewhere else "english"

    @cached_property
    def _stemmers(self) -> dict[str, Stemmer.Stemmer]:
        return {language: Stemmer.Stemmer(language, 0) for language in SNOWBALL}

    @cached_property
    def _by_script(self) -> dict[str, str]:
        if not self._latin:
            return {}
        return {**_STEMMERS, _WRITTEN_IN.get(self._language, "latin"): self._language}

    def _counts(self, words: Counter[str], language: str, without: frozenset[str] = frozenset()) -> dict[int, float]:
        known = self._ids.setdefault(language, {})
        counts: dict[int, float] = {}
        for word, count in words.items():
            if without and word.casefold() in without:
                continue
            terms = known.get(word)
            for term in self._terms(word, language) if terms is None else terms:
                counts[term] = counts.get(term, 0.0) + count
        return counts

    def _terms(self, word: str, language: str) -> tuple[int, ...]:
        if _UNSPACED.match(word):
            return tuple(map(_id, _runs(word)))
        made = tuple(_id(_plain(form)) for form in self._forms(word, language))
        known = self._ids[language]
        if len(known) >= _REMEMBERED:
            known.clear()
        known[word] = made
        return made

    def _forms(self, word: str, language: str) -> Iterator[str]:
        """The word reduced; an identifier, number or code whole and in its parts."""
        script = _script(word)
        stemmer = language if script == "latin" else self._by_script.get(script, "")
        dropped = FUNCTION_WORDS.get(language, frozenset())
        parts = [part for joined in _JOINED.split(word) for part in self._parts(joined)]
        if len(parts) > 1 and (_NAME.search(word) or not _JOINED.search(word)):
            yield word.casefold()
        for part in parts:
            read = [small for small in _small(part, stemmer) if small not in dropped]
            yield from dict.fromkeys(self._stem(small, stemmer) if stemmer else small for small in read)

    def _parts(self, word: str) -> list[str]:
        humps = [word] if word.islower() or word.isupper() else _HUMP.split(word)
        if self._language != "code":
            return humps
        digits = [piece for hump in humps for piece in _DIGITS_END.split(hump)]
        return digits if len(digits) == len(humps) else [*humps, *digits]

    def _stem(self, word: str, language: str) -> str:
        with self._lock:
            stem: str = self._stemmers[language].stemWord(word)
        return stem


def _words(text: str) -> list[str]:
    """The words of a text in one spelling; lone surrogates, which no term can hold, become question marks."""
    if text.isascii():
        return _ASCII_TOKEN.findall(text)
    return _TOKEN.findall(without_accents(text.encode("utf-8", "replace").decode()))


def _small(part: str, stemmer: str) -> tuple[str, ...]:
    """In small letters. I is the capital of ı in Turkish, whose endings go by such vowels, and of i in foreign words.

    İ has become i before.
    """
    small = (part if stemmer == "turkish" else _plain(part)).casefold()
    return (small, part.replace("I", "ı").casefold()) if stemmer == "turkish" and "I" in part else (small,)


def _plain(form: str) -> str:
    """Without the accents that stemmers give: Serbian in Cyrillic becomes Latin with them."""
    return form if form.isascii() else without_accents(form).replace("ı", "i")


def _runs(run: str) -> Iterator[str]:
    """Pairs of neighbouring characters; where a character is a syllable or a word, the characters too."""
    if len(run) == 1 or _SYLLABLE.match(run):
        yield from run
    for place in range(len(run) - 1):
        yield run[place : place + 2]


def _script(word: str) -> str:
    return _SCRIPTS[bisect_right(_STARTS, ord(word[0])) - 1][1]


@lru_cache(_REMEMBERED)
def _id(term: str) -> int:
    return zlib.crc32(term.encode())


def _languages_by_word() -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for language, words in FUNCTION_WORDS.items():
        for spelling in {spelling for word in words for spelling in (word, word.capitalize())}:
            found[spelling] = (*found.get(spelling, ()), language)
    return found


_SHOWN_BY = _languages_by_word()
