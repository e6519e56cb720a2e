"""The texts of a first start: real, readable, and not too many."""

from __future__ import annotations

from pathlib import Path

import pytest

from rag_service.cli import demo_docs
from rag_service.cli.demo_docs import gather


def install(site: Path, name: str, headers: str = "", body: str = "", folder: str | None = None) -> None:
    """A package of which there is nothing but its metadata."""
    info = site / f"{folder or name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{headers}\n{body}")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place where packages are."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.setattr("sys.path", [str(folder)])
    return folder


def packages(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted((folder / "packages").iterdir())}


LONG = "It does one thing and does it well. " * 10


@pytest.mark.parametrize(
    ("content_type", "name", "beginning"),
    [
        ("Description-Content-Type: text/markdown; charset=UTF-8\n", "tool.md", "# tool\n\nA tool\n\nIt does"),
        ("Description-Content-Type: text/x-rst\n", "tool.rst", "tool\n====\n\nA tool\n\nIt does"),
        ("", "tool.txt", "tool\n\nA tool\n\nIt does"),
    ],
)
def test_a_description_becomes_a_file_of_its_kind_under_the_packages_name(
    site: Path, tmp_path: Path, content_type: str, name: str, beginning: str
) -> None:
    install(site, "tool", f"Summary: A tool\n{content_type}", LONG)
    gather(tmp_path / "out")

    (written,) = packages(tmp_path / "out").items()
    assert written[0] == name
    assert written[1].startswith(beginning)


def test_descriptions_in_old_metadata_are_found_and_short_or_missing_ones_left_out(site: Path, tmp_path: Path) -> None:
    install(site, "old", f"Description: {LONG}\n")
    install(site, "short", body="Too short to answer anything.")
    install(site, "silent")
    gather(tmp_path / "out")

    assert list(packages(tmp_path / "out")) == ["old.txt"]


def test_a_name_that_is_no_file_name_writes_nowhere(site: Path, tmp_path: Path) -> None:
    install(site, "../../escaped", body=LONG, folder="escaped")
    install(site, "fine", body=LONG)
    gather(tmp_path / "out")

    assert list(packages(tmp_path / "out")) == ["fine.txt"]
    assert not list(tmp_path.rglob("escaped.*"))


def test_long_and_many_texts_are_cut(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_docs, "MAX_CHARACTERS", 500)
    monkeypatch.setattr(demo_docs, "MAX_TOTAL_CHARACTERS", 1_300)
    for number in range(5):
        install(site, f"tool{number}", body="A line of its own.\n" * 100)
    gather(tmp_path / "out")

    texts = packages(tmp_path / "out")
    assert list(texts) == ["tool0.txt", "tool1.txt"]
    assert all(len(text) <= 520 and text.endswith("A line of its own.\n\n") for text in texts.values())

    monkeypatch.setattr(demo_docs, "MAX_PACKAGES", 1)
    gather(tmp_path / "fewer")
    assert list(packages(tmp_path / "fewer")) == ["tool0.txt"]


def test_every_machine_has_enough_to_ask_about_and_it_is_not_too_much(tmp_path: Path) -> None:
    count = gather(tmp_path / "out")

    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert len(files) == count
    assert count > 20
    own = list((tmp_path / "out" / "rag-service").glob("*.md"))
    assert "cli.md" in [path.name for path in own]
    assert sum(len(text) for text in packages(tmp_path / "out").values()) <= demo_docs.MAX_TOTAL_CHARACTERS
    assert "type hints" in (tmp_path / "out" / "packages" / "pydantic.md").read_text()
    assert gather(tmp_path / "out") == count
