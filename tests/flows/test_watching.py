"""Watching the service: from a request to the jobs it causes, in the log, the metrics and the traces."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from rag_service.errors import RetryableError
from rag_service.observe import spans
from tests.conftest import Service, Started, Team, settings_for
from tests.log_lines import LogLines, log_lines
from tests.otlp_collector import Collector, collecting
from tests.waiting import until

WATCH_KEY = "watch-and-nothing-else"


@pytest.fixture
def lines() -> Iterator[LogLines]:
    with log_lines() as written:
        yield written


def numbers(service: Service) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    service.runtime.state.forget()
    answer = service.admin.get("/metrics")
    assert answer.status_code == 200, answer.text
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def number(service: Service, name: str, **labels: str) -> float:
    return numbers(service).get((name, frozenset(labels.items())), 0.0)


def put_broken(team: Team) -> dict[str, str]:
    """Upload what only calls itself a PDF."""
    answer = team.manager.post("/v1/documents", files={"file": ("broken.pdf", b"%PDF-1.7 no more", "application/pdf")})
    assert answer.status_code == 202, answer.text
    sent: dict[str, str] = answer.json()
    return sent


# --- the log --------------------------------------------------------------------------------


def test_every_request_is_one_line_with_template_status_time_team_and_key(team: Team, lines: LogLines) -> None:
    document = team.put("Twenty weeks of leave.")
    key = team.manager.get(f"/v1/teams/{team.id}/keys").json()["data"][0]["id"]
    team.manager.get(f"/v1/documents/{document['id']}", headers={"X-Request-Id": "mine-1"})
    (line,) = lines.saying("request", request_id="mine-1")
    assert (
        line.items()
        >= {
            "level": "info",
            "method": "GET",
            "route": "/v1/documents/{document_id}",
            "status": 200,
            "team": team.id,
            "key": key,
        }.items()
    )
    assert 0 < line["ms"] < 60_000
    assert document["id"] not in str(line)


def test_a_request_nobody_may_make_is_a_line_without_team_or_path(service: Service, lines: LogLines) -> None:
    service.anonymous.get("/v1/documents/secret-name")
    (line,) = lines.saying("request", status=401)
    assert line["route"] == "none"
    assert "team" not in line
    assert "secret-name" not in lines.raw


def test_probes_leave_no_lines(service: Service, lines: LogLines) -> None:
    for path in ("/livez", "/readyz", "/metrics"):
        service.admin.get(path)
    assert lines.saying("request") == []


def test_an_answer_says_how_long_each_stage_took_and_which_request_asked(team: Team, lines: LogLines) -> None:
    team.manager.post("/v1/retrieve", json={"query": "leave"}, headers={"X-Request-Id": "asked-1"})
    (line,) = lines.saying("answered", request_id="asked-1")
    assert line["team"] == team.id
    assert {"embed", "search", "confirm"} <= line["stages_ms"].keys()


def test_a_job_names_the_request_that_caused_it_also_in_a_later_process(tmp_path: Path, lines: LogLines) -> None:
    settings = settings_for(tmp_path)
    with Started(settings, worker=False) as before:
        team = before.new_team()
        body = {"text": "Twenty weeks of leave."}
        sent = team.manager.post("/v1/documents", json=body, headers={"X-Request-Id": "upload-1"}).json()
    with Started(settings, worker=False) as after:
        after.work()
    (line,) = until(lambda: lines.saying("job ran", job_id=sent["job_id"]))  # written after the job is over
    assert (
        line.items()
        >= {
            "request_id": "upload-1",
            "team": team.id,
            "kind": "index",
            "outcome": "succeeded",
            "document_id": sent["id"],
        }.items()
    )
    assert {"parse", "chunk", "embed", "index"} <= line["stages_ms"].keys()


def test_the_documents_of_a_sync_name_the_request_that_started_it(team: Team, tmp_path: Path, lines: LogLines) -> None:
    (tmp_path / "a.md").write_text("# One")
    (tmp_path / "b.md").write_text("# Two")
    source = {"name": "folder", "type": "files", "config": {"root": str(tmp_path)}}
    made = team.admin.post("/v1/sources", json=source).json()
    team.manager.post(f"/v1/sources/{made['id']}/sync", headers={"X-Request-Id": "sync-1"}, json={})
    team.drain()
    until(lambda: len(lines.saying("job ran", request_id="sync-1")) == 3)
    assert {line["kind"] for line in lines.saying("job ran", request_id="sync-1")} == {"sync", "index"}
    assert len(lines.saying("job ran", request_id="sync-1", kind="index")) == 2


def test_a_failed_job_is_a_warning_with_stage_and_code(team: Team, lines: LogLines) -> None:
    sent = put_broken(team)
    team.drain()
    (line,) = until(lambda: lines.saying("job ran", job_id=sent["job_id"]))  # written after the job is over
    assert line.items() >= {"level": "warning", "outcome": "failed", "stage": "parse", "code": "corrupt"}.items()


# --- metrics --------------------------------------------------------------------------------


def test_requests_stages_jobs_and_documents_are_counted(service: Service, team: Team) -> None:
    upload = {"method": "POST", "route": "/v1/documents", "status": "202"}
    before = numbers(service)

    def grew(name: str, **labels: str) -> float:
        key = (name, frozenset(labels.items()))
        return after.get(key, 0.0) - before.get(key, 0.0)

    team.put("Twenty weeks of leave.")
    put_broken(team)
    team.drain()
    team.retrieve("leave")
    team.retrieve("leave", filter={"year": 1066})
    after = numbers(service)
    assert grew("rag_http_requests_total", **upload) == 2
    assert grew("rag_http_request_seconds_count", method="POST", route="/v1/documents") == 2
    assert grew("rag_retrieval_stage_seconds_count", stage="confirm") == 2
    assert grew("rag_retrieval_empty_total") == 1
    assert grew("rag_job_runs_total", kind="index", outcome="succeeded") == 1
    assert grew("rag_job_errors_total", kind="index", code="corrupt") == 1
    assert grew("rag_ingest_stage_seconds_count", stage="parse") == 2
    assert grew("rag_documents", status="ready") == 1
    assert grew("rag_documents", status="failed") == 1
    assert grew("rag_dead_letters", reason="corrupt") == 1
    assert grew("rag_jobs", kind="index", state="failed") == 1


def test_waiting_work_has_a_number_and_an_age(tmp_path: Path) -> None:
    with Started(settings_for(tmp_path), worker=False) as service:
        service.new_team().put("Twenty weeks of leave.")
        waiting = numbers(service)
        assert waiting["rag_jobs", frozenset({("kind", "index"), ("state", "queued")})] == 1
        assert 0 < waiting["rag_oldest_open_job_seconds", frozenset({("kind", "index")})] < 60
        assert waiting["rag_queue_messages", frozenset({("queue", "uploads")})] == 1
        service.work()
        assert number(service, "rag_jobs", kind="index", state="queued") == 0


def test_the_lag_of_an_acl_is_the_time_until_the_index_has_it(service: Service, team: Team) -> None:
    document = team.put("Twenty weeks of leave.")
    team.drain()
    before = number(service, "rag_acl_lag_seconds_count")
    team.manager.patch(f"/v1/documents/{document['id']}/acl", json={"users": ["ada"]}).raise_for_status()
    team.drain()
    assert number(service, "rag_acl_lag_seconds_count") == before + 1


def test_parsers_that_die_are_counted(service: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = number(service, "rag_parser_deaths_total", reason="timeout")
    with Started(settings_for(tmp_path, parser_timeout_s=0.000_1), worker=False) as hasty:
        hasty.new_team().put("Twenty weeks of leave.")
        hasty.work()
    assert number(service, "rag_parser_deaths_total", reason="timeout") == before + 1


def test_metrics_are_for_an_admin_key_or_the_key_that_opens_nothing_else(tmp_path: Path) -> None:
    with Started(settings_for(tmp_path, metrics_key=WATCH_KEY), worker=False) as service:
        team = service.new_team()
        watcher = service.client(WATCH_KEY)
        assert watcher.get("/metrics").status_code == 200
        assert service.admin.get("/metrics").status_code == 200
        assert service.anonymous.get("/metrics").status_code == 401
        assert service.client(WATCH_KEY[:-1]).get("/metrics").status_code == 401
        for scope in ("query", "ingest", "manage", "admin"):
            assert team.client(scope).get("/metrics").status_code == 403
        for method, path in (("GET", "/v1/teams"), ("POST", "/v1/retrieve"), ("GET", "/metrics/"), ("GET", "/v1/jobs")):
            assert watcher.request(method, path, headers={"X-Rag-Team": team.id}).status_code == 401


def test_without_a_key_set_none_opens_the_metrics_alone(service: Service) -> None:
    assert service.runtime.settings.metrics_key is None
    for guess in ("None", "", WATCH_KEY):
        assert service.client(guess).get("/metrics").status_code == 401


def test_metrics_are_given_while_the_database_is_down(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    admin = service.admin
    admin.get("/metrics")

    def down() -> object:
        raise RetryableError

    monkeypatch.setattr(service.runtime.database, "read", down)
    service.runtime.state.forget()
    answer = admin.get("/metrics")
    assert answer.status_code == 200
    assert "rag_state_readable 0.0" in answer.text
    assert "rag_http_requests_total" in answer.text


def test_no_flood_makes_more_series(service: Service) -> None:
    def one_of_everything(name: str) -> None:
        team = service.new_team()
        client: TestClient = team.manager
        sent = team.put("text", external_id=name)
        client.get(f"/v1/documents/{sent['id']}")
        client.get(f"/v1/documents/{name}")
        client.get(f"/v1/{name}")
        client.get(f"/{name}")
        client.request(f"M{name}", "/v1/documents")
        client.post("/v1/retrieve", json={"query": name})

    one_of_everything("first")
    service.drain()
    before = set(numbers(service))
    for number_of_flood in range(20):
        one_of_everything(f"flood-{number_of_flood}")
    service.drain()
    grown = set(numbers(service)) - before
    # Buckets and outcomes of what had not happened yet may come; nothing that the flood named.
    assert not [key for key in grown if "flood" in str(key)]
    assert len(grown) < 10


# --- drift ----------------------------------------------------------------------------------


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Service]:
    """A service that does its work only when told."""
    with Started(settings_for(tmp_path), worker=False) as service:
        yield service


def test_an_index_at_rest_agrees_with_the_database(alone: Service) -> None:
    team = alone.new_team()
    document = team.put("The first words.", external_id="a")
    team.put("Other words.", external_id="b")
    alone.work()
    team.put("The second words.", external_id="a")
    alone.work()
    team.manager.delete(f"/v1/documents/{document['id']}")
    alone.work()
    assert alone.runtime.drift.look() == 0
    assert number(alone, "rag_index_drift_compared") == 1


def test_chunks_that_the_store_lost_or_kept_are_drift(alone: Service) -> None:
    team = alone.new_team()
    kept, lost = team.put("These stay.", external_id="a"), team.put("These go.", external_id="b")
    alone.work()
    with alone.runtime.database.read() as connection:
        from rag_service.db import collections

        (index,) = collections.all_active(connection)
    alone.runtime.vectors.delete(index.id, lost["id"])
    assert alone.runtime.drift.look() == 1
    assert number(alone, "rag_index_drift_chunks") == 1
    alone.runtime.vectors.delete(index.id, kept["id"])
    assert alone.runtime.drift.look() == 2
    alone.runtime.vectors.drop(index.id)
    assert alone.runtime.drift.look() == 2


def test_a_team_at_work_is_left_out(alone: Service) -> None:
    busy, idle = alone.new_team(), alone.new_team()
    idle.put("Done.")
    alone.work()
    busy.put("Waiting.")
    alone.runtime.drift.look()
    assert number(alone, "rag_index_drift_compared") == 1


def test_the_sweep_looks_now_and_then(alone: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []
    monkeypatch.setattr(type(alone.runtime.drift), "look", lambda _self: looks.append(1))
    alone.runtime.sweep()
    alone.runtime.sweep()
    assert len(looks) == 1


# --- traces ---------------------------------------------------------------------------------


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A collector that this process exports its spans to; they have arrived when the test calls `spans.stop`."""
    with collecting() as running:
        assert spans.start(running.url)
        yield running
        spans.stop()


def test_one_trace_goes_from_the_request_through_the_queue_to_the_store(tmp_path: Path, collector: Collector) -> None:
    with Started(settings_for(tmp_path)) as service:
        team = service.new_team()
        theirs = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
        sent = team.manager.post("/v1/documents", json={"text": "Twenty weeks of leave."}, headers=theirs).json()
        service.drain()
        team.retrieve("leave")
    spans.stop()
    (job,) = collector.named("job.index")
    assert job.attributes == {"rag.job": sent["job_id"], "rag.team": team.id}
    assert job.trace == "0af7651916cd43dd8448eb211c80319c"
    (request,) = collector.named("POST /v1/documents")
    assert request.parent == "b7ad6b7169203331"
    assert job.parent == request.id
    assert {span.name for span in collector.spans if span.parent == job.id} == {
        "index.parse",
        "index.chunk",
        "index.embed",
        "index.index",
    }
    stored = next(span for span in collector.named("vectors.upsert"))
    assert stored.trace == job.trace
    assert next(span for span in collector.spans if span.id == stored.parent).name == "index.index"


def test_a_question_is_a_trace_with_its_stages_and_the_stores_own_time(tmp_path: Path, collector: Collector) -> None:
    with Started(settings_for(tmp_path)) as service:
        team = service.new_team()
        team.put("Twenty weeks of leave.")
        service.drain()
        with log_lines() as lines:
            team.retrieve("leave")
    spans.stop()
    (search,) = collector.named("vectors.search")
    assert collector.path_of(search) == ["POST /v1/retrieve", "retrieve.search", "vectors.search"]
    for stage in ("embed", "confirm"):
        (span,) = collector.named(f"retrieve.{stage}")
        assert collector.path_of(span) == ["POST /v1/retrieve", f"retrieve.{stage}"]
    (line,) = lines.saying("answered")
    assert line["trace_id"] == search.trace


def test_the_documents_of_a_sync_hang_under_it_across_a_restart(tmp_path: Path, collector: Collector) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").write_text("# One")
    settings = settings_for(tmp_path / "data")
    with Started(settings, worker=False) as service:
        team = service.new_team()
        source = {"name": "folder", "type": "files", "config": {"root": str(tmp_path / "docs")}}
        made = team.admin.post("/v1/sources", json=source).json()
        team.manager.post(f"/v1/sources/{made['id']}/sync", json={})
    with Started(settings, worker=False) as service:
        service.work()
    spans.stop()
    (indexed,) = collector.named("job.index")
    assert collector.path_of(indexed) == ["POST /v1/sources/{source_id}/sync", "job.sync", "job.index"]


def test_a_job_that_fails_has_its_code_on_its_span(tmp_path: Path, collector: Collector) -> None:
    with Started(settings_for(tmp_path), worker=False) as service:
        put_broken(service.new_team())
        service.work()
    spans.stop()
    (job,) = collector.named("job.index")
    assert job.attributes["error.type"] == "corrupt"


def test_probes_leave_no_spans(tmp_path: Path, collector: Collector) -> None:
    with Started(settings_for(tmp_path), worker=False) as service:
        for path in ("/livez", "/readyz", "/metrics"):
            service.admin.get(path)
    spans.stop()
    assert collector.spans == []
