"""Credentials of sources: given once, used by the connector, shown to nobody, kept encrypted."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update
from typer.testing import CliRunner

import connectors
from rag_service.cli import app as cli
from rag_service.db import audit, sources, tables
from rag_service.errors import ConfigError
from rag_service.runtime import build
from rag_service.vault import key_id, new_key, parse_keys
from tests import guarded_source
from tests.conftest import ADMIN_KEY, Service, Started, Team, settings_for

TOKEN, PASSWORD = "token-of-the-wiki", "password-of-the-proxy"


@pytest.fixture(autouse=True)
def guarded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(connectors.REGISTRY, guarded_source.TYPE, guarded_source.PLACE)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def own(data_dir: Path) -> Iterator[Service]:
    """A service of one's own, whose work is done in this thread."""
    with Started(settings_for(data_dir), worker=False) as service:
        yield service


def make(team: Team, name: str = "wiki", **config: Any) -> dict[str, Any]:
    body = {"name": name, "type": guarded_source.TYPE, "config": {"token": TOKEN, "expects": "token-", **config}}
    answer = team.manager.post("/v1/sources", json=body)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def change(team: Team, source: dict[str, Any], expected: int = 200, **config: Any) -> dict[str, Any]:
    answer = team.manager.patch(f"/v1/sources/{source['id']}", json={"config": config})
    assert answer.status_code == expected, answer.text
    changed: dict[str, Any] = answer.json()
    return changed


def configuration(service: Service, team: Team, source: dict[str, Any]) -> dict[str, Any]:
    """What the connector is given."""
    with service.runtime.database.read() as connection:
        return service.runtime.credentials.whole(sources.get(connection, team.id, source["id"]))


def sync(team: Team, source: dict[str, Any]) -> dict[str, Any]:
    job_id = team.manager.post(f"/v1/sources/{source['id']}/sync").json()["job_id"]
    team.service.work()
    job: dict[str, Any] = team.manager.get(f"/v1/jobs/{job_id}").json()
    return job


def test_a_credential_is_used_and_nowhere_shown(own: Service) -> None:
    team = own.new_team()
    source = make(team, headers={"X-Key": PASSWORD})
    assert source["secrets"] == {"token": "set", "password": "unset", "headers": "set", "proxy": "unset"}
    assert source["config"] == {"expects": "token-"}
    assert sync(team, source)["state"] == "succeeded"
    path = f"/v1/sources/{source['id']}"
    answers = [team.manager.get(path), team.manager.get("/v1/sources"), team.admin.get("/v1/admin/audit")]
    answers += [team.manager.patch(path, json={"name": "other"}), team.manager.post(f"{path}/pause")]
    for answer in answers:
        assert answer.status_code == 200
        assert TOKEN not in answer.text
        assert PASSWORD not in answer.text


def test_the_schema_of_the_type_says_write_only(own: Service) -> None:
    types = own.admin.get("/v1/source-types").json()["data"]
    properties = next(one for one in types if one["type"] == guarded_source.TYPE)["config_schema"]["properties"]
    assert [name for name in properties if properties[name].get("writeOnly")] == [
        "token",
        "password",
        "headers",
        "proxy",
    ]


def test_the_data_folder_holds_no_credential_in_plain(own: Service, data_dir: Path) -> None:
    team = own.new_team()
    sync(team, make(team, password=PASSWORD))
    for path in data_dir.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert TOKEN.encode() not in content
            assert PASSWORD.encode() not in content


def test_a_change_without_the_field_keeps_it_null_takes_it_away_and_a_value_replaces_it(own: Service) -> None:
    team = own.new_team()
    source = make(team, password=PASSWORD)
    kept = change(team, source, pages=["a", "b"], expects="token-")
    assert kept["secrets"]["token"] == kept["secrets"]["password"] == "set"
    assert configuration(own, team, source) == {
        "pages": ["a", "b"],
        "expects": "token-",
        "token": TOKEN,
        "password": PASSWORD,
    }
    assert change(team, source, password=None)["secrets"]["password"] == "unset"
    assert change(team, source, token="token-new")["secrets"]["token"] == "set"
    assert configuration(own, team, source) == {"token": "token-new"}
    assert sync(team, source)["state"] == "succeeded"


def test_what_a_type_requires_cannot_be_taken_away(own: Service) -> None:
    team = own.new_team()
    source = make(team)
    assert "token" in change(team, source, 422, token=None)["detail"]
    assert configuration(own, team, source)["token"] == TOKEN


@pytest.mark.parametrize(("field", "elsewhere"), [("url", "https://evil.example.com"), ("region", "mars")])
def test_credentials_do_not_follow_to_another_address_unless_they_are_given_again(
    own: Service, field: str, elsewhere: str
) -> None:
    team = own.new_team()
    source = make(team)
    refused = change(team, source, 422, **{field: elsewhere})
    assert refused["code"] == "credentials_required"
    assert "token" in refused["detail"]
    assert elsewhere not in json.dumps(refused)
    assert field not in configuration(own, team, source)
    moved: dict[str, Any] = {field: elsewhere, "token": "token-again"}
    change(team, source, **moved)
    assert configuration(own, team, source)[field] == elsewhere


def test_an_envelope_pasted_into_another_source_does_not_open(own: Service) -> None:
    victim, thief = own.new_team(), own.new_team()
    theirs, mine = make(victim), make(thief, token="token-mine")
    with own.runtime.database.transaction() as transaction:
        stolen = sources.get(transaction.connection, victim.id, theirs["id"]).secrets
        of_mine = tables.sources.c.id == mine["id"]
        transaction.connection.execute(update(tables.sources).where(of_mine).values(secrets=dict(stolen)))
    job = sync(thief, mine)
    assert (job["state"], job["error"]["code"]) == ("failed", "credential_unreadable")
    assert sync(victim, theirs)["state"] == "succeeded"


@pytest.mark.parametrize("misbehave", ["", "defect", "item"])
def test_a_connector_that_tells_its_credential_is_not_heard(
    own: Service, caplog: pytest.LogCaptureFixture, misbehave: str
) -> None:
    caplog.set_level("DEBUG")
    team = own.new_team()
    source = make(team, expects="" if misbehave else "another", misbehave=misbehave)
    job = sync(team, source)
    path = f"/v1/sources/{source['id']}"
    told = [json.dumps(job), team.manager.get(path).text, team.manager.get("/v1/documents").text, caplog.text]
    tried = {"type": guarded_source.TYPE, "config": {"token": TOKEN, "expects": "another", "misbehave": misbehave}}
    told.append(team.manager.post("/v1/sources/validate", json=tried).text)
    assert "***" in " ".join(told)
    assert TOKEN not in " ".join(told)


def test_a_hundred_credentials_are_rotated_without_one_failure(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = new_key(), new_key()
    with Started(settings_for(data_dir, secret_keys=old), worker=False) as service:
        team = service.new_team()
        made = [make(team, f"wiki {number}", token=f"token-{number}") for number in range(100)]
    told = rag(data_dir, f"{new},{old}", "rotate-secrets", "--json")
    assert json.loads(told) == {"rotated": 100, "key": key_id(parse_keys(new)[0]), "failed": []}
    with Started(settings_for(data_dir, secret_keys=new), worker=False) as service:
        opened = [configuration(service, team, source)["token"] for source in made]
        assert opened == [f"token-{number}" for number in range(100)]
        with service.runtime.database.read() as connection:
            entries = list(audit.in_order(connection, audit.AuditFilter(action="secrets.rotated")))
        assert {entry.target for entry in entries} == {source["id"] for source in made}
        assert {entry.author["kind"] for entry in entries} == {"command"}


def rag(data_dir: Path, keys: str | None, *arguments: str, exits: int = 0) -> str:
    environment = {"RAG_DATA_DIR": str(data_dir), "RAG_SECRET_KEYS": keys, "RAG_EMBEDDER": "hashing"}
    result = CliRunner().invoke(cli, ["admin", *arguments], env={**environment, "RAG_ADMIN_KEY": ADMIN_KEY})
    assert result.exit_code == exits, result.output
    return result.stdout if exits == 0 else result.output


def test_a_credential_that_cannot_be_opened_stops_no_other_and_keeps_the_old_key(data_dir: Path) -> None:
    with Started(settings_for(data_dir), worker=False) as service:
        team = service.new_team()
        first, second = make(team, "first"), make(team, "second")
        with service.runtime.database.transaction() as transaction:
            envelope = dict(sources.get(transaction.connection, team.id, first["id"]).secrets)
            sources.change(transaction.connection, second["id"], secrets=envelope)
    told = rag(data_dir, None, "rotate-secrets", exits=1)
    assert "1 credentials are encrypted" in told
    assert second["id"] in told
    assert len((data_dir / "secret.key").read_text().split()) == 2
    with Started(settings_for(data_dir), worker=False) as service:
        assert configuration(service, team, first)["token"] == TOKEN


def test_without_its_lost_key_a_service_starts_again_when_what_it_encrypted_is_dropped(data_dir: Path) -> None:
    with Started(settings_for(data_dir), worker=False) as service:
        team = service.new_team()
        source = make(team)
    (data_dir / "secret.key").unlink()
    assert "--drop-unreadable" in rag(data_dir, None, "rotate-secrets", exits=1)
    rag(data_dir, None, "rotate-secrets", "--drop-unreadable")
    assert len((data_dir / "secret.key").read_text().split()) == 1
    with Started(settings_for(data_dir), worker=False) as service:
        manager = service.client(team.manager.headers["Authorization"].removeprefix("Bearer "))
        assert manager.get(f"/v1/sources/{source['id']}").json()["secrets"]["token"] == "unset"
        manager.patch(f"/v1/sources/{source['id']}", json={"config": {"token": TOKEN}}).raise_for_status()
        assert configuration(service, team, source)["token"] == TOKEN


def test_the_key_in_the_data_folder_is_rotated_while_the_service_is_stopped(data_dir: Path) -> None:
    with Started(settings_for(data_dir), worker=False) as service:
        team = service.new_team()
        source = make(team)
        assert "Another process uses" in rag(data_dir, None, "rotate-secrets", exits=2)
    before = (data_dir / "secret.key").read_text()
    rag(data_dir, None, "rotate-secrets")
    after = (data_dir / "secret.key").read_text()
    assert len(after.split()) == 1
    assert after != before
    with Started(settings_for(data_dir), worker=False) as service:
        assert configuration(service, team, source)["token"] == TOKEN


def test_a_backup_tells_which_key_it_needs_and_a_restore_what_is_lacking(data_dir: Path, tmp_path: Path) -> None:
    with Started(settings_for(data_dir), worker=False) as service:
        team = service.new_team()
        made = team.manager.post("/v1/webhooks", json={"url": "https://hooks.example", "events": ["sync.finished"]})
        assert made.status_code == 201, made.text
    key = (data_dir / "secret.key").read_text()
    assert f"the key {key_id(parse_keys(key)[0])}, which is not in it" in told(data_dir, "backup", tmp_path / "b")
    restored = tmp_path / "restored"
    lacking = told(restored, "restore", tmp_path / "b")
    assert "Secrets of webhooks are encrypted under a key that this service does not have" in lacking
    assert "put back secret.key" in lacking
    (restored / "secret.key").write_text(key)
    assert "encrypted" not in told(restored, "restore", tmp_path / "b", "--force")
    build_and_open(restored)


def told(data_dir: Path, command: str, folder: Path, *options: str) -> str:
    environment = {"RAG_DATA_DIR": str(data_dir), "RAG_EMBEDDER": "hashing", "RAG_ADMIN_KEY": ADMIN_KEY}
    result = CliRunner().invoke(cli, ["admin", command, str(folder), *options], env=environment)
    assert result.exit_code == 0, result.output
    return result.output


def build_and_open(data_dir: Path) -> None:
    with closing(build(settings_for(data_dir))) as runtime:
        runtime.open()


def test_a_key_is_made_with_the_first_credential_for_its_owner_alone(own: Service, data_dir: Path) -> None:
    path = data_dir / "secret.key"
    team = own.new_team()
    assert not path.exists()
    make(team)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sorted(file.name for file in data_dir.glob("secret.key*")) == ["secret.key"]


@pytest.mark.parametrize("keys", [None, "another"])
def test_with_a_wrong_or_missing_key_the_service_does_not_start(data_dir: Path, keys: str | None) -> None:
    with Started(settings_for(data_dir), worker=False) as service:
        make(service.new_team())
    used = key_id(parse_keys((data_dir / "secret.key").read_text())[0])
    if keys is None:
        (data_dir / "secret.key").unlink()
    runtime = build(settings_for(data_dir, secret_keys=None if keys is None else new_key()))
    with pytest.raises(ConfigError, match=f"key id {used}") as caught:
        runtime.open()
    runtime.close()
    assert caught.value.code == "secret_key_missing"
    assert (data_dir / "secret.key").exists() == (keys is not None)


def test_a_key_that_is_none_is_refused_when_it_is_needed_without_repeating_it(data_dir: Path) -> None:
    with Started(settings_for(data_dir), worker=False) as service:
        make(service.new_team())
    runtime = build(settings_for(data_dir, secret_keys="certainly-no-key"))
    with pytest.raises(ConfigError, match="key 1 is not 32 bytes") as caught:
        runtime.open()
    runtime.close()
    assert "certainly-no-key" not in str(caught.value)


def test_several_machines_need_to_be_told_their_key(tmp_path: Path) -> None:
    from rag_service.errors import Conflict
    from rag_service.runtime.secret_keys import make_vault

    with pytest.raises(Conflict, match="RAG_SECRET_KEYS"):
        make_vault(settings_for(tmp_path), alone=False).seal("x", "y")
    assert make_vault(settings_for(tmp_path), alone=True).seal("x", "y")
