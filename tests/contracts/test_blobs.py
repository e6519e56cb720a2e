"""What every blob store does, a folder and a bucket alike."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from rag_service.blobs import BlobStore
from rag_service.errors import NotFound
from tests.contracts import blob_variants

blobs, bucket = blob_variants.blobs, blob_variants.bucket

LARGE = bytes(range(256)) * 80_000  # 20 MB: a bucket takes it in several parts


@pytest.mark.parametrize(
    "content", [b"", b"text", bytes(range(256)) * 1000, LARGE], ids=["none", "text", "binary", "large"]
)
def test_what_is_put_comes_back(blobs: BlobStore, content: bytes) -> None:
    assert blobs.get(blobs.put("doc_1.1", content)) == content


def test_the_key_says_owner_and_hash_and_repeating_changes_nothing(blobs: BlobStore) -> None:
    key = blobs.put("doc_1.1", b"text")
    assert key == blobs.put("doc_1.1", b"text")
    assert key == "doc_1.1/982d9e3eb996f559e633f4d194def3761d909f5a3b647d1a851fead67c32c9d1"
    assert blobs.get(key) == b"text"


def test_an_unknown_key_is_not_found(blobs: BlobStore) -> None:
    key = f"doc_1.1/{hashlib.sha256(b'never put').hexdigest()}"
    with pytest.raises(NotFound, match="Upload the document again"):
        blobs.get(key)
    assert not blobs.has(key)


def test_deleting_an_owner_takes_all_it_has(blobs: BlobStore) -> None:
    keys = [blobs.put("doc_1.1", text) for text in (b"bytes", b"parsed text")]
    assert all(map(blobs.has, keys))
    blobs.delete("doc_1.1")
    assert not any(map(blobs.has, keys))
    assert list(blobs.owners()) == []


# The longer name begins like the shorter one: a bucket knows no folders, only how names begin.
@pytest.mark.parametrize("other", ["doc_2.1", "doc_1.10", "doc_1.1.1"])
def test_deleting_one_owner_leaves_the_same_bytes_of_another(blobs: BlobStore, other: str) -> None:
    mine, theirs = blobs.put("doc_1.1", b"text"), blobs.put(other, b"text")
    blobs.delete("doc_1.1")
    blobs.delete("doc_1.1")
    assert blobs.get(theirs) == b"text"
    with pytest.raises(NotFound):
        blobs.get(mine)


def test_many_blobs_of_one_owner_go_at_once(blobs: BlobStore) -> None:
    for number in range(30):
        blobs.put("doc_1.1", str(number).encode())
    kept = blobs.put("doc_2.1", b"kept")
    blobs.delete("doc_1.1")
    assert [owner.name for owner in blobs.owners()] == ["doc_2.1"]
    assert blobs.has(kept)


def test_owners_come_once_each_with_the_time_of_their_last_blob(blobs: BlobStore) -> None:
    began = datetime.now(UTC) - timedelta(seconds=2)  # file systems and buckets round
    for owner in ("doc_1.1", "doc_1.10", "doc_2.1"):
        blobs.put(owner, b"one")
        blobs.put(owner, b"two")
    found = {owner.name: owner.written_at for owner in blobs.owners()}
    assert sorted(owner.name for owner in blobs.owners()) == sorted(found) == ["doc_1.1", "doc_1.10", "doc_2.1"]
    assert all(began <= written <= datetime.now(UTC) + timedelta(seconds=2) for written in found.values())


@pytest.mark.parametrize("owner", ["", "..", ".hidden", "a/b"])
def test_an_owner_cannot_leave_the_store(blobs: BlobStore, owner: str) -> None:
    with pytest.raises(ValueError, match="not an owner"):
        blobs.put(owner, b"text")
    with pytest.raises(ValueError, match="not an owner"):
        blobs.delete(owner)


@pytest.mark.parametrize("key", ["", "/0", "../0", ".hidden/0", "a/../../0"])
def test_a_key_cannot_leave_the_store(blobs: BlobStore, key: str) -> None:
    with pytest.raises(ValueError, match="not an owner"):
        blobs.get(key)


def test_threads_may_use_it_at_once(blobs: BlobStore) -> None:
    def round_trip(number: int) -> bool:
        content = str(number).encode() * 1000
        key = blobs.put(f"doc_{number % 8}.1", content)
        return blobs.get(key) == content

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(round_trip, range(200)))
    assert len(list(blobs.owners())) == 8


def test_a_store_that_is_there_passes_the_check(blobs: BlobStore) -> None:
    blobs.check()
