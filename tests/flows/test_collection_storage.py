"""What a collection may wish of the server that keeps its vectors, and what becomes of it where there is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from rag_service.runtime import build
from rag_service.vectors.base import IndexSpec
from tests.conftest import Started, Team, settings_for


def test_an_embedded_service_refuses_and_makes_nothing(team: Team) -> None:
    answer = team.manager.post("/v1/collections", json={"name": "large", "storage": {"shards": 4}})
    assert answer.status_code == 422
    assert answer.json()["code"] == "storage_unsupported"
    assert "RAG_QDRANT_URL" in answer.json()["detail"]
    assert team.manager.get("/v1/collections/large").status_code == 404


def test_who_wishes_nothing_is_not_refused(team: Team) -> None:
    made = team.manager.post("/v1/collections", json={"name": "small", "storage": {}})
    assert made.status_code == 201
    assert not any(made.json()["storage"].values())


@pytest.mark.parametrize(
    "storage",
    [
        {"shards": 0},
        {"replicas": 17},
        {"quantisation": "float8"},
        {"on_disk": "maybe"},
        {"disks": 3},
    ],
    ids=str,
)
def test_a_wish_that_no_server_can_grant_is_refused(client: TestClient, storage: dict[str, Any]) -> None:
    assert client.post("/v1/collections", json={"name": "odd", "storage": storage}).status_code == 422


def test_it_is_kept_shown_and_asked_for_again_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[IndexSpec] = []
    wish = {"shards": 4, "replicas": 2, "quantisation": "int8"}
    with Started(settings_for(tmp_path), worker=False) as service:
        embedded = service.runtime.vectors.create

        def create(index: str, spec: IndexSpec) -> None:
            asked.append(spec)
            embedded(index, IndexSpec(spec.dimensions))

        monkeypatch.setattr(service.runtime.vectors, "create", create)
        manager = service.new_team().manager
        made = manager.post("/v1/collections", json={"name": "large", "storage": wish})
        assert made.status_code == 201, made.text
        assert asked[-1].storage == wish
        shown = manager.get("/v1/collections/large").json()["storage"]
        assert {name: value for name, value in shown.items() if value is not None} == wish
        changed = manager.patch("/v1/collections/large", json={"storage": {"shards": 8}})
        assert changed.status_code == 422
        asked.clear()
        service.runtime.catalogue.make_indexes()
        assert [spec.storage for spec in asked if spec.storage] == [wish]


def test_the_settings_are_what_the_server_store_falls_back_to(tmp_path: Path) -> None:
    settings = settings_for(
        tmp_path, qdrant_url="http://127.0.0.1:1", qdrant_shards=3, qdrant_replicas=2, qdrant_quantisation="int8"
    )
    runtime = build(settings)
    storage = vars(runtime.vectors)["_storage"]
    assert (storage.shards, storage.replicas, storage.on_disk, storage.quantisation) == (3, 2, False, "int8")
    runtime.close()
