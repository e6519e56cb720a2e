"""What only one of the blob stores can do wrong, and how settings choose between them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rag_service.blobs import LocalBlobs
from rag_service.blobs.objects import ObjectBlobs
from rag_service.errors import ConfigError, NotFound, RetryableError
from rag_service.runtime.variants import make_blobs
from tests.conftest import settings_for
from tests.contracts.blob_variants import ACCESS_KEY, SECRET_KEY, BucketServer, bucket_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BucketServer]:
    with bucket_server(tmp_path_factory.mktemp("s3")) as running:
        yield running


class TestLocalFolder:
    def test_nothing_half_written_stays_behind(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(_self: Path, _target: Path) -> Path:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Path, "rename", full)
        with pytest.raises(RetryableError, match="No space left"):
            LocalBlobs(tmp_path).put("doc_1.1", b"text")
        assert not [path for path in tmp_path.rglob("*") if path.is_file()]

    def test_a_shared_folder_that_is_not_mounted_is_no_missing_document(self, tmp_path: Path) -> None:
        blobs = LocalBlobs(tmp_path / "share", shared=True)
        for use in (lambda: blobs.put("a", b"text"), lambda: blobs.get("a/0"), lambda: blobs.delete("a"), blobs.check):
            with pytest.raises(RetryableError, match="Is it mounted"):
                use()
        assert not (tmp_path / "share").exists()

    def test_a_folder_of_ones_own_is_made_when_it_is_needed(self, tmp_path: Path) -> None:
        LocalBlobs(tmp_path / "blobs").check()
        assert (tmp_path / "blobs").is_dir()

    def test_a_folder_that_cannot_be_made_is_not_ready(self, tmp_path: Path) -> None:
        (tmp_path / "blobs").write_text("a file is in the way")
        with pytest.raises(RetryableError, match="does not answer"):
            LocalBlobs(tmp_path / "blobs").check()


class TestBucket:
    def test_a_server_that_is_away_is_retryable_and_nothing_is_lost(self, tmp_path: Path) -> None:
        with bucket_server(tmp_path) as server:
            blobs = ObjectBlobs(server.connect(timeout_s=1))
            key = blobs.put("doc_1.1", b"text")
            server.stop()  # as kill -9 does
            uses = (
                lambda: blobs.put("a", b"text"),
                lambda: blobs.get(key),
                lambda: blobs.has(key),
                lambda: blobs.delete("doc_1.1"),
                lambda: list(blobs.owners()),
                blobs.check,
            )
            for use in uses:
                with pytest.raises(RetryableError, match="does not answer") as raised:
                    use()
                assert raised.value.retry_after > 0
            server.start()
            assert blobs.get(key) == b"text"

    def test_a_server_that_comes_back_within_the_time_out_is_waited_for(self, tmp_path: Path) -> None:
        with bucket_server(tmp_path) as server:
            blobs = ObjectBlobs(server.connect(timeout_s=10))
            key = blobs.put("doc_1.1", b"text")
            server.stop()
            server.start()  # every connection that the client kept is dead
            assert blobs.get(key) == b"text"

    def test_a_key_that_is_refused_is_told_without_the_key(self, server: BucketServer) -> None:
        blobs = ObjectBlobs(server.connect(secret="not-the-secret-key"))
        for use in (lambda: blobs.put("a", b"text"), lambda: blobs.get("a/0"), lambda: blobs.delete("a"), blobs.check):
            with pytest.raises(RetryableError, match="RAG_BLOBS_SECRET_KEY") as raised:
                use()
            assert "not-the-secret-key" not in raised.value.message

    def test_a_bucket_that_is_not_there_loses_no_document(self, server: BucketServer) -> None:
        blobs = ObjectBlobs(server.connect(bucket="unknown"))
        for use in (lambda: blobs.put("a", b"text"), lambda: blobs.delete("a"), blobs.check):
            with pytest.raises(RetryableError, match="no bucket"):
                use()

    def test_two_prefixes_do_not_see_each_other(self, server: BucketServer) -> None:
        mine, other = (ObjectBlobs(server.connect(prefix=prefix)) for prefix in ("one", "one-more"))
        key = mine.put("doc_1.1", b"text")
        with pytest.raises(NotFound):
            other.get(key)
        other.delete("doc_1.1")
        assert list(other.owners()) == []
        assert mine.get(key) == b"text"

    def test_blobs_lie_where_the_local_folder_would_have_put_them(self, server: BucketServer, tmp_path: Path) -> None:
        # So that a folder may be moved into a bucket by copying it.
        key = LocalBlobs(tmp_path).put("doc_7.1", b"text")
        ObjectBlobs(server.connect(prefix="moved")).put("doc_7.1", b"text")
        (local,) = [path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()]
        assert (server.root / "blobs" / "moved" / local).read_bytes() == b"text"
        assert local.name == key.rpartition("/")[2]

    def test_the_settings_lead_there(self, server: BucketServer, tmp_path: Path) -> None:
        blobs = make_blobs(settings_for(tmp_path, **addressed(server), **credentials()))
        assert blobs.get(blobs.put("doc_1.1", b"text")) == b"text"
        assert any((server.root / "blobs" / "some" / "where").rglob("doc_1.1"))

    def test_the_usual_environment_gives_the_credentials(
        self, server: BucketServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
        blobs = make_blobs(settings_for(tmp_path, **addressed(server)))
        assert blobs.get(blobs.put("doc_2.1", b"text")) == b"text"


def addressed(server: BucketServer) -> dict[str, Any]:
    return {"blobs_url": "s3://blobs/some/where", "blobs_endpoint": server.url, "blobs_region": "us-east-1"}


def credentials() -> dict[str, Any]:
    return {"blobs_access_key": ACCESS_KEY, "blobs_secret_key": SECRET_KEY}


class TestChoice:
    def test_without_a_setting_the_data_folder_holds_them(self, tmp_path: Path) -> None:
        make_blobs(settings_for(tmp_path)).put("doc_1.1", b"text")
        assert any((tmp_path / "blobs").rglob("doc_1.1"))

    def test_a_file_address_is_a_shared_folder(self, tmp_path: Path) -> None:
        share = tmp_path / "a share"
        share.mkdir()
        blobs = make_blobs(settings_for(tmp_path, blobs_url=share.as_uri()))
        blobs.put("doc_1.1", b"text")
        assert any(share.rglob("doc_1.1"))

    @pytest.mark.parametrize(
        "url",
        ["bucket", "http://bucket", "s3://", "s3:///key", "file://", "file://host/folder", "s3://key:secret@bucket"],
    )
    def test_an_address_that_names_no_store_is_refused(self, tmp_path: Path, url: str) -> None:
        with pytest.raises(ConfigError, match="RAG_BLOBS_URL must be") as raised:
            make_blobs(settings_for(tmp_path, blobs_url=url))
        assert "secret@" not in raised.value.message

    def test_half_of_a_pair_of_keys_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="go together"):
            make_blobs(settings_for(tmp_path, blobs_url="s3://bucket", blobs_access_key="key"))
