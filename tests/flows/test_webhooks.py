"""Webhooks through HTTP, with a real receiver."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, update

from rag_service.db import audit, deliveries
from rag_service.db.outbox import emit
from rag_service.db.outside import deliveries as rows
from rag_service.db.outside import outbox
from rag_service.db.outside import webhooks as webhook_rows
from rag_service.errors import RetryableError
from rag_service.types import EventType, utc_now
from rag_service.webhooks.signing import SignatureError, verify
from tests.conftest import Service, Started, Team, settings_for
from tests.receiver import Message, Receiver, receiving
from tests.waiting import until

EVERYTHING = [event.value for event in EventType]


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that may tell this machine, its worker running."""
    with Started(settings_for(tmp_path_factory.mktemp("own"), webhook_private_addresses=True)) as started:
        yield started


@pytest.fixture
def team(own: Service) -> Team:
    return own.new_team()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


def hook(team: Team, receiver: Receiver, *events: str, **more: Any) -> dict[str, Any]:
    made = team.manager.post("/v1/webhooks", json={"url": receiver.url(), "events": events or EVERYTHING, **more})
    assert made.status_code == 201, made.text
    webhook: dict[str, Any] = made.json()
    return webhook


def told(team: Team, webhook: dict[str, Any], **narrowing: str) -> list[dict[str, Any]]:
    answer = team.manager.get(f"/v1/webhooks/{webhook['id']}/deliveries", params=narrowing)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["data"]
    return found


def tries(team: Team, webhook: dict[str, Any]) -> list[int]:
    """Of each delivery, how often it was tried."""
    return [one["attempts"] for one in told(team, webhook)]


def shown(team: Team, webhook: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = team.manager.get(f"/v1/webhooks/{webhook['id']}").json()
    return found


def make_due(team: Team) -> None:
    """As if the time had come for whatever waits."""
    with team.service.runtime.database.transaction() as transaction:
        waiting = update(rows).where(rows.c.state == "waiting", rows.c.next_at > utc_now())
        transaction.connection.execute(waiting.values(next_at=utc_now()))
        transaction.connection.execute(update(webhook_rows).values(resume_at=None))


# --- what is told ---------------------------------------------------------------------------


def test_a_document_is_told_of_when_it_answers_and_when_it_is_gone(team: Team, receiver: Receiver) -> None:
    webhook = hook(team, receiver, "document.ready", "document.deleted")
    made = team.put("Turnips grow in rows.", external_id="turnips.md", title="A secret title", metadata={"k": "secret"})
    (ready,) = receiver.wait_for(1)
    assert team.retrieve("turnips")[0]["document_id"] == made["id"]
    assert verify(webhook["secret"], ready.headers, ready.body, now=time.time()) == ready.id
    event = ready.event
    assert event["type"] == "document.ready"
    assert event["team_id"] == team.id
    assert event["data"] | {"collection_id": "", "source_id": ""} == {
        "document_id": made["id"],
        "external_id": "turnips.md",
        "collection_id": "",
        "source_id": "",
        "version": 1,
        "chunks": 1,
    }
    team.manager.delete(f"/v1/documents/{made['id']}")
    gone = receiver.wait_for(2)[1].event
    assert (gone["type"], gone["data"]["document_id"]) == ("document.deleted", made["id"])
    assert not any(b"ecret" in message.body or b"Turnips grow" in message.body for message in receiver.messages)


def test_a_document_that_fails_is_told_of_with_its_code_and_without_words(team: Team, receiver: Receiver) -> None:
    hook(team, receiver, "document.failed")
    files = {"file": ("a.pdf", b"%PDF-1.7 and nothing of use", "application/pdf")}
    made = team.manager.post("/v1/documents", files=files)
    assert made.status_code == 202, made.text
    (failed,) = receiver.wait_for(1)
    assert failed.event["data"]["document_id"] == made.json()["id"]
    error = failed.event["data"]["error"]
    assert (error["stage"], error["error_class"], error["retryable"]) == ("parse", "permanent", False)
    assert "message" not in error


def source_of(team: Team, folder: Path, files: int, **more: Any) -> str:
    folder.mkdir(exist_ok=True)
    for number in range(files):
        (folder / f"{number}.md").write_text(f"Page {number}.")
    body = {"name": "pages", "type": "files", "config": {"root": str(folder)}, **more}
    made = team.admin.post("/v1/sources", json=body)
    assert made.status_code == 201, made.text
    return str(made.json()["id"])


def sync(team: Team, source: str, **body: Any) -> str:
    return str(team.manager.post(f"/v1/sources/{source}/sync", json=body).json()["job_id"])


def test_a_sync_is_told_of_when_its_last_document_is_through(team: Team, receiver: Receiver, tmp_path: Path) -> None:
    hook(team, receiver)
    source = source_of(team, tmp_path / "docs", 5)
    job = sync(team, source)
    (finished,) = receiver.wait_for(1, "sync.finished")
    data = finished.event["data"]
    assert (data["source_id"], data["source"], data["job_id"]) == (source, "pages", job)
    assert (data["state"], data["counters"]["new"]) == ("succeeded", 5)
    assert len(receiver.of("document.ready")) == 5 or receiver.wait_for(5, "document.ready")


def test_deletions_that_are_held_are_told_of_once_and_told_as_deletions_when_confirmed(
    team: Team, receiver: Receiver, tmp_path: Path
) -> None:
    hook(team, receiver, "deletion.held", "document.deleted", "sync.finished")
    source = source_of(team, tmp_path / "docs", 4)
    sync(team, source)
    receiver.wait_for(1, "sync.finished")
    for number in range(3):
        (tmp_path / "docs" / f"{number}.md").unlink()
    for count in (2, 3):
        sync(team, source)
        receiver.wait_for(count, "sync.finished")
    (held,) = receiver.wait_for(1, "deletion.held")
    assert {name: held.event["data"][name] for name in ("source_id", "source", "held", "documents", "max_percent")} == {
        "source_id": source,
        "source": "pages",
        "held": 3,
        "documents": 4,
        "max_percent": 20.0,
    }
    sync(team, source, confirm_deletions=True)
    gone = receiver.wait_for(3, "document.deleted")
    assert {message.event["data"]["external_id"] for message in gone} == {"0.md", "1.md", "2.md"}
    assert len(receiver.of("deletion.held")) == 1


def test_a_source_that_cannot_be_read_is_told_of(team: Team, receiver: Receiver, tmp_path: Path) -> None:
    hook(team, receiver, "source.degraded", "sync.finished")
    source = source_of(team, tmp_path / "docs", 1)
    (tmp_path / "docs").rename(tmp_path / "elsewhere")
    job = sync(team, source)
    (degraded,) = receiver.wait_for(1, "source.degraded")
    data = degraded.event["data"]
    assert (data["source_id"], data["source"], data["job_id"], data["gave_up"]) == (source, "pages", job, True)
    assert data["error"]["code"]
    (finished,) = receiver.wait_for(1, "sync.finished")
    assert finished.event["data"]["state"] == "failed"


def test_a_cancelled_sync_is_told_of_as_such(tmp_path: Path, receiver: Receiver) -> None:
    with Started(settings_for(tmp_path / "d", webhook_private_addresses=True), worker=False) as service:
        team = service.new_team()
        hook(team, receiver, "sync.finished")
        source = source_of(team, tmp_path / "docs", 1)
        job = sync(team, source)
        assert team.manager.post(f"/v1/jobs/{job}/cancel").json()["state"] == "canceled"
        team.manager.post(f"/v1/jobs/{job}/cancel")
        service.work()
    assert [message.event["data"]["state"] for message in receiver.messages] == ["canceled"]


def test_what_goes_with_its_source_or_collection_is_told_of(team: Team, receiver: Receiver, tmp_path: Path) -> None:
    hook(team, receiver, "document.deleted")
    source = source_of(team, tmp_path / "docs", 2)
    sync(team, source)
    team.drain()
    team.manager.delete(f"/v1/sources/{source}")
    receiver.wait_for(2)
    team.manager.post("/v1/collections", json={"name": "others"})
    team.put("Something.", collection="others")
    team.drain()
    team.manager.delete("/v1/collections/others")
    assert receiver.wait_for(3)[2].event["data"]["source_id"] is None


def test_what_nobody_wants_to_know_leaves_no_row(team: Team, receiver: Receiver) -> None:
    hook(team, receiver, "probe.failed")
    team.put("Something.")
    team.drain()
    with team.service.runtime.database.read() as connection:
        assert connection.execute(select(func.count()).where(outbox.c.team_id == team.id)).scalar_one() == 0


def test_events_of_others_go_through_the_same_door(team: Team, receiver: Receiver) -> None:
    hook(team, receiver, "index.promoted")
    with team.service.runtime.database.transaction() as transaction:
        emit(transaction, "index.promoted", team.id, {"index_version": "idx_1"})
        emit(transaction, EventType.PROBE_FAILED, team.id, {"probe": "nobody wants this"})
    (promoted,) = receiver.wait_for(1)
    assert promoted.event["data"] == {"index_version": "idx_1"}
    with (
        pytest.raises(ValueError, match="not a valid EventType"),
        team.service.runtime.database.transaction() as transaction,
    ):
        emit(transaction, "index.promotd", team.id, {})


def test_nothing_is_told_of_what_was_rolled_back(team: Team, receiver: Receiver) -> None:
    hook(team, receiver)
    with pytest.raises(RetryableError), team.service.runtime.database.transaction() as transaction:
        emit(transaction, "index.promoted", team.id, {})
        raise RetryableError
    team.put("After it.")
    assert [message.event["type"] for message in receiver.wait_for(1)] == ["document.ready"]


def test_what_is_too_large_is_left_out_and_said_to_be(team: Team, receiver: Receiver) -> None:
    hook(team, receiver, "probe.failed")
    with team.service.runtime.database.transaction() as transaction:
        emit(transaction, "probe.failed", team.id, {"numbers": list(range(20_000))})
    (message,) = receiver.wait_for(1)
    assert message.event["data"] == {"too_large": True}


# --- until it has arrived -------------------------------------------------------------------


def test_what_is_refused_is_told_again_with_the_same_id_and_body(team: Team, receiver: Receiver) -> None:
    receiver.answer = lambda _: 503 if len(receiver.messages) < 3 else 204
    webhook = hook(team, receiver, "document.ready")
    team.put("Something.")
    for count in (1, 2):
        receiver.wait_for(count)
        until(lambda: tries(team, webhook) == [count])  # noqa: B023 - called at once
        make_due(team)
    messages = receiver.wait_for(3)
    until(lambda: told(team, webhook, state="delivered"))
    assert len({(message.id, message.body) for message in messages}) == 1
    for message in messages:
        verify(webhook["secret"], message.headers, message.body, now=time.time())
    (delivery,) = told(team, webhook)
    assert [(one["status"], one["reason"]) for one in delivery["history"]] == [
        (503, "refused"),
        (503, "refused"),
        (204, "delivered"),
    ]
    assert (delivery["attempts"], delivery["next_at"], delivery["event_id"]) == (3, None, messages[0].id)
    assert shown(team, webhook)["failing_since"] is None


def test_the_waits_grow_from_seconds_to_hours_and_end_after_a_day(team: Team, receiver: Receiver) -> None:
    receiver.answer = lambda _: 500
    webhook = hook(team, receiver, "document.ready")
    team.put("Something.")
    waits = []
    for count in range(1, 9):
        until(lambda: tries(team, webhook) == [count])  # noqa: B023 - called at once
        (delivery,) = told(team, webhook)
        if delivery["next_at"] is not None:
            last = datetime.fromisoformat(delivery["history"][-1]["at"])
            waits.append((datetime.fromisoformat(delivery["next_at"]) - last).total_seconds())
        make_due(team)
    (delivery,) = told(team, webhook, state="failed")
    assert (delivery["attempts"], delivery["next_at"]) == (8, None)
    assert 24 * 3600 < sum(waits) < 30 * 3600
    assert waits[0] < 6
    for wait, expected in zip(waits, (5, 300, 1_800, 7_200, 18_000, 36_000, 28_800), strict=True):
        assert expected <= wait <= expected * 1.1 + 1
    assert len(receiver.messages) == 8


def test_a_receiver_that_asks_to_wait_is_waited_for(team: Team, receiver: Receiver) -> None:
    receiver.answer = lambda _: (429, {"Retry-After": "7200"})
    webhook = hook(team, receiver, "document.ready")
    team.put("Something.")
    until(lambda: tries(team, webhook) == [1])
    later = datetime.fromisoformat(told(team, webhook)[0]["next_at"]) - datetime.now(UTC)
    assert timedelta(seconds=7_100) < later <= timedelta(seconds=7_200)


def test_a_receiver_that_accepts_nothing_is_asked_one_thing_at_a_time(team: Team, receiver: Receiver) -> None:
    receiver.answer = lambda _: 500
    webhook = hook(team, receiver, "document.ready")
    team.put("The first.")
    until(lambda: shown(team, webhook)["failing_since"])
    for number in range(10):
        team.put(f"Another {number}.")
    team.drain()
    before = len(receiver.messages)
    make_due(team)
    team.service.runtime.courier.sweep()
    until(lambda: len(receiver.messages) > before)
    team.drain()
    assert len(receiver.messages) == before + 1
    receiver.answer = lambda _: 204
    make_due(team)
    until(lambda: len(told(team, webhook, state="delivered")) == 11)
    assert len({message.id for message in receiver.messages}) == 11


def failing_for(team: Team, webhook: dict[str, Any], hours: float) -> None:
    with team.service.runtime.database.transaction() as transaction:
        since = utc_now() - timedelta(hours=hours)
        mine = webhook_rows.c.id == webhook["id"]
        transaction.connection.execute(update(webhook_rows).where(mine).values(failing_since=since, resume_at=None))


def test_one_that_fails_for_a_day_is_disabled_with_the_reason_and_can_be_enabled_again(
    team: Team, receiver: Receiver
) -> None:
    receiver.answer = lambda _: 500
    webhook = hook(team, receiver, "document.ready")
    failing_for(team, webhook, 23.9)
    team.put("Almost a day.")
    until(lambda: tries(team, webhook) == [1])
    assert shown(team, webhook)["enabled"]
    failing_for(team, webhook, 24.1)
    make_due(team)
    until(lambda: not shown(team, webhook)["enabled"])
    assert shown(team, webhook)["disabled_reason"] == "failing"
    with team.service.runtime.database.read() as connection:
        narrowing = audit.AuditFilter(team_id=team.id, action="webhook.disabled")
        (entry,) = audit.in_order(connection, narrowing)
    assert (entry.target, entry.detail) == (webhook["id"], {"reason": "failing"})
    team.put("While it is disabled.")
    team.drain()
    before, receiver.answer = len(receiver.messages), lambda _: 204
    make_due(team)
    team.service.runtime.courier.sweep()
    team.drain()
    assert len(receiver.messages) == before
    enabled = team.manager.patch(f"/v1/webhooks/{webhook['id']}", json={"enabled": True}).json()
    assert (enabled["enabled"], enabled["disabled_reason"], enabled["failing_since"]) == (True, None, None)
    until(lambda: len(told(team, webhook, state="delivered")) == 1)
    since = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    recovered = team.manager.post(f"/v1/webhooks/{webhook['id']}:recover", json={"since": since})
    assert recovered.json() == {"queued": 1}
    until(lambda: len(told(team, webhook, state="delivered")) == 2)


def test_one_that_says_it_is_gone_is_disabled_at_once(team: Team, receiver: Receiver) -> None:
    receiver.answer = lambda _: 410
    webhook = hook(team, receiver, "document.ready")
    team.put("Something.")
    until(lambda: shown(team, webhook)["disabled_reason"] == "gone")
    assert len(receiver.messages) == 1


# --- again ----------------------------------------------------------------------------------


def test_what_it_has_not_accepted_is_replayed_and_the_rest_on_request(team: Team, receiver: Receiver) -> None:
    webhook = hook(team, receiver, "document.ready")
    for number in range(3):
        team.put(f"Text {number}.")
    until(lambda: len(told(team, webhook, state="delivered")) == 3)
    path, since = f"/v1/webhooks/{webhook['id']}:recover", "2026-01-01T00:00:00Z"
    assert team.manager.post(path, json={"since": since}).json() == {"queued": 0}
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    assert team.manager.post(path, json={"since": later, "delivered": True}).json() == {"queued": 0}
    answer = team.manager.post(path, json={"since": since, "delivered": True})
    assert (answer.status_code, answer.json()) == (202, {"queued": 3})
    messages = receiver.wait_for(6)
    assert {message.id for message in messages[:3]} == {message.id for message in messages[3:]}
    assert {message.body for message in messages[:3]} == {message.body for message in messages[3:]}


def test_a_webhook_is_not_told_what_it_did_not_ask_for_by_a_replay(team: Team, receiver: Receiver) -> None:
    hook(team, receiver, "document.ready")
    team.put("Something.")
    receiver.wait_for(1)
    with receiving() as another:
        other = hook(team, another, "document.deleted")
        path = f"/v1/webhooks/{other['id']}:recover"
        assert team.manager.post(path, json={"since": "2026-01-01T00:00:00Z"}).json() == {"queued": 0}
        late = hook(team, another, "document.ready")
        path = f"/v1/webhooks/{late['id']}:recover"
        assert team.manager.post(path, json={"since": "2026-01-01T00:00:00Z"}).json() == {"queued": 1}
        assert another.wait_for(1)[0].id == receiver.messages[0].id


def test_one_that_is_disabled_has_to_be_enabled_before_it_is_told_again(team: Team, receiver: Receiver) -> None:
    webhook = hook(team, receiver, "document.ready")
    path = f"/v1/webhooks/{webhook['id']}"
    assert team.manager.patch(path, json={"enabled": False}).json()["disabled_reason"] == "manual"
    answer = team.manager.post(f"{path}:recover", json={"since": "2026-01-01T00:00:00Z"})
    assert (answer.status_code, answer.json()["code"]) == (409, "webhook_disabled")


def test_old_events_are_forgotten_with_their_deliveries(team: Team, receiver: Receiver) -> None:
    webhook = hook(team, receiver, "document.ready")
    team.put("Something.")
    until(lambda: told(team, webhook, state="delivered"))
    with team.service.runtime.database.transaction() as transaction:
        deliveries.forget(transaction.connection, utc_now() - timedelta(hours=1))
    assert len(told(team, webhook)) == 1
    with team.service.runtime.database.transaction() as transaction:
        deliveries.forget(transaction.connection, utc_now())
    assert told(team, webhook) == []


# --- secrets, teams, addresses --------------------------------------------------------------


def test_the_secret_is_shown_once_and_kept_encrypted(team: Team, receiver: Receiver) -> None:
    webhook = hook(team, receiver, "document.ready")
    secret = webhook.pop("secret")
    listed = team.manager.get("/v1/webhooks").json()["data"]
    assert listed == [webhook] == [shown(team, webhook)]
    with team.service.runtime.database.read() as connection:
        stored = json.dumps([list(row) for row in connection.execute(select(webhook_rows))], default=str)
    assert secret not in stored
    assert secret.removeprefix("whsec_") not in stored
    assert "ciphertext" in stored


def test_a_secret_is_replaced_without_a_gap(team: Team, receiver: Receiver) -> None:
    webhook = hook(team, receiver, "document.ready")
    path = f"/v1/webhooks/{webhook['id']}:rotate"
    second = team.manager.post(path).json()["secret"]
    team.put("While both are valid.")
    (message,) = receiver.wait_for(1)
    for secret in (webhook["secret"], second):
        verify(secret, message.headers, message.body, now=time.time())
    third = team.manager.post(path, json={"overlap_s": 0}).json()["secret"]
    team.put("When one is.")
    message = receiver.wait_for(2)[1]
    verify(third, message.headers, message.body, now=time.time())
    for secret in (webhook["secret"], second):
        with pytest.raises(SignatureError):
            verify(secret, message.headers, message.body, now=time.time())


def test_a_test_says_how_it_was_answered_and_is_kept_nowhere(team: Team, receiver: Receiver) -> None:
    webhook = hook(team, receiver, "document.ready")
    path = f"/v1/webhooks/{webhook['id']}:test"
    tried = team.manager.post(path).json()
    assert (tried["delivered"], tried["status"], tried["reason"]) == (True, 204, "delivered")
    (message,) = receiver.messages
    verify(webhook["secret"], message.headers, message.body, now=time.time())
    assert message.event["type"] == "webhook.test"
    receiver.answer = lambda _: (302, {"Location": "http://127.0.0.1/elsewhere"})
    tried = team.manager.post(path).json()
    assert (tried["delivered"], tried["status"], tried["reason"]) == (False, 302, "redirected")
    assert told(team, webhook) == []
    assert shown(team, webhook)["failing_since"] is None


def test_a_team_is_told_of_its_own_and_only_all_team_webhooks_of_all(own: Service, receiver: Receiver) -> None:
    mine, other = own.new_team(), own.new_team()
    hook(mine, receiver, "document.ready")
    with receiving() as everywhere:
        body = {"url": everywhere.url(), "events": ["document.ready"], "all_teams": True}
        assert mine.manager.post("/v1/webhooks", json=body).status_code == 403
        assert mine.client("admin").post("/v1/webhooks", json=body).status_code == 403
        made = own.admin.post("/v1/webhooks", json=body)
        assert (made.status_code, made.json()["all_teams"]) == (201, True)
        path = f"/v1/webhooks/{made.json()['id']}"
        try:
            other.put("Theirs.")
            mine.put("Mine.")
            messages = everywhere.wait_for(2)
            assert {message.event["team_id"] for message in messages} == {mine.id, other.id}
            assert [message.event["team_id"] for message in receiver.wait_for(1)] == [mine.id]
            for client in (mine.manager, other.client("admin")):
                assert client.get(path).status_code == client.delete(path).status_code == 404
                assert client.get(f"{path}/deliveries").status_code == 404
                assert client.get("/v1/webhooks", params={"all_teams": True}).status_code == 403
            assert [one["id"] for one in own.admin.get("/v1/webhooks?all_teams=true").json()["data"]] == [path[13:]]
            assert own.admin.get("/v1/webhooks").json()["code"] == "team_required"
            # Whoever names a team sees the team's, and by their ids those of all.
            assert [one["all_teams"] for one in mine.admin.get("/v1/webhooks").json()["data"]] == [False]
            assert mine.admin.get(path).status_code == 200
        finally:
            assert own.admin.delete(path).status_code == 204


def test_a_webhook_that_is_deleted_is_told_nothing_more(team: Team, receiver: Receiver) -> None:
    receiver.answer = lambda _: 500
    webhook = hook(team, receiver, "document.ready")
    team.put("Something.")
    until(lambda: tries(team, webhook) == [1])
    assert team.manager.delete(f"/v1/webhooks/{webhook['id']}").status_code == 204
    assert team.manager.get(f"/v1/webhooks/{webhook['id']}").status_code == 404
    make_due(team)
    team.service.runtime.courier.sweep()
    team.put("Another.")
    team.drain()
    assert len(receiver.messages) == 1


def test_a_team_has_so_many_webhooks_and_no_more(own: Service, receiver: Receiver) -> None:
    team = own.new_team()
    for _ in range(50):
        hook(team, receiver, "probe.failed")
    answer = team.manager.post("/v1/webhooks", json={"url": receiver.url(), "events": ["probe.failed"]})
    assert (answer.status_code, answer.json()["code"]) == (409, "too_many_webhooks")


@pytest.mark.parametrize(
    "change",
    [
        {"url": "ftp://example.com"},
        {"url": "https://user:hidden@example.com"},
        {"url": "https://example.com/\u0000"},
        {"events": []},
        {"events": ["document.red"]},
        {"events": "document.ready"},
        {"all_teams": 1},
        {"description": "x" * 501},
        {"secret": "whsec_mine"},
    ],
)
def test_a_webhook_that_makes_no_sense_is_refused(team: Team, change: dict[str, Any]) -> None:
    answer = team.manager.post(
        "/v1/webhooks", json={"url": "https://example.com", "events": ["document.ready"], **change}
    )
    assert answer.status_code == 422, answer.text
    assert "hidden" not in answer.text


def test_by_default_nothing_of_this_machine_can_be_reached(service: Service, receiver: Receiver) -> None:
    team = service.new_team()
    for url in (receiver.url(), receiver.url(host="localhost"), "http://169.254.169.254/latest", "http://[::1]/"):
        answer = team.manager.post("/v1/webhooks", json={"url": url, "events": ["document.ready"]})
        assert (answer.status_code, answer.json()["code"]) == (422, "address_refused")
    # What looks like a name is let through, and refused when it is resolved.
    made = team.manager.post("/v1/webhooks", json={"url": receiver.url(host="127.1"), "events": ["document.ready"]})
    assert made.status_code == 201
    path = f"/v1/webhooks/{made.json()['id']}"
    assert team.manager.patch(path, json={"url": receiver.url()}).json()["code"] == "address_refused"
    assert team.manager.post(f"{path}:test").json()["reason"] == "address_refused"
    team.put("Something.")
    until(lambda: tries(team, made.json()) == [1])
    assert told(team, made.json())[0]["history"][0]["reason"] == "address_refused"
    assert receiver.messages == []


def test_of_an_address_the_audit_log_keeps_the_host_alone(team: Team, receiver: Receiver) -> None:
    url = "https://hooks.example.com/services/T000/hidden?token=hidden"
    webhook = team.manager.post("/v1/webhooks", json={"url": url, "events": ["probe.failed"]}).json()
    team.manager.patch(f"/v1/webhooks/{webhook['id']}", json={"description": "changed"})
    team.manager.delete(f"/v1/webhooks/{webhook['id']}")
    with team.service.runtime.database.read() as connection:
        entries = list(audit.in_order(connection, audit.AuditFilter(target=webhook["id"])))
    assert [entry.action for entry in entries] == ["webhook.created", "webhook.changed", "webhook.deleted"]
    assert all("hidden" not in entry.exported() for entry in entries)
    assert entries[0].after == {"host": "hooks.example.com", "events": ["probe.failed"], "enabled": True}


def test_messages_of_several_documents_come_side_by_side(team: Team, receiver: Receiver) -> None:
    def slow(_: Message) -> int:
        time.sleep(0.2)
        return 204

    receiver.answer = slow
    webhook = hook(team, receiver, "document.ready")
    team.manager.post("/v1/documents:batch", json={"documents": [{"text": f"Text {n}."} for n in range(24)]})
    until(lambda: len(told(team, webhook, state="delivered")) == 24)
    ids = [message.id for message in receiver.messages]
    assert len(ids) == len(set(ids)) == 24
