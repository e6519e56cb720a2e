"""Real files of many programs: the good ones give text or a true reason, the bad ones harm nobody.

The files are evaluation data that lies beside a checkout, not in it.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from rag_service.errors import UnsupportedDocument
from rag_service.parsing.sandbox import ParserSandbox

DATA = Path(__file__).parents[2].parent / "shared" / "data"
FORMATS = frozenset({
    "md", "txt", "rst", "html", "pdf", "docx", "pptx", "xlsx", "csv", "tsv", "eml", "epub", "odt",
    "rtf", "json", "ndjson",
})  # fmt: skip

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"the evaluation data is not at {DATA.parent.name}/data")


@pytest.fixture(scope="module")
def sandbox() -> Iterator[ParserSandbox]:
    with ParserSandbox(timeout_s=60, memory_bytes=2 * 1024**3, processes=1) as sandbox:
        yield sandbox


def files(group: str) -> list[Path]:
    with (DATA / "files" / "manifest.csv").open(newline="") as manifest:
        return [DATA / "files" / row["file"] for row in csv.DictReader(manifest) if row["group"] == group]


def outcome(sandbox: ParserSandbox, path: Path) -> str:
    try:
        document = sandbox.parse(path.read_bytes(), path.name, None)
    except UnsupportedDocument as error:
        return error.code
    assert document.text.strip()
    return "parsed"


@pytest.mark.slow
def test_good_files_parse_unless_there_is_no_text_in_them(sandbox: ParserSandbox) -> None:
    good = [path for path in files("good") if path.suffix[1:] in FORMATS]
    codes = {path: outcome(sandbox, path) for path in good}
    failed = {path: code for path, code in codes.items() if code not in ("parsed", "empty")}
    # A page of pixels or an empty slide has no text to give; each of these was looked at.
    assert sum(code == "empty" for code in codes.values()) <= 0.065 * len(good)
    assert len(failed) <= 0.02 * len(good), failed


@pytest.mark.slow
def test_hostile_files_are_survived(sandbox: ParserSandbox) -> None:
    codes = Counter(outcome(sandbox, path) for path in files("hostile") + files("scanned"))
    assert set(codes) <= {"parsed", "empty", "corrupt", "encrypted", "unsupported", "too_large", "memory", "timeout"}
    assert sandbox.parse(b"# Fine", "a.md", None).title == "Fine"


@pytest.mark.slow
def test_documentation_trees_parse_without_a_single_failure(sandbox: ParserSandbox) -> None:
    paths = sorted(path for path in (DATA / "docs").rglob("*") if path.is_file())
    failed = {path: code for path in paths if (code := outcome(sandbox, path)) != "parsed"}
    assert len(paths) > 1000
    assert failed == {}


def test_the_pages_of_real_pdfs_are_the_right_ones(sandbox: ParserSandbox) -> None:
    folder = DATA / "collections" / "northwind_hr"
    expected: Counter[str] = Counter()
    agreeing: Counter[str] = Counter()
    parsed = {path.name: sandbox.parse(path.read_bytes(), path.name, None) for path in (folder / "pdfs").glob("*.pdf")}
    for line in (folder / "corpus.jsonl").read_text().splitlines():
        page = json.loads(line)
        name, number = page["metadata"]["doc"], page["metadata"]["page"]
        document = parsed[name]
        starts = {start.page: start.start for start in document.pages}
        end = min((start.start for start in document.pages if start.page > number), default=len(document.text))
        found = set(document.text[starts[number] : end].split())
        words = set(page["text"].split())
        expected[name] += 1
        agreeing[name] += len(words & found) >= 0.9 * len(words)
    assert len(expected) == 6
    assert agreeing == expected
