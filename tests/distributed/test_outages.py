"""A part that is away is named by readyz within ten seconds; what does not need it goes on, and nothing is lost."""

from __future__ import annotations

import time
import uuid
from typing import Any

import httpx
import psycopg
import pytest

from tests.distributed.cluster import ApiProcess, Cluster, WorkerProcess

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PUBLIC = {"public": True}


def new_team(service: Cluster) -> str:
    name = f"team-{uuid.uuid4().hex[:8]}"
    service.request("POST", "/v1/teams", json={"id": name, "name": name})
    return name


def not_ready(api: ApiProcess) -> dict[str, str]:
    """The parts that are not ready, with their reasons; the answer must come within ten seconds."""
    began = time.monotonic()
    answer = httpx.get(f"{api.url}/readyz", timeout=30)
    assert time.monotonic() - began < 10
    parts: dict[str, Any] = answer.json()["parts"]
    wrong = {name: part["reason"] for name, part in parts.items() if not part["ready"]}
    assert answer.status_code == (503 if wrong else 200)
    assert httpx.get(f"{api.url}/livez", timeout=10).json() == {"status": "ok"}
    return wrong


def test_redis_away_writes_are_taken_and_indexed_when_it_is_back(service: Cluster) -> None:
    team, api = new_team(service), service.apis[0]
    service.redis.kill()
    try:
        assert set(not_ready(api)) == {"queue"}
        made = api.request("POST", "/v1/documents", team=team, json={"text": "Written in the dark.", "acl": PUBLIC})
    finally:
        service.redis.start()
    assert service.job(made["job_id"], team)["state"] == "succeeded"
    assert not_ready(api) == {}


def test_a_redis_that_forgot_everything_is_filled_again(service: Cluster) -> None:
    team, api = new_team(service), service.apis[0]
    for worker in service.workers:
        worker.stop()
    texts = [{"text": f"Number {number} of many.", "acl": PUBLIC} for number in range(60)]
    api.request("POST", "/v1/documents:batch", team=team, json={"documents": texts})
    service.redis.client().flushall()
    for worker in service.workers:
        worker.launch()
    for worker in service.workers:
        worker.wait_until(worker.is_ready)

    def ready() -> int:
        return len(api.request("GET", "/v1/documents?status=ready&limit=100", team=team)["data"])

    service.wait_for("all are indexed", lambda: ready() == 60, 120)


def test_a_redis_that_is_full_costs_no_document(service: Cluster) -> None:
    team, api = new_team(service), service.apis[0]
    with service.redis.full():
        assert set(not_ready(api)) == {"queue"}
        made = [
            api.request("POST", "/v1/documents", team=team, json={"text": f"Number {number}.", "acl": PUBLIC})
            for number in range(20)
        ]
    assert {service.job(one["job_id"], team)["state"] for one in made} == {"succeeded"}
    assert not_ready(api) == {}


def test_postgres_away_is_a_503_that_says_when_to_come_back(service: Cluster) -> None:
    team, api = new_team(service), service.apis[0]
    with service.postgres.away():
        wrong = not_ready(api)
        assert "database" in wrong
        assert "queue" not in wrong
        refused = api.send_request("POST", "/v1/retrieve", team=team, json={"query": "whale"})
        assert refused.status_code == 503
        assert int(refused.headers["Retry-After"]) >= 1
    service.wait_for("the API finds it again", api.is_ready)
    made = api.request("POST", "/v1/documents", team=team, json={"text": "Written afterwards.", "acl": PUBLIC})
    assert service.job(made["job_id"], team)["state"] == "succeeded"


def test_a_vector_store_that_hangs_is_named(service: Cluster) -> None:
    if service.qdrant is None:
        pytest.skip("RAG_TEST_QDRANT_URL names a server that is not ours to stop")
    new_team(service)
    with service.qdrant.hanging():
        wrong = not_ready(service.apis[0])
        assert set(wrong) == {"vectors"}
        assert "has not answered" in wrong["vectors"]
    service.wait_for("the API is ready again", service.apis[0].is_ready)


def test_a_schema_that_is_not_this_versions_is_named(service: Cluster) -> None:
    with psycopg.connect(service.postgres.url(), autocommit=True) as connection:
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        assert row is not None
        connection.execute("UPDATE alembic_version SET version_num = '0001'")
        try:
            assert set(not_ready(service.apis[0])) == {"database"}
        finally:
            connection.execute("UPDATE alembic_version SET version_num = %s", row)
    assert not_ready(service.apis[0]) == {}


def test_an_index_of_another_model_is_named_and_keeps_a_new_process_from_starting(service: Cluster) -> None:
    new_team(service)
    with psycopg.connect(service.postgres.url(), autocommit=True) as connection:
        connection.execute("UPDATE index_versions SET embedding_model = 'other/' || embedding_model")
        try:
            wrong = not_ready(service.apis[0])
            assert set(wrong) == {"indexes"}
            assert "other/" in wrong["indexes"]
            late = ApiProcess(service.folder / "late.log", service.environment)
            late.launch()
            assert late.stop(60) != 0 or "built with the model" in late.output
        finally:
            connection.execute("UPDATE index_versions SET embedding_model = substr(embedding_model, 7)")
    assert not_ready(service.apis[0]) == {}


def test_a_redis_that_evicts_keeps_a_worker_from_starting_and_says_so(service: Cluster) -> None:
    service.redis.client().config_set("maxmemory-policy", "volatile-lru")
    worker = WorkerProcess(service.folder / "late-worker.log", service.environment)
    try:
        assert set(not_ready(service.apis[0])) == {"queue"}
        worker.launch()
        service.wait_for("the worker has given up", lambda: not worker.running)
        assert "noeviction" in worker.output
        assert "Traceback" not in worker.output
    finally:
        worker.kill()
        service.redis.client().config_set("maxmemory-policy", "noeviction")
