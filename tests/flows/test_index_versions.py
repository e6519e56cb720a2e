"""A collection is built anew beside the index that answers, put in its place in one step, and taken back in one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rag_service.db import documents, indexed, outbox
from rag_service.errors import ConfigError, RetryableError, UnsupportedDocument
from rag_service.ingest import runner
from rag_service.ingest.builder import Builder
from rag_service.ingest.indexer import Indexer
from rag_service.retrieval.retriever import Retriever
from rag_service.types import ParsedDocument
from tests.churn import answers, questions, text_of
from tests.conftest import Service, Started, Team, settings_for
from tests.index_builds import (
    PATH,
    WIDER,
    WIDEST,
    Version,
    active,
    answering,
    ask,
    begin,
    built,
    faults,
    look,
)

LETTERS = "/v1/admin/dead-letters"
DOCUMENTS = 8
Change = Callable[[Team, str], object]


def _ok(answer: Any) -> None:
    assert answer.status_code in (200, 202), answer.text


# By what a client does, while a build runs or between a switch and the way back, to the document of that id.
CHANGES: dict[str, Change] = {
    "content replaced": lambda team, name: _ok(
        team.manager.put(f"/v1/documents/{name}/content", json={"text": "Entirely other words, about zeppelins."})
    ),
    "access narrowed": lambda team, name: _ok(
        team.manager.patch(f"/v1/documents/{name}/acl", json={"users": ["ada"], "deny_groups": ["staff"]})
    ),
    "metadata changed": lambda team, name: _ok(
        team.manager.patch(f"/v1/documents/{name}/metadata", json={"year": 2031})
    ),
    "deleted": lambda team, name: _ok(team.manager.delete(f"/v1/documents/{name}")),
    "a new one": lambda team, _: team.put("About zeppelins, which nobody wrote of before.", external_id="new"),
    "deleted and back": lambda team, name: (
        _ok(team.manager.delete(f"/v1/documents/{name}")),
        team.put("It is back, with zeppelins.", external_id="d1"),
    ),
}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Work is done when a test says so."""
    with Started(settings_for(tmp_path_factory.mktemp("indexes")), worker=False) as started:
        yield started


@pytest.fixture
def filled(service: Service) -> Team:
    """A team with a few documents that answer."""
    team = service.new_team()
    for number in range(DOCUMENTS):
        team.put(text_of(number), external_id=f"d{number}")
    service.work()
    return team


def id_of(team: Team, external_id: str) -> str:
    (found,) = team.manager.get("/v1/documents", params={"external_id": external_id}).json()["data"]
    return str(found["id"])


def during_the_build(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object], *, at: int = 4) -> None:
    """Do this once, right before the document of that place is built."""
    build, built_so_far = Indexer.build, []

    def building(indexer: Indexer, *arguments: Any) -> None:
        built_so_far.append(arguments[0])
        if len(built_so_far) == at:
            act()
        build(indexer, *arguments)

    monkeypatch.setattr(Indexer, "build", building)


# --- building -----------------------------------------------------------------------------------------


def test_a_build_takes_in_every_document_and_answers_nobody(service: Service, filled: Team) -> None:
    before = active(filled)
    made = begin(filled, WIDER, note="wider")
    assert (made["state"], made["number"], made["dimensions"], made["note"]) == ("building", 2, 96, "wider")
    service.work()
    ready = look(filled, made["id"])
    assert ready["state"] == "ready"
    assert ready["sizes"]["documents"] == DOCUMENTS
    assert ready["sizes"]["chunks"] == before["sizes"]["chunks"] == ready["progress"]["chunks_done"]
    assert ready["sizes"]["bytes"] > 0
    assert ready["progress"] | {"rate": 0} == {
        "total": DOCUMENTS,
        "done": DOCUMENTS,
        "failed": 0,
        "behind": 0,
        "rate": 0,
        "eta_s": 0.0,
        "failures": [],
        "chunks_total": before["sizes"]["chunks"],
        "chunks_done": before["sizes"]["chunks"],
    }
    assert faults(service, filled, made["id"]) == []
    assert answering(filled, "anchor bakery") == {before["id"]}


def test_versions_are_listed_newest_first_and_narrowed(service: Service, filled: Team) -> None:
    first = active(filled)
    second = built(service, filled)
    filled.manager.post("/v1/collections", json={"name": "other"}).raise_for_status()

    def ids(**params: str) -> list[str]:
        return [one["id"] for one in filled.admin.get(PATH, params=params).json()["data"]]

    assert ids(collection="default") == [second["id"], first["id"]]
    assert ids(state="ready") == [second["id"]]
    assert len(ids()) == 3
    assert ids(collection="other", state="ready") == []
    assert filled.admin.get(PATH, params={"collection": "none"}).status_code == 404


@pytest.mark.parametrize("name", CHANGES)
def test_what_changes_during_a_build_is_in_it(
    service: Service, filled: Team, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    document = id_of(filled, "d1")  # built before the change comes
    during_the_build(monkeypatch, lambda: CHANGES[name](filled, document))
    made = begin(filled)
    service.work()
    assert look(filled, made["id"])["state"] == "ready"
    assert faults(service, filled, made["id"]) == []
    assert faults(service, filled, active(filled)["id"]) == []


@pytest.mark.parametrize("name", CHANGES)
def test_what_changes_after_a_build_reaches_it_too(service: Service, filled: Team, name: str) -> None:
    made = built(service, filled)
    CHANGES[name](filled, id_of(filled, "d1"))
    service.work()
    assert faults(service, filled, made["id"]) == []
    assert look(filled, made["id"])["state"] == "ready"


def test_access_and_deletions_reach_a_paused_build_at_once_and_content_when_it_goes_on(
    service: Service, filled: Team
) -> None:
    made = built(service, filled)
    assert ask(filled, made["id"], "pause")["paused"] is True
    CHANGES["access narrowed"](filled, id_of(filled, "d1"))
    CHANGES["deleted"](filled, id_of(filled, "d2"))
    service.work()
    assert faults(service, filled, made["id"]) == []
    CHANGES["content replaced"](filled, id_of(filled, "d3"))
    service.work()
    assert look(filled, made["id"])["progress"]["behind"] == 1
    assert ask(filled, made["id"], "resume")["paused"] is False
    service.work()
    assert look(filled, made["id"])["progress"]["behind"] == 0
    assert faults(service, filled, made["id"]) == []


def test_a_paused_build_stops_where_it_is_and_goes_on_from_there(
    service: Service, filled: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = begin(filled)
    during_the_build(monkeypatch, lambda: ask(filled, made["id"], "pause"), at=2)
    service.work()
    stopped = look(filled, made["id"])
    assert 0 < stopped["progress"]["done"] < DOCUMENTS
    assert (stopped["state"], stopped["progress"]["eta_s"]) == ("building", None)
    built_again: list[str] = []
    monkeypatch.setattr(Indexer, "build", noting(Indexer.build, built_again))
    ask(filled, made["id"], "resume")
    service.work()
    assert look(filled, made["id"])["state"] == "ready"
    assert len(built_again) == DOCUMENTS - stopped["progress"]["done"]


def noting(build: Callable[..., None], names: list[str]) -> Callable[..., None]:
    def building(indexer: Indexer, document: str, *rest: Any) -> None:
        names.append(document)
        build(indexer, document, *rest)

    return building


def test_a_cancelled_build_is_dropped_with_its_files_and_rows(
    service: Service, filled: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = begin(filled)
    during_the_build(monkeypatch, lambda: ask(filled, made["id"], "cancel"))
    service.work()
    gone = look(filled, made["id"])
    assert gone["state"] == "retired"
    assert gone["retired_at"] is not None
    assert gone["sizes"] == {"documents": 0, "chunks": 0, "bytes": 0}
    assert not (service.runtime.settings.data_dir / "vectors" / made["id"]).exists()
    assert ask(filled, made["id"], "resume", expect=409)["code"] == "index_version_state"
    assert faults(service, filled, active(filled)["id"]) == []


def test_the_active_one_cannot_be_cancelled(filled: Team) -> None:
    refused = ask(filled, active(filled)["id"], "cancel", expect=409)
    assert refused["numbers"] == {"state": "active"}


def test_priority_and_concurrency_can_be_changed_while_it_is_built(service: Service, filled: Team) -> None:
    made = begin(filled, max_concurrency=2)
    changed = filled.admin.patch(f"{PATH}/{made['id']}", json={"priority": "low", "max_concurrency": 4})
    assert (changed.json()["priority"], changed.json()["max_concurrency"]) == ("low", 4)
    filled.admin.patch(f"{PATH}/{made['id']}", json={"priority": "high"})
    service.work()
    assert look(filled, made["id"])["state"] == "ready"
    assert faults(service, filled, made["id"]) == []


@pytest.fixture
def with_a_failure(service: Service, filled: Team, monkeypatch: pytest.MonkeyPatch) -> Version:
    """A build that cannot have document d1 in it."""
    runtime = service.runtime
    parse = runtime.indexer.parse

    def parsing(content: bytes, *rest: Any) -> ParsedDocument:
        if b"# Number 1\n" in content:
            raise UnsupportedDocument("A parser of today refuses it.", code="refused")
        return parse(content, *rest)

    monkeypatch.setitem(runtime.indexer.__dict__, "parse", parsing)
    return built(service, filled, {"parsing": {"anew": True}})


def test_a_document_that_cannot_be_built_is_told_of_and_stops_no_other(
    service: Service, filled: Team, with_a_failure: Version
) -> None:
    told = with_a_failure["progress"]
    assert (told["failed"], told["done"], told["behind"]) == (1, DOCUMENTS - 1, 0)
    (why,) = told["failures"]
    assert (why["document_id"], why["code"]) == (id_of(filled, "d1"), "refused")


def test_it_is_tried_once_more_when_somebody_asks_for_it(
    service: Service, filled: Team, with_a_failure: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.work()
    ask(filled, with_a_failure["id"], "resume")
    service.work()
    assert look(filled, with_a_failure["id"])["progress"]["failed"] == 1
    monkeypatch.setitem(service.runtime.indexer.__dict__, "parse", service.runtime.sandbox.parse)
    ask(filled, with_a_failure["id"], "resume")
    service.work()
    assert look(filled, with_a_failure["id"])["progress"]["failed"] == 0
    assert faults(service, filled, with_a_failure["id"]) == []


def test_it_is_not_lost_without_a_word_and_comes_back_with_the_way_back(
    service: Service, filled: Team, with_a_failure: Version
) -> None:
    index = with_a_failure["id"]
    refused = ask(filled, index, "promote", expect=409)
    assert (refused["code"], refused["numbers"]) == ("documents_missing", {"failed": 1})
    ask(filled, index, "promote", force=True)
    lost = filled.document(id_of(filled, "d1"))
    assert (lost["status"], lost["error"]["code"]) == ("failed", "left_out")
    ask(filled, index, "rollback")
    assert filled.document(id_of(filled, "d1"))["status"] == "ready"
    assert "d1" in {hit["external_id"] for hit in filled.retrieve("Number 1", filter={"external_id": "d1"})}


def test_why_its_newest_version_failed_is_still_known_after_the_way_back(
    service: Service, filled: Team, with_a_failure: Version
) -> None:
    def state() -> tuple[str, int, int | None, str]:
        record = filled.document(id_of(filled, "d1"))
        return record["status"], record["version"], record["indexed_version"], record["error"]["code"]

    empty = ("d1.html", b"<p></p>", "text/html")
    filled.manager.put(f"/v1/documents/{id_of(filled, 'd1')}/content", files={"file": empty}).raise_for_status()
    service.work()
    assert state() == ("failed", 2, 1, "empty")
    ask(filled, with_a_failure["id"], "promote", force=True)
    assert state() == ("failed", 2, None, "empty")
    ask(filled, with_a_failure["id"], "rollback")
    assert state() == ("failed", 2, 1, "empty")


def test_no_more_than_a_few_are_written_to_at_a_time(service: Service, filled: Team) -> None:
    made = [begin(filled) for _ in range(4)]
    refused = filled.admin.post(PATH, json={"pipeline": WIDER})
    assert (refused.status_code, refused.json()["code"]) == (409, "too_many_index_versions")
    ask(filled, made[0]["id"], "cancel")
    begin(filled)
    service.work()


def test_a_model_that_does_not_answer_pauses_the_build_with_the_reason_and_loses_nothing(
    service: Service, filled: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after the two hours for which a job is tried again."""
    monkeypatch.setattr(runner, "wait_s", lambda *_: None)
    made = begin(filled)
    with monkeypatch.context() as silent:
        during_the_build(silent, fail(RetryableError("The model does not answer.")))
        service.work()
        stopped = look(filled, made["id"])
    assert (stopped["state"], stopped["paused"], stopped["progress"]["done"]) == ("building", True, 3)
    assert stopped["error"]["message"].startswith("The model does not answer.")
    service.runtime.indexes.builder.look()
    service.work()
    assert look(filled, made["id"])["progress"]["done"] == 3
    ask(filled, made["id"], "resume")
    service.work()
    ready = look(filled, made["id"])
    assert (ready["state"], ready["error"]) == ("ready", None)


@pytest.fixture
def given_up(service: Service, filled: Team, monkeypatch: pytest.MonkeyPatch) -> Version:
    """A build that its model left waiting for too long."""
    monkeypatch.setattr(runner, "wait_s", lambda *_: None)
    made = begin(filled)
    with monkeypatch.context() as silent:
        during_the_build(silent, fail(RetryableError("The model does not answer.")))
        service.work()
    assert len(letters(filled)) == 1
    return made


def letters(team: Team) -> list[Version]:
    found: list[Version] = team.service.admin.get(LETTERS, params={"team": team.id}).json()["data"]
    return found


def retry(team: Team) -> dict[str, int]:
    told: dict[str, int] = team.service.admin.post(f"{LETTERS}:retry", json={"filter": {"team": team.id}}).json()
    return told


def test_retrying_the_letter_of_a_build_goes_on_with_it(service: Service, filled: Team, given_up: Version) -> None:
    assert retry(filled) == {"retried": 1, "superseded": 0}
    service.work()
    ready = look(filled, given_up["id"])
    assert (ready["state"], ready["paused"], ready["error"]) == ("ready", False, None)
    assert letters(filled) == []


@pytest.mark.parametrize("action", ["resume", "cancel"])
def test_whoever_decides_on_a_build_answers_its_letter(filled: Team, given_up: Version, action: str) -> None:
    ask(filled, given_up["id"], action)
    assert letters(filled) == []
    filled.service.work()


def test_one_that_is_built_and_cannot_be_brought_up_to_date_waits_with_the_reason_for_somebody(
    service: Service, filled: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = built(service, filled)
    with monkeypatch.context() as broken:
        missing = fail(ConfigError("There is no such model."))
        broken.setattr(Indexer, "build", lambda *_: missing())
        filled.put("Entirely new words, about zeppelins.", external_id="new")
        service.work()
        for _ in range(3):
            service.runtime.indexes.builder.look()
            service.work()
    stopped = look(filled, made["id"])
    assert (stopped["state"], stopped["paused"]) == ("ready", True)
    assert stopped["error"]["message"] == "There is no such model."
    assert len(letters(filled)) == 1
    ask(filled, made["id"], "resume")
    service.work()
    ready = look(filled, made["id"])
    assert (ready["state"], ready["paused"], ready["error"]) == ("ready", False, None)
    assert letters(filled) == []


def test_a_build_that_failed_for_good_is_not_retried(
    service: Service, filled: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = begin(filled)
    during_the_build(monkeypatch, fail(ConfigError("There is no such model.")))
    service.work()
    assert len(letters(filled)) == 1
    assert retry(filled) == {"retried": 0, "superseded": 1}
    assert look(filled, made["id"])["state"] == "failed"
    service.runtime.indexes.builder.look()
    service.work()


def test_a_model_that_is_not_there_any_more_fails_the_build_which_is_dropped(
    service: Service, filled: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = begin(filled)
    during_the_build(monkeypatch, fail(ConfigError("There is no such model.")))
    service.work()
    failed = look(filled, made["id"])
    assert (failed["state"], failed["error"]["code"]) == ("failed", "config_error")
    service.runtime.indexes.builder.look()
    service.work()
    assert look(filled, made["id"])["retired_at"] is not None
    assert faults(service, filled, active(filled)["id"]) == []


def fail(error: Exception) -> Callable[[], object]:
    def failing() -> object:
        raise error

    return failing


# --- switching ----------------------------------------------------------------------------------------


def test_answers_come_from_the_promoted_one_and_both_are_written_while_the_former_soaks(
    service: Service, filled: Team
) -> None:
    former, made = active(filled), built(service, filled)
    promoted = ask(filled, made["id"], "promote")
    assert (promoted["state"], promoted["activated_at"] is not None) == ("active", True)
    assert answering(filled, "anchor bakery") == {made["id"]}
    soaking = look(filled, former["id"])
    assert soaking["state"] == "soaking"
    assert soaking["retire_at"] is not None
    CHANGES["content replaced"](filled, id_of(filled, "d1"))
    service.work()
    assert faults(service, filled, made["id"]) == faults(service, filled, former["id"]) == []
    assert filled.manager.get("/v1/collections/default").json()["index_version"] == made["id"]


def test_a_switch_is_told_to_webhooks_and_audited(
    service: Service, filled: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, str, dict[str, Any]]] = []
    monkeypatch.setattr(outbox, "emit", lambda _, event, team, data: told.append((event, team, dict(data))))
    former, made = active(filled), built(service, filled)
    ask(filled, made["id"], "promote")
    ask(filled, made["id"], "rollback")
    assert [(event, team, data["index_version"], data["former"], data["how"]) for event, team, data in told] == [
        ("index.promoted", filled.id, made["id"], former["id"], "promoted"),
        ("index.promoted", filled.id, former["id"], made["id"], "rolled_back"),
    ]
    log = filled.admin.get("/v1/admin/audit", params={"action": "index_version.*"}).json()["data"]
    assert [entry["action"].partition(".")[2] for entry in log] == ["rolled_back", "promoted", "created"]


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("worked", [True, False], ids=["indexed before", "not yet indexed"])
def test_the_way_back_loses_nothing_that_was_done_since(
    service: Service, filled: Team, name: str, worked: bool
) -> None:
    former, made = active(filled), built(service, filled)
    ask(filled, made["id"], "promote")
    document = id_of(filled, "d1")
    CHANGES[name](filled, document)
    if worked:
        service.work()
    back = ask(filled, made["id"], "rollback")
    assert back["id"] == former["id"]
    service.work()
    assert faults(service, filled, former["id"]) == faults(service, filled, made["id"]) == []
    assert answering(filled, "anchor bakery zeppelins") == {former["id"]}
    ada = {hit["external_id"] for hit in filled.retrieve("zeppelins anchor", filled.client("query"), top_k=100)}
    assert ("new" in ada) == (name == "a new one")
    assert ("d1" in ada) == (name not in ("access narrowed", "deleted"))


def test_the_way_back_restores_two_hundred_answers_exactly(service: Service, filled: Team) -> None:
    asked = questions(200)
    before = answers(filled, asked)
    made = built(service, filled, {**WIDEST, "chunking": {"tokens": 60}})
    ask(filled, made["id"], "promote")
    other = answers(filled, asked[:10])
    ask(filled, made["id"], "rollback")
    assert answers(filled, asked) == before
    assert other != before[:10]


def test_one_can_go_forward_again_after_the_way_back(service: Service, filled: Team) -> None:
    former, made = active(filled), built(service, filled)
    ask(filled, made["id"], "promote")
    ask(filled, made["id"], "rollback")
    assert ask(filled, made["id"], "promote")["state"] == "active"
    assert look(filled, former["id"])["state"] == "soaking"


def test_a_question_can_be_asked_again_of_another_version_once_that_has_every_document(
    service: Service, filled: Team
) -> None:
    query_id = filled.manager.post("/v1/retrieve", json={"query": text_of(0)}).json()["query_id"]
    made = begin(filled)
    asked = {"query": text_of(0), "index_version": made["id"]}
    early = filled.manager.post(f"/v1/queries/{query_id}/replay", json=asked)
    assert (early.status_code, early.json()["code"]) == (409, "index_version_unavailable")
    service.work()
    replayed = filled.manager.post(f"/v1/queries/{query_id}/replay", json=asked)
    assert (replayed.status_code, replayed.json()["index_versions"]) == (200, [made["id"]])


def test_a_text_that_is_read_anew_is_read_anew_in_the_version_to_come_too(
    service: Service, filled: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = built(service, filled)
    parse = service.runtime.indexer.parse
    with monkeypatch.context() as patch:
        newer = "A newer parser's words."
        patch.setitem(service.runtime.indexer.__dict__, "parse", lambda *of: replace(parse(*of), text=newer))
        order = {"scope": {"team": filled.id}, "from_stage": "parse"}
        service.admin.post("/v1/admin/reindex", json=order).raise_for_status()
        service.work()
    service.runtime.indexes.builder.look()
    service.work()
    assert faults(service, filled, made["id"]) == []
    ask(filled, made["id"], "promote")
    assert {hit["text"] for hit in filled.retrieve("words", top_k=100)} == {"A newer parser's words."}


def test_a_document_whose_bytes_are_lost_is_named_and_stops_no_other(service: Service, filled: Team) -> None:
    with service.runtime.database.read() as connection:
        lost = documents.get(connection, filled.id, id_of(filled, "d1"))
    service.runtime.blobs.delete(lost.blob_key.partition("/")[0])
    told = built(service, filled, {"parsing": {"anew": True}})["progress"]
    assert (told["failed"], told["done"], told["behind"]) == (1, DOCUMENTS - 1, 0)
    (why,) = told["failures"]
    assert (why["document_id"], why["code"]) == (lost.id, "bytes_lost")


def test_what_is_not_ready_is_refused_with_the_numbers(filled: Team) -> None:
    made = begin(filled)
    refused = ask(filled, made["id"], "promote", expect=409)
    assert refused["code"] == "not_ready"
    assert refused["numbers"] == {"state": "building", "documents": DOCUMENTS, "behind": DOCUMENTS}


def test_by_force_it_is_brought_up_to_date_first(service: Service, filled: Team) -> None:
    made = begin(filled)
    assert ask(filled, made["id"], "promote", force=True)["state"] == "active"
    assert faults(service, filled, made["id"]) == []
    service.work()
    assert active(filled)["id"] == made["id"]


def test_there_is_no_way_back_where_there_is_no_former_one(filled: Team) -> None:
    assert ask(filled, active(filled)["id"], "rollback", expect=409)["code"] == "nothing_to_go_to"


def test_only_the_active_one_can_be_left(service: Service, filled: Team) -> None:
    made = built(service, filled)
    assert ask(filled, made["id"], "rollback", expect=409)["code"] == "index_version_state"


def test_of_two_who_promote_at_once_one_does(service: Service, filled: Team) -> None:
    made = built(service, filled)
    statuses = []
    together = threading.Barrier(2)

    def promote() -> None:
        client = filled.admin
        together.wait()
        statuses.append(client.post(f"{PATH}/{made['id']}:promote", json={}).status_code)

    threads = [threading.Thread(target=promote) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200, 409]
    assert active(filled)["id"] == made["id"]
    assert [one["state"] for one in filled.admin.get(PATH).json()["data"]] == ["active", "soaking"]


def test_a_question_that_began_before_the_switch_ends_on_what_it_began_with(
    service: Service, filled: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    former, made = active(filled), built(service, filled)
    confirm = Retriever._confirm
    switched: list[object] = []

    def confirming(retriever: Retriever, *arguments: Any) -> Any:
        if not switched:
            switched.append(ask(filled, made["id"], "promote"))
        return confirm(retriever, *arguments)

    monkeypatch.setattr(Retriever, "_confirm", confirming)
    hits = filled.retrieve("anchor bakery", top_k=5)
    assert len(hits) == 5
    assert {hit["provenance"]["index_version"] for hit in hits} == {former["id"]}
    assert answering(filled, "anchor bakery") == {made["id"]}


@pytest.mark.parametrize("broken", [False, True])
def test_a_switch_waits_for_what_is_missing_or_this_would_be_noticed(
    service: Service, filled: Team, monkeypatch: pytest.MonkeyPatch, broken: bool
) -> None:
    made = built(service, filled)
    monkeypatch.setitem(service.runtime.indexer.__dict__, "written", lambda *_: None)
    CHANGES["a new one"](filled, "")
    service.work()
    assert look(filled, made["id"])["progress"]["behind"] == 1
    if broken:
        monkeypatch.setattr(Builder, "catch_up", lambda *_: True)
        monkeypatch.setattr(indexed, "behind", lambda *_: 0)
    ask(filled, made["id"], "promote")
    found = {hit["external_id"] for hit in filled.retrieve("zeppelins")}
    assert ("new" in found) is not broken


# --- the end ------------------------------------------------------------------------------------------


def test_one_that_was_left_is_dropped_when_its_time_is_over(tmp_path: Path) -> None:
    with Started(settings_for(tmp_path, soak_s=0.01), worker=False) as service:
        team = service.new_team()
        team.put(text_of(1), external_id="d1")
        service.work()
        former, made = active(team), built(service, team)
        ask(team, made["id"], "promote")
        service.runtime.indexes.builder.look()
        service.work()
        gone = look(team, former["id"])
        assert (gone["state"], gone["sizes"]["chunks"]) == ("retired", 0)
        assert not (tmp_path / "vectors" / former["id"]).exists()
        assert faults(service, team, made["id"]) == []
        assert ask(team, made["id"], "rollback", expect=409)["code"] == "nothing_to_go_to"
        audited = team.admin.get("/v1/admin/audit", params={"action": "index_version.retired"}).json()["data"]
        assert [entry["target"] for entry in audited] == [former["id"]]


def test_one_that_was_left_and_paused_is_dropped_when_its_time_is_over(tmp_path: Path) -> None:
    with Started(settings_for(tmp_path, soak_s=1.0), worker=False) as service:
        team = service.new_team()
        team.put(text_of(1), external_id="d1")
        service.work()
        former, made = active(team), built(service, team)
        ask(team, made["id"], "promote")
        ask(team, former["id"], "pause")
        service.runtime.indexes.builder.look()
        service.work()
        assert look(team, former["id"])["state"] == "soaking"
        time.sleep(1.0)
        service.runtime.indexes.builder.look()
        service.work()
        assert look(team, former["id"])["state"] == "retired"


def test_a_build_whose_job_was_lost_is_taken_up_again(service: Service, filled: Team) -> None:
    made = begin(filled)
    (job,) = filled.manager.get("/v1/jobs", params={"kind": "build"}).json()["data"]
    filled.manager.post(f"/v1/jobs/{job['id']}/cancel")
    service.work()
    assert look(filled, made["id"])["state"] == "building"
    service.runtime.indexes.builder.look()
    service.work()
    assert look(filled, made["id"])["state"] == "ready"


def test_a_collection_is_deleted_with_all_its_index_versions(service: Service, filled: Team) -> None:
    filled.manager.post("/v1/collections", json={"name": "doomed"}).raise_for_status()
    filled.put(text_of(1), collection="doomed")
    service.work()
    made = built(service, filled, collection="doomed")
    begun = begin(filled, WIDEST, collection="doomed")
    filled.manager.delete("/v1/collections/doomed")
    service.work()
    for index in (made["id"], begun["id"]):
        assert filled.admin.get(f"{PATH}/{index}").status_code == 404
        assert not (service.runtime.settings.data_dir / "vectors" / index).exists()


# --- what is asked ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pipeline", "code", "told"),
    [
        ({"chunking": {"tokens": 500}}, "chunks_too_long", "254"),
        ({"embedding": {"embedder": "http"}}, "pipeline_unusable", "url"),
        (
            {"embedding": {"embedder": "http", "url": "http://127.0.0.1:9/v1", "model": "m"}},
            "pipeline_unusable",
            "answer",
        ),
        ({"embedding": {"embedder": "local", "model": "/nowhere"}}, "pipeline_unusable", "/nowhere"),
        ({"embedding": {"embedder": "http", "url": "http://a:99999/v1"}}, "pipeline_unusable", "cannot work"),
        ({"embedding": {"embedder": "http", "url": "http://\u00f6_\u00d2/v1"}}, "invalid_request", "url"),
        ({"language": "klingon"}, "invalid_request", "language"),
        ({"chunking": {"tokens": 4}}, "invalid_request", "tokens"),
        ({"colour": "red"}, "invalid_request", "colour"),
    ],
)
def test_a_pipeline_that_cannot_work_is_refused_with_what_to_do(
    filled: Team, pipeline: dict[str, Any], code: str, told: str
) -> None:
    answer = filled.admin.post(PATH, json={"pipeline": pipeline})
    assert (answer.status_code, answer.json()["code"]) == (422, code)
    assert told in answer.json()["detail"]


def test_a_plan_says_what_a_build_would_take_and_builds_nothing(service: Service, filled: Team) -> None:
    answer = filled.admin.post(PATH, json={"pipeline": {"chunking": {"tokens": 40}}, "dry_run": True})
    assert answer.status_code == 200
    planned = answer.json()
    assert planned["chunker"] == "structure-1(max=40)"
    assert planned["estimate"]["documents"] == DOCUMENTS
    made = built(service, filled, {"chunking": {"tokens": 40}})
    assert planned["estimate"]["chunks"] == pytest.approx(made["sizes"]["chunks"], rel=0.25)
    assert len(filled.admin.get(PATH).json()["data"]) == 2


def test_it_takes_an_admin_key_of_the_service_and_a_team(service: Service, filled: Team) -> None:
    assert filled.client("admin").get(PATH).status_code == 403
    assert service.admin.get(PATH).json()["code"] == "team_required"
    other = service.new_team()
    assert other.admin.get(f"{PATH}/{active(filled)['id']}").status_code == 404
