"""Neither log, nor metrics, nor traces ever hold a text, a question or a secret."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import pytest

from rag_service.ingest.indexer import Indexer
from rag_service.observe import spans
from rag_service.retrieval import retriever
from rag_service.retrieval.plan import RetrievalRequest
from tests.conftest import ADMIN_KEY, Service, Started, settings_for
from tests.log_lines import log_lines
from tests.otlp_collector import collecting

WATCH_KEY = "canary-of-the-watchers-key"
TEXT, TITLE, NAME = "canarytextofadocument", "canarytitleofit", "canaryexternalname"
QUESTION, PERSON, VALUE = "canaryquestion", "canary.person", "canaryvalue"
CANARIES = (ADMIN_KEY, WATCH_KEY, TEXT, TITLE, NAME, QUESTION, PERSON, VALUE)


@dataclass
class Seen:
    """All that somebody who watches the service could have read, and the secrets made meanwhile."""

    log: str
    metrics: str
    traces: bytes
    secrets: list[str]

    def leaks(self) -> list[tuple[str, str]]:
        shown = {"log": self.log, "metrics": self.metrics, "traces": self.traces.decode("latin-1")}
        return [(where, word) for where, text in shown.items() for word in (*CANARIES, *self.secrets) if word in text]


def use_everything(service: Service) -> str:
    """A team's life, with a canary wherever one fits; returns its key."""
    team = service.new_team()
    key = team.key("manage", "impersonate")
    client = service.client(key)
    acl = {"users": [PERSON]}
    document = {"text": f"{TEXT} and more", "title": TITLE, "external_id": NAME, "metadata": {"k": VALUE}, "acl": acl}
    sent = client.post("/v1/documents", json=document).json()
    client.post("/v1/documents", files={"file": (f"{NAME}.pdf", f"%PDF-1.7 {TEXT}".encode(), "application/pdf")})
    service.work()
    asked = {"query": f"{QUESTION} {TEXT}", "as_user": {"user": PERSON}, "filter": {"k": VALUE}, "highlight": True}
    client.post("/v1/retrieve", json=asked).raise_for_status()
    client.post("/v1/retrieve:why_not", json={"query": QUESTION, "external_id": NAME})
    client.get("/v1/documents", params={"external_id": NAME, "metadata.k": VALUE})
    client.get(f"/v1/collections/{NAME}")
    client.patch(f"/v1/documents/{sent['id']}/acl", json={"users": [PERSON, "bob"]})
    client.post("/v1/retrieve", json={"query": QUESTION, "unknown_field": VALUE})
    client.post("/v1/retrieve", content=f'{{"query": "{QUESTION}"')
    client.get("/v1/documents/x", headers={"Authorization": f"Bearer {key}x"})
    service.work()
    return key


def watch(tmp_path: Path) -> Seen:
    with collecting() as collector, log_lines(logging.DEBUG) as lines:
        spans.start(collector.url)
        try:
            with Started(settings_for(tmp_path, metrics_key=WATCH_KEY), worker=False) as service:
                secrets = [use_everything(service)]
                metrics = service.client(WATCH_KEY).get("/metrics").text
        finally:
            spans.stop()
        assert lines.saying("answered")
        assert collector.named("job.index")
        assert "rag_http_requests_total" in metrics
        return Seen(lines.raw, metrics, collector.raw, secrets)


def test_no_canary_is_in_the_log_the_metrics_or_the_traces(tmp_path: Path) -> None:
    assert watch(tmp_path).leaks() == []


def test_nor_when_something_breaks_with_the_text_in_its_hands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def break_down(self: Indexer, *_: object) -> None:
        raise ValueError(f"cannot handle {TEXT} of {NAME}")

    monkeypatch.setattr(Indexer, "index", break_down)
    seen = watch(tmp_path)
    assert "break_down" in seen.log
    assert "ValueError" in seen.log
    assert seen.leaks() == []


def test_a_line_that_quotes_the_question_would_be_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = retriever._answer

    def telling(request: RetrievalRequest, *rest: object) -> object:
        retriever.logger.debug("asked %s", request.query)
        return answer(request, *rest)  # type: ignore[arg-type] # passed on as it came

    monkeypatch.setattr(retriever, "_answer", telling)
    assert ("log", QUESTION) in watch(tmp_path).leaks()
