"""What every chunker keeps, for any text: exact spans in order, every word in one chunk, and never over the window."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rag_service.chunking.base import Chunker, TokenSpans, embedded_text, fitting_title
from rag_service.chunking.structure import StructureChunker
from rag_service.embedding.hashing import HashingEmbedder
from rag_service.embedding.http import HttpEmbedder
from rag_service.embedding.local import LocalEmbedder
from rag_service.types import ChunkText, PageStart, ParsedDocument

DOCS = Path(__file__).parents[2].parent / "shared" / "data" / "docs"
WINDOWS = [16, 32, 254]


@cache
def minilm() -> LocalEmbedder:
    return LocalEmbedder("all-MiniLM-L6-v2")


TOKENIZERS: dict[str, Callable[[], TokenSpans]] = {
    "minilm": lambda: minilm().token_spans,
    "hashing": lambda: HashingEmbedder().token_spans,
    "http": lambda: HttpEmbedder("http://127.0.0.1:9", "m", None, 2, 512).token_spans,
}


@pytest.fixture(params=TOKENIZERS)
def token_spans(request: pytest.FixtureRequest) -> TokenSpans:
    return TOKENIZERS[request.param]()


def violations(
    document: ParsedDocument, title: str, chunks: list[ChunkText], spans: TokenSpans, limit: int
) -> list[str]:
    """Every promise of the port that `chunks` breaks."""
    text, broken, covered = document.text, [], 0
    title = fitting_title(title, spans, limit)
    for chunk in chunks:
        if text[chunk.start : chunk.end] != chunk.text:
            broken.append("a span is not the chunk's text")
        if not chunk.text or chunk.text != chunk.text.strip():
            broken.append("a chunk is empty or has outer white space")
        if chunk.start < covered:
            broken.append("chunks overlap or are out of order")
        if text[covered : chunk.start].strip():
            broken.append("words between chunks are lost")
        if len(spans(embedded_text(title, chunk.heading_path, chunk.text))) > limit and len(chunk.text) > 1:
            broken.append("an embedded text is larger than the window")
        starts = [page for page in document.pages if page.start <= chunk.start]
        if chunk.page != (max(starts, key=lambda page: page.start).page if starts else None):
            broken.append("a page is not that of the chunk's start")
        covered = chunk.end
    if text[covered:].strip():
        broken.append("words at the end are lost")
    return broken


WORDS = st.text(st.sampled_from("abcdefgh XYZ019.,:;!?-_*#`|>[]()\"'é東京語。　\t\u200b\U0001f600\u0301"), max_size=60)
LINES = st.one_of(
    WORDS,
    st.sampled_from(["", "", "```", "~~~", "---", "===", "***", "|---|---|", "a sentence that has a few words in it."]),
    st.builds(lambda level, words: f"{'#' * level} {words}", st.integers(1, 7), WORDS),
    st.builds(lambda indent, words: f"{' ' * indent}- {words}", st.integers(0, 5), WORDS),
    st.builds(lambda one, two: f"| {one} | {two} |", WORDS, WORDS),
    st.builds(
        lambda word, times: word * times, st.sampled_from(["x", "word ", "語", ". ", "A1+", "\t"]), st.integers(1, 900)
    ),
)
TEXTS = st.one_of(
    st.lists(LINES, max_size=40).map("\n".join),
    st.lists(LINES, max_size=10).map("\r\n".join),
    st.text(max_size=400).map(lambda text: text.encode("utf-8", "replace").decode()),
)
TITLES = st.one_of(st.just(""), WORDS, st.just("a title much too long for any window " * 40), st.just("題" * 500))


@st.composite
def documents(draw: st.DrawFn) -> ParsedDocument:
    text = draw(TEXTS)
    starts = sorted(draw(st.sets(st.integers(0, max(len(text) - 1, 0)), max_size=5)))
    pages = tuple(PageStart(start, page) for page, start in enumerate(starts, 1))
    layout: Literal["markdown", "plain", "code"] = draw(st.sampled_from(["markdown", "markdown", "plain", "code"]))
    return ParsedDocument(text, pages=pages, layout=layout)


@given(document=documents(), title=TITLES, limit=st.sampled_from(WINDOWS))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_all_promises_hold_for_any_document(
    token_spans: TokenSpans, document: ParsedDocument, title: str, limit: int
) -> None:
    chunks = StructureChunker(token_spans, limit).chunk(document, title)
    assert violations(document, title, chunks, token_spans, limit) == []


class _Careless:
    """Breaks one promise, to show that the check above would notice."""

    def __init__(self, inner: Chunker, damage: Callable[[list[ChunkText]], list[ChunkText]]) -> None:
        self._inner = inner
        self._damage = damage
        self.identity = inner.identity

    def chunk(self, document: ParsedDocument, title: str) -> list[ChunkText]:
        return self._damage(self._inner.chunk(document, title))


def _moved(chunk: ChunkText) -> ChunkText:
    return ChunkText(chunk.text, chunk.start + 1, chunk.end + 1, chunk.page, chunk.heading_path)


def _deep(chunk: ChunkText) -> ChunkText:
    return ChunkText(chunk.text, chunk.start, chunk.end, chunk.page, ("a long heading " * 20,))


def _elsewhere(chunk: ChunkText) -> ChunkText:
    return ChunkText(chunk.text, chunk.start, chunk.end, 99, chunk.heading_path)


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda chunks: chunks[1:], "words between chunks are lost"),
        (lambda chunks: chunks[:-1], "words at the end are lost"),
        (lambda chunks: chunks[::-1], "chunks overlap or are out of order"),
        (lambda chunks: [_moved(chunk) for chunk in chunks], "a span is not the chunk's text"),
        (lambda chunks: [_deep(chunk) for chunk in chunks], "an embedded text is larger than the window"),
        (lambda chunks: [_elsewhere(chunk) for chunk in chunks], "a page is not that of the chunk's start"),
    ],
)
def test_a_broken_promise_is_noticed(damage: Callable[[list[ChunkText]], list[ChunkText]], complaint: str) -> None:
    spans = HashingEmbedder().token_spans
    document = ParsedDocument("Some words make a sentence. " * 40, pages=(PageStart(0, 1),))
    chunks = _Careless(StructureChunker(spans, 32), damage).chunk(document, "title")
    assert complaint in violations(document, "title", chunks, spans, 32)


@pytest.mark.parametrize("text", ["", " ", "\n\n\t\n", "\u3000"])
def test_nothing_to_say_is_no_chunk(token_spans: TokenSpans, text: str) -> None:
    assert StructureChunker(token_spans, 64).chunk(ParsedDocument(text), "title") == []


def test_equal_input_gives_equal_chunks(token_spans: TokenSpans) -> None:
    document = ParsedDocument("# One\n\n" + "Some text about it. " * 100 + "\n\n# Two\n\nEnd.")
    first, second = (StructureChunker(token_spans, 64).chunk(document, "t") for _ in range(2))
    assert first == second


def test_identity_names_the_size(token_spans: TokenSpans) -> None:
    assert StructureChunker(token_spans, 254).identity == "structure-1(max=254)"


def test_a_chunk_too_small_to_hold_anything_is_refused(token_spans: TokenSpans) -> None:
    with pytest.raises(ValueError, match="at least 16"):
        StructureChunker(token_spans, 15)


@pytest.mark.skipif(not DOCS.is_dir(), reason="the sample documents are not beside the repository")
@pytest.mark.parametrize("tree", ["18f_handbook", "fastapi_docs_en", "owasp_cheatsheets", "python_peps"])
def test_all_promises_hold_for_real_documents(tree: str) -> None:
    spans = minilm().token_spans
    files = sorted(file for file in (DOCS / tree).rglob("*") if file.suffix in (".md", ".rst"))[::9]
    assert files
    for file in files:
        document = ParsedDocument(file.read_text(encoding="utf-8", errors="replace"))
        chunks = StructureChunker(spans, 254).chunk(document, file.stem)
        assert violations(document, file.stem, chunks, spans, 254) == [], file.name
