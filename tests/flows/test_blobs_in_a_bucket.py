"""The whole service with its blobs in a bucket: ingesting, reading, deleting, and the bucket going away."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import Started, settings_for
from tests.contracts.blob_variants import ACCESS_KEY, SECRET_KEY, bucket_server


def test_a_document_lives_and_dies_in_a_bucket(tmp_path: Path) -> None:
    with bucket_server(tmp_path / "s3") as server:
        settings = settings_for(
            tmp_path / "data",
            blobs_url="s3://blobs",
            blobs_endpoint=server.url,
            blobs_region="us-east-1",
            blobs_access_key=ACCESS_KEY,
            blobs_secret_key=SECRET_KEY,
            blobs_timeout_s=1,
        )
        with Started(settings) as service:
            team = service.new_team()
            document = team.put("Thirty days of leave a year.")["id"]
            team.drain()
            assert [hit["document_id"] for hit in team.retrieve("leave")] == [document]
            assert [path for path in server.root.rglob("*") if path.is_file()]
            assert not (tmp_path / "data" / "blobs").exists()

            server.stop()
            refused = team.manager.post("/v1/documents", json={"text": "Not now.", "acl": {"public": True}})
            assert refused.status_code == 503
            assert int(refused.headers["Retry-After"]) > 0
            parts = service.anonymous.get("/readyz").json()["parts"]
            assert parts["blobs"] == {"ready": False, "reason": "The blob store does not answer."}
            assert service.anonymous.get("/livez").status_code == 200

            server.start()
            assert service.anonymous.get("/readyz").status_code == 200
            assert team.manager.delete(f"/v1/documents/{document}").is_success
            team.drain()
            assert not [path for path in server.root.rglob("*") if path.is_file()]
