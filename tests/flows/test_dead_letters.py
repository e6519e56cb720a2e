"""Work that fails: tried again as its class of error says, given up with a diagnosis, retried or put away."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

import connectors
from connectors.errors import (
    FatalSourceError,
    RetryableSourceError,
    SourceError,
    ThrottledSourceError,
    UnauthorizedSourceError,
)
from rag_service.db import jobs
from rag_service.db.tables import jobs as job_table
from rag_service.embedding.hashing import HashingEmbedder
from rag_service.errors import (
    CredentialsRefused,
    ErrorClass,
    PoisonousDocument,
    QuotaExceeded,
    RagError,
    RetryableError,
)
from rag_service.ingest import backoff
from rag_service.ingest.backoff import MAX_WORKER_DEATHS, POLICIES
from rag_service.parsing.sandbox import ParserSandbox
from rag_service.types import utc_now
from tests.conftest import Service, Started, Team, settings_for
from tests.flows.unsteady_source import PLACE, Unsteady

LETTERS = "/v1/admin/dead-letters"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Started(settings_for(tmp_path_factory.mktemp("letters")), worker=False) as started:
        yield started


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """No wait is over by itself while a test looks, however slow the machine is."""
    longer = {name: replace(policy, first_s=600, longest_s=600) for name, policy in POLICIES.items()}
    monkeypatch.setattr(backoff, "POLICIES", longer)


@pytest.fixture
def embedding_fails(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Call it with an error, and every embedding raises it, until it is called with None."""
    embed = HashingEmbedder.embed

    def fails(error: BaseException | None) -> None:
        def broken(self: HashingEmbedder, *arguments: Any) -> Any:
            if error is not None:
                raise error
            return embed(self, *arguments)

        monkeypatch.setattr(HashingEmbedder, "embed", broken)

    return fails


@pytest.fixture
def unsteady(service: Service, team: Team, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes a source that breaks off before items: number -> errors in order. Returns its id."""
    monkeypatch.setitem(connectors.REGISTRY, "unsteady", PLACE)

    def make(**breaks: list[SourceError]) -> str:
        monkeypatch.setattr(
            Unsteady, "breaks", {int(name.removeprefix("at_")): errors for name, errors in breaks.items()}
        )
        monkeypatch.setattr(Unsteady, "listed", [])
        wanted = {"name": "unsteady", "type": "unsteady", "config": {}, "acl": {"public": True}}
        made = team.admin.post("/v1/sources", json=wanted)
        assert made.status_code == 201, made.text
        return str(made.json()["id"])

    return make


def work_through(service: Service, rounds: int = 60) -> None:
    """Run what is queued, waits and all, until nothing is left."""
    for _ in range(rounds):
        service.work()
        with service.runtime.database.transaction() as transaction:
            waiting = transaction.connection.execute(
                update(job_table).where(job_table.c.state == "queued").values(run_after=utc_now(), rung_at=None)
            ).rowcount
        if not waiting:
            return
    raise AssertionError(f"still waiting after {rounds} rounds")


def letters(team: Team, **narrowing: str) -> list[dict[str, Any]]:
    answer = team.service.admin.get(LETTERS, params={"team": team.id, **narrowing})
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["data"]
    return found


def retry(team: Team, **narrowing: str) -> dict[str, Any]:
    answer = team.service.admin.post(f"{LETTERS}:retry", json={"filter": {"team": team.id, **narrowing}})
    assert answer.status_code == 202, answer.text
    told: dict[str, Any] = answer.json()
    return told


def job(team: Team, job_id: str) -> dict[str, Any]:
    record: dict[str, Any] = team.manager.get(f"/v1/jobs/{job_id}").json()
    return record


# --- classes ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "error_class", "code"),
    [
        (RetryableError(), "transient", "unavailable"),
        (QuotaExceeded(retry_after=1), "quota", "quota_exceeded"),
        (CredentialsRefused(), "auth", "credentials_refused"),
        (PoisonousDocument(), "poison", "crashed"),
        (RagError("No.", code="no"), "permanent", "no"),
        (ZeroDivisionError(), "defect", "internal_error"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_a_job_is_tried_as_its_class_says_and_then_a_letter_tells_all_about_it(
    service: Service, team: Team, embedding_fails: Any, *, error: BaseException, error_class: str, code: str
) -> None:
    embedding_fails(error)
    made = team.put("Some words.")
    work_through(service)
    (letter,) = letters(team)
    tries = next(policy.tries for name, policy in POLICIES.items() if name == error_class)
    assert (letter["job_id"], letter["document_id"], letter["kind"]) == (made["job_id"], made["id"], "index")
    assert (letter["error"]["error_class"], letter["error"]["code"]) == (error_class, code)
    assert letter["error"]["stage"] == "embed"
    assert (letter["attempts"], letter["failures"], letter["worker_deaths"]) == (tries, {error_class: tries}, 0)
    assert len(letter["history"]) == min(tries, 20)
    assert all(entry["worker"] == service.runtime.runner.worker for entry in letter["history"])
    assert [entry["again_at"] is None for entry in letter["history"]] == [False] * (len(letter["history"]) - 1) + [True]
    document = team.document(made["id"])
    assert document["status"] == "failed"
    assert document["error"] == letter["error"]
    assert made["id"] in document["how_to_retry"]


def test_classes_are_counted_apart(service: Service, team: Team, embedding_fails: Any) -> None:
    made = team.put("Words of two kinds of trouble.")
    embedding_fails(PoisonousDocument())
    service.work()
    embedding_fails(RetryableError())
    for _ in range(POLICIES[ErrorClass.TRANSIENT].tries - 1):
        hasten(service)
        service.work()
    waiting = job(team, made["job_id"])
    assert (waiting["state"], waiting["failures"]) == ("queued", {"poison": 1, "transient": 19})
    assert waiting["next_attempt_at"] is not None
    embedding_fails(None)
    work_through(service)
    assert job(team, made["job_id"])["state"] == "succeeded"
    assert letters(team) == []


def test_workers_that_die_are_counted_apart_and_named(service: Service, team: Team) -> None:
    made = team.put("Whoever takes this dies.")
    kill_workers(service, made["job_id"])
    service.runtime.runner.run(made["job_id"])
    (letter,) = letters(team)
    assert (letter["error"]["code"], letter["attempts"]) == ("worker_died", 0)
    assert letter["worker_deaths"] == MAX_WORKER_DEATHS + 1
    assert [entry["worker"] for entry in letter["history"]] == [f"host:{n}" for n in range(MAX_WORKER_DEATHS + 1)]
    assert {entry["error_class"] for entry in letter["history"]} == {"worker"}


def test_a_sync_whose_documents_come_through_is_not_what_its_workers_die_of(
    service: Service, team: Team, tmp_path: Path
) -> None:
    (tmp_path / "one.md").write_text("# One\n\nA document.")
    wanted = {"name": "tree", "type": "files", "config": {"root": str(tmp_path)}}
    source = team.admin.post("/v1/sources", json=wanted).json()
    sync = team.admin.post(f"/v1/sources/{source['id']}/sync", json={}).json()["job_id"]
    child = team.put("One of its documents.")["job_id"]
    with service.runtime.database.transaction() as transaction:
        mine = update(job_table).where(job_table.c.id == child)
        transaction.connection.execute(mine.values(parent_id=sync))
    kill_workers(service, sync)
    service.runtime.runner.run(child)
    service.runtime.runner.run(sync)
    assert job(team, sync)["worker_deaths"] == 0
    assert job(team, sync)["counters"]["scanned"] == 1
    with service.runtime.database.transaction() as transaction:
        again = {"state": "queued", "listed": False, "finished_at": None}
        transaction.connection.execute(update(job_table).where(job_table.c.id == sync).values(**again))
    kill_workers(service, sync)
    service.runtime.runner.run(sync)
    assert job(team, sync)["error"]["code"] == "worker_died"


def kill_workers(service: Service, job_id: str) -> None:
    """One more than a job may have."""
    for number in range(MAX_WORKER_DEATHS + 1):
        with service.runtime.database.transaction() as transaction:
            held = jobs.claim(transaction.connection, job_id, -1, f"host:{number}")
        assert held is not None


def hasten(service: Service) -> None:
    with service.runtime.database.transaction() as transaction:
        transaction.connection.execute(
            update(job_table).where(job_table.c.state == "queued").values(run_after=utc_now(), rung_at=None)
        )


def test_a_job_waits_as_long_as_it_was_told_to(service: Service, team: Team, embedding_fails: Any) -> None:
    embedding_fails(QuotaExceeded(retry_after=3_600))
    made = team.put("Patience.")
    before = utc_now()
    service.work()
    with service.runtime.database.read() as connection:
        waits = (jobs.get(connection, team.id, made["job_id"]).run_after - before).total_seconds()
    assert 3_600 <= waits <= 3_600 * 1.25 + 60
    embedding_fails(None)
    work_through(service)


def test_a_process_going_down_is_not_held_against_a_job(
    service: Service, team: Team, embedding_fails: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = team.put("Interrupted.")

    def stop(self: ParserSandbox, *_: Any) -> Any:
        service.runtime.runner.stopping.set()
        raise RetryableError(code="stopping")

    with monkeypatch.context() as patch:
        patch.setattr(HashingEmbedder, "embed", stop)
        service.runtime.runner.run(made["job_id"])
    service.runtime.runner.stopping.clear()
    waiting = job(team, made["job_id"])
    assert (waiting["state"], waiting["attempts"], waiting["worker_deaths"]) == ("queued", 0, 0)
    service.work()
    assert job(team, made["job_id"])["state"] == "succeeded"


# --- letters ----------------------------------------------------------------------------------


def test_a_retried_job_succeeds_and_remembers_what_it_had_given_up_with(
    service: Service, team: Team, embedding_fails: Any
) -> None:
    embedding_fails(CredentialsRefused("The key is refused."))
    made = [team.put(f"Document {n}.", external_id=str(n)) for n in range(3)]
    work_through(service)
    assert len(letters(team, error_class="auth")) == 3
    embedding_fails(None)
    assert retry(team, error_class="auth") == {"retried": 3, "superseded": 0}
    assert {team.document(one["id"])["status"] for one in made} == {"accepted"}
    work_through(service)
    assert letters(team) == []
    for one in made:
        record = job(team, one["job_id"])
        assert (record["state"], record["attempts"], record["error"]) == ("succeeded", 0, None)
        (life,) = record["retried"]
        assert (life["was"]["code"], life["attempts"]) == ("credentials_refused", 2)
        assert "The key is refused." in life["was"]["message"]
        assert team.document(one["id"])["how_to_retry"] is None
    assert retry(team) == {"retried": 0, "superseded": 0}


def test_a_job_that_gives_up_again_is_a_letter_again_with_both_diagnoses(
    service: Service, team: Team, embedding_fails: Any
) -> None:
    embedding_fails(RagError(code="first"))
    made = team.put("Twice unlucky.")
    service.work()
    embedding_fails(RagError(code="second"))
    answer = service.admin.post(f"{LETTERS}:retry", json={"ids": [made["job_id"]]})
    assert answer.json() == {"retried": 1, "superseded": 0}
    service.work()
    (letter,) = letters(team)
    assert (letter["error"]["code"], letter["retried"][0]["was"]["code"]) == ("second", "first")
    assert [entry["code"] for entry in letter["history"]] == ["first", "second"]


def test_letters_are_narrowed_and_paged(service: Service, team: Team, other_team: Team, embedding_fails: Any) -> None:
    embedding_fails(RagError(code="one"))
    first = [team.put(f"First {n}.", external_id=str(n)) for n in range(3)]
    service.work()
    embedding_fails(PoisonousDocument())
    second = team.put("Second.")
    other_team.put("Elsewhere.")
    work_through(service)
    assert [letter["job_id"] for letter in letters(team, code="one")] == [one["job_id"] for one in first[::-1]]
    assert [letter["job_id"] for letter in letters(team, error_class="poison")] == [second["job_id"]]
    assert [letter["job_id"] for letter in letters(team, document=second["id"])] == [second["job_id"]]
    assert letters(team, kind="sync") == []
    assert len(letters(other_team)) == 1
    page = service.admin.get(LETTERS, params={"team": team.id, "limit": 3}).json()
    rest = service.admin.get(LETTERS, params={"team": team.id, "limit": 3, "after": page["next_cursor"]}).json()
    assert (len(page["data"]), page["has_more"], len(rest["data"]), rest["has_more"]) == (3, True, 1, False)


def test_a_team_or_source_that_is_none_is_told_instead_of_an_empty_list(
    service: Service, team: Team, other_team: Team, unsteady: Any
) -> None:
    source = unsteady()
    assert letters(team, source=source) == []
    for wrong in ({"team": "nope"}, {"source": "unsteady"}, {"team": other_team.id, "source": source}):
        assert service.admin.get(LETTERS, params=wrong).status_code == 404, wrong
        for what in ("retry", "discard"):
            answer = service.admin.post(f"{LETTERS}:{what}", json={"filter": wrong})
            assert answer.status_code == 404, answer.text
            assert "There is no such" in answer.json()["detail"]


def test_discarded_letters_are_gone_and_their_documents_stay_failed(
    service: Service, team: Team, embedding_fails: Any
) -> None:
    embedding_fails(RagError(code="no"))
    made = team.put("Nobody wants this.")
    service.work()
    body = {"filter": {"team": team.id, "code": "no"}}
    assert service.admin.post(f"{LETTERS}:discard", json=body).json() == {"discarded": 1}
    assert service.admin.post(f"{LETTERS}:discard", json=body).json() == {"discarded": 0}
    assert letters(team) == []
    assert retry(team) == {"retried": 0, "superseded": 0}
    assert team.document(made["id"])["error"]["code"] == "no"
    assert job(team, made["job_id"])["error"]["code"] == "no"


def test_newer_work_and_deletion_take_letters_away(service: Service, team: Team, embedding_fails: Any) -> None:
    embedding_fails(RagError(code="no"))
    made = [team.put(f"Version one of {name}.", external_id=name) for name in ("again", "changed", "deleted")]
    service.work()
    assert len(letters(team)) == 3
    embedding_fails(None)
    team.put("Version one of again.", external_id="again")
    team.put("Version two.", external_id="changed")
    assert team.manager.delete(f"/v1/documents/{made[2]['id']}").status_code == 202
    assert letters(team) == []
    service.work()
    assert [team.document(one["id"])["status"] for one in made] == ["ready", "ready", "deleted"]


def test_retrying_what_has_moved_on_does_nothing(service: Service, team: Team, embedding_fails: Any) -> None:
    embedding_fails(RagError(code="no"))
    made = team.put("Version one.", external_id="x")
    service.work()
    embedding_fails(None)
    team.put("Version two.", external_id="x")
    service.work()
    with service.runtime.database.transaction() as transaction:
        # As if both had happened at the same time.
        transaction.connection.execute(
            update(job_table).where(job_table.c.id == made["job_id"]).values(letter=jobs.OPEN_LETTER)
        )
    assert retry(team) == {"retried": 0, "superseded": 1}
    assert letters(team) == []
    assert team.document(made["id"])["status"] == "ready"


def test_letters_survive_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise RagError("Out of order.", code="out_of_order")

    with monkeypatch.context() as patch, Started(settings_for(tmp_path), worker=False) as service:
        patch.setattr(HashingEmbedder, "embed", broken)
        team = service.new_team()
        made = team.put("Kept.")
        service.work()
        before = letters(team)
    with Started(settings_for(tmp_path), worker=False) as again:
        team = Team(again, team.id)
        assert letters(team) == before != []
        assert retry(team)["retried"] == 1
    with Started(settings_for(tmp_path), worker=False) as third:
        team = Team(third, team.id)
        third.work()
        assert team.document(made["id"])["status"] == "ready"
        assert job(team, made["job_id"])["retried"][0]["was"]["code"] == "out_of_order"


def test_an_admin_key_that_names_its_team_reaches_no_letter_of_another(
    service: Service, team: Team, other_team: Team, embedding_fails: Any
) -> None:
    embedding_fails(RagError(code="no"))
    mine, theirs = team.put("Mine.")["job_id"], other_team.put("Theirs.")["job_id"]
    service.work()
    assert [letter["job_id"] for letter in team.admin.get(LETTERS).json()["data"]] == [mine]
    assert team.admin.get(LETTERS, params={"team": other_team.id}).status_code == 422
    for action, done in (("retry", "retried"), ("discard", "discarded")):
        said = {"filter": {"team": other_team.id}}
        assert team.admin.post(f"{LETTERS}:{action}", json=said).status_code == 422
        assert team.admin.post(f"{LETTERS}:{action}", json={"ids": [theirs]}).json()[done] == 0
    assert team.admin.post(f"{LETTERS}:discard", json={"filter": {}}).json() == {"discarded": 1}
    assert [letter["job_id"] for letter in letters(other_team)] == [theirs]


@pytest.mark.parametrize("body", [{}, {"ids": []}, {"ids": ["a"], "filter": {}}, {"filter": {"colour": "red"}}])
def test_it_must_be_clear_which_letters_are_meant(service: Service, body: dict[str, Any]) -> None:
    for action in ("retry", "discard"):
        assert service.admin.post(f"{LETTERS}:{action}", json=body).status_code == 422


def test_letters_are_for_administrators_only(service: Service, team: Team) -> None:
    for client in (team.manager, team.client("admin"), team.client("query")):
        assert client.get(LETTERS).status_code == 403
        assert client.post(f"{LETTERS}:retry", json={"filter": {}}).status_code == 403
        assert client.post(f"{LETTERS}:discard", json={"filter": {}}).status_code == 403


# --- syncs ------------------------------------------------------------------------------------


def start(team: Team, source_id: str) -> str:
    return str(team.manager.post(f"/v1/sources/{source_id}/sync", json={}).json()["job_id"])


def last_error(team: Team, source_id: str) -> dict[str, Any] | None:
    told: dict[str, Any] | None = team.manager.get(f"/v1/sources/{source_id}").json()["last_error"]
    return told


def test_a_sync_that_breaks_off_goes_on_at_its_last_checkpoint_and_removes_nothing(
    service: Service, team: Team, unsteady: Any
) -> None:
    source_id = unsteady(at_25=[RetryableSourceError("The source sleeps.", code="asleep")])
    job_id = start(team, source_id)
    service.work()
    waiting = job(team, job_id)
    assert (waiting["state"], waiting["failures"]) == ("queued", {"transient": 1})
    assert (last_error(team, source_id) or {})["code"] == "asleep"
    assert Unsteady.listed == list(range(25))
    assert len(team.retrieve("item24 says", top_k=100)) == 20, "what came before the break is searchable meanwhile"
    work_through(service)
    assert Unsteady.listed == [*range(25), *range(20, 30)]
    ended = job(team, job_id)
    assert (ended["state"], ended["counters"]["new"], ended["counters"]["deleted"]) == ("succeeded", 30, 0)
    assert last_error(team, source_id) is None


def test_a_sync_that_gets_on_is_forgiven_what_came_before(service: Service, team: Team, unsteady: Any) -> None:
    often = POLICIES[ErrorClass.TRANSIENT].tries - 1
    source_id = unsteady(at_5=[RetryableSourceError()] * often, at_15=[RetryableSourceError()] * often)
    job_id = start(team, source_id)
    work_through(service)
    assert job(team, job_id)["state"] == "succeeded"


def test_a_source_that_always_breaks_off_at_the_same_item_ends_as_a_letter(
    service: Service, team: Team, unsteady: Any
) -> None:
    tries = POLICIES[ErrorClass.TRANSIENT].tries
    source_id = unsteady(at_15=[RetryableSourceError(code="asleep")] * 100)
    job_id = start(team, source_id)
    work_through(service)
    (letter,) = letters(team, kind="sync")
    assert (letter["job_id"], letter["source_id"], letter["failures"]) == (job_id, source_id, {"transient": tries})
    assert team.manager.get(f"/v1/sources/{source_id}").json()["documents"] == {"ready": 10}
    Unsteady.breaks.clear()
    assert retry(team) == {"retried": 1, "superseded": 0}
    work_through(service)
    assert job(team, job_id)["state"] == "succeeded"
    assert team.manager.get(f"/v1/sources/{source_id}").json()["documents"] == {"ready": 30}


@pytest.mark.parametrize(
    ("error", "error_class", "tries"),
    [
        (FatalSourceError(code="wrong_folder"), "permanent", 1),
        (UnauthorizedSourceError(), "auth", 2),
        (ThrottledSourceError(retry_after=600), "quota", 40),
    ],
    ids=["fatal", "unauthorized", "throttled"],
)
def test_the_error_of_a_source_decides_how_often_it_is_asked(
    service: Service, team: Team, unsteady: Any, *, error: SourceError, error_class: str, tries: int
) -> None:
    source_id = unsteady(at_3=[error] * 100)
    start(team, source_id)
    work_through(service)
    (letter,) = letters(team)
    assert (letter["error"]["error_class"], letter["attempts"]) == (error_class, tries)
    assert (last_error(team, source_id) or {})["error_class"] == error_class


def test_a_new_sync_and_the_end_of_a_source_take_its_letter_away(service: Service, team: Team, unsteady: Any) -> None:
    source_id = unsteady(at_3=[FatalSourceError()] * 2)
    for _ in range(2):
        start(team, source_id)
        work_through(service)
        assert len(letters(team)) == 1
    team.manager.delete(f"/v1/sources/{source_id}")
    assert letters(team) == []
    work_through(service)
