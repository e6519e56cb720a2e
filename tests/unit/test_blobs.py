from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from rag_service.blobs import LocalBlobs
from rag_service.errors import NotFound


@pytest.fixture
def blobs(tmp_path: Path) -> LocalBlobs:
    return LocalBlobs(tmp_path)


@pytest.mark.parametrize("content", [b"", b"text", bytes(range(256)) * 1000])
def test_what_is_put_comes_back(blobs: LocalBlobs, content: bytes) -> None:
    assert blobs.get(blobs.put("doc_1.1", content)) == content


def test_the_key_says_owner_and_hash_and_repeating_changes_nothing(blobs: LocalBlobs) -> None:
    key = blobs.put("doc_1.1", b"text")
    assert key == blobs.put("doc_1.1", b"text")
    assert key == "doc_1.1/982d9e3eb996f559e633f4d194def3761d909f5a3b647d1a851fead67c32c9d1"


def test_deleting_one_owner_leaves_the_same_bytes_of_another(blobs: LocalBlobs) -> None:
    mine, other = blobs.put("doc_1.1", b"text"), blobs.put("doc_2.1", b"text")
    blobs.delete("doc_1.1")
    blobs.delete("doc_1.1")
    assert blobs.get(other) == b"text"
    with pytest.raises(NotFound):
        blobs.get(mine)


@pytest.mark.parametrize("owner", ["", "..", ".hidden", "a/b"])
def test_an_owner_cannot_leave_the_folder(blobs: LocalBlobs, owner: str) -> None:
    with pytest.raises(ValueError, match="not an owner"):
        blobs.put(owner, b"text")


def test_nothing_half_written_stays_behind(blobs: LocalBlobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_self: Path, _target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(OSError, match="No space"):
        blobs.put("doc_1.1", b"text")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_owners_are_listed_with_the_time_of_their_last_put(blobs: LocalBlobs, tmp_path: Path) -> None:
    began = datetime.now(UTC) - timedelta(seconds=1)
    keys = {blobs.put("doc_1.1", b"text"), blobs.put("doc_1.1", b"more"), blobs.put("doc_2.1", b"text")}
    assert all(blobs.has(key) for key in keys)
    for folder in tmp_path.glob("??/*"):
        os.utime(folder, (0, 0))
    blobs.put("doc_2.1", b"text")
    found = {owner.name: owner.written_at for owner in blobs.owners()}
    assert found.keys() == {"doc_1.1", "doc_2.1"}
    assert found["doc_1.1"] < began <= found["doc_2.1"]
    blobs.delete("doc_1.1")
    assert [owner.name for owner in blobs.owners()] == ["doc_2.1"]
    assert {key for key in keys if blobs.has(key)} == {blobs.put("doc_2.1", b"text")}
