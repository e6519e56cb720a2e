"""Traces: what is kept of a question, who may look at it, and what asking again shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from rag_service.db import collections
from tests.conftest import Service, Started, Team, settings_for


@pytest.fixture
def office(service: Service) -> Team:
    team = service.new_team()
    team.put("Annual leave is thirty days.", external_id="leave")
    team.put("Sick leave is paid.", external_id="sick", acl={"users": ["ada"]})
    team.put("Parking is free.", external_id="parking")
    team.drain()
    return team


def ask(client: TestClient, query: str = "annual leave", **more: Any) -> dict[str, Any]:
    answer = client.post("/v1/retrieve", json={"query": query, **more})
    assert answer.status_code == 200, answer.text
    asked: dict[str, Any] = answer.json()
    return asked


def trace(client: TestClient, query_id: str) -> dict[str, Any]:
    answer = client.get(f"/v1/queries/{query_id}")
    assert answer.status_code == 200, answer.text
    kept: dict[str, Any] = answer.json()
    return kept


def replay(client: TestClient, query_id: str, query: str | None = "annual leave", **more: Any) -> dict[str, Any]:
    answer = client.post(f"/v1/queries/{query_id}/replay", json={"query": query, **more} if query else more)
    assert answer.status_code == 200, answer.text
    replayed: dict[str, Any] = answer.json()
    return replayed


def test_a_trace_tells_everything_but_texts(office: Team) -> None:
    answer = ask(office.manager, top_k=2, filter={"title": {"$ne": "x"}})
    kept = trace(office.manager, answer["query_id"])
    assert (kept["id"], kept["team_id"], kept["key_name"]) == (answer["query_id"], office.id, "a test's key")
    assert (kept["query"], kept["as_user"]) == (None, None)
    assert kept["request"]["top_k"] == 2
    assert kept["request"]["filter"] == {"title": {"$ne": "x"}}
    assert kept["usage"] == answer["usage"]
    assert kept["degraded"] == []
    assert kept["plan"]["legs"] == ["dense", "lexical"]
    assert kept["index_versions"] == [answer["results"][0]["provenance"]["index_version"]]
    for hit, result in zip(kept["hits"], answer["results"], strict=True):
        assert {name: hit[name] for name in ("rank", "chunk_id", "document_id")} == {
            name: result[name] for name in ("rank", "chunk_id", "document_id")
        }
        assert hit["score"] == result["score"]
        assert {name: hit[name] for name in result["scores"]} == result["scores"]
    assert "annual" not in str(kept).lower()
    assert "thirty" not in str(kept)


OPTIONS: list[dict[str, Any]] = [
    {"query": 'the "annual leave" -parking'},
    {"feedback": True},
    {"diversity": 0.5, "collapse_duplicates": True},
    {"recency": {"field": "published", "half_life_days": 30, "weight": 0.5}},
    {"expand": {"before": 1}},
    {"rerank": {"depth": 20}},
    {"fusion": {"method": "rrf", "weights": {"dense": 2.0, "lexical": 1.0}}},
    {"mode": "dense", "operators": "off"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=" ".join)
def test_every_option_is_kept_and_asked_again(office: Team, options: dict[str, Any]) -> None:
    query = options.get("query", "annual leave")
    first = ask(office.manager, **{"query": query, "explain": True, **options})
    kept = trace(office.manager, first["query_id"])
    for name, value in options.items():
        if name == "query":
            assert kept["query"] is None
        elif isinstance(value, dict):
            assert value.items() <= kept["request"][name].items()
        else:
            assert kept["request"][name] == value
    again = replay(office.manager, first["query_id"], query)
    assert again["same"] is True
    second = trace(office.manager, again["replay_id"])
    assert second["request"] == kept["request"]
    assert {**second["plan"], "stages_ms": 0} == {**kept["plan"], "stages_ms": 0}
    assert kept["plan"]["options"] == first["plan"]["options"]
    assert kept["plan"]["fusion"] == first["plan"]["fusion"]


def test_words_of_the_question_are_kept_nowhere_in_a_trace(office: Team) -> None:
    first = ask(office.manager, query='the "annual leave" -sick', explain=True)
    assert (first["plan"]["phrases"], first["plan"]["excluded"]) == (["annual leave"], ["sick"])
    kept = str(trace(office.manager, first["query_id"]))
    assert not any(word in kept for word in ("annual", "sick"))


def test_a_trace_is_read_by_managers_and_by_the_key_that_asked(office: Team, other_team: Team) -> None:
    asker, neighbour = office.client("query"), office.client("query")
    query_id = ask(asker)["query_id"]
    for client in (asker, office.manager, office.admin):
        assert trace(client, query_id)["id"] == query_id
    for client in (neighbour, other_team.manager, other_team.admin):
        for method, path in (("GET", ""), ("POST", "/replay")):
            body: dict[str, Any] = {"json": {"query": "leave"}} if method == "POST" else {}
            foreign = client.request(method, f"/v1/queries/{query_id}{path}", **body)
            unknown = client.request(method, f"/v1/queries/q_{'0' * 32}{path}", **body)
            assert foreign.status_code == unknown.status_code == 404
            assert foreign.json()["detail"] == unknown.json()["detail"]


def test_hits_that_its_asker_lost_are_not_shown_to_it_any_more(office: Team) -> None:
    asker = office.client("query", user="ada")
    answer = ask(asker)
    names = {result["external_id"]: result["document_id"] for result in answer["results"]}
    assert names.keys() == {"leave", "sick", "parking"}
    office.manager.patch(f"/v1/documents/{names['sick']}/acl", json={"users": ["bob"]}).raise_for_status()
    seen = {hit["document_id"] for hit in trace(asker, answer["query_id"])["hits"]}
    assert seen == {names["leave"], names["parking"]}
    again = replay(asker, answer["query_id"])
    assert names["sick"] not in str(again)
    assert names["sick"] in {hit["document_id"] for hit in trace(office.manager, answer["query_id"])["hits"]}


def test_a_question_for_somebody_is_shown_as_to_them_while_the_key_may_ask_for_them(office: Team) -> None:
    application = office.client("query", "impersonate")
    answer = ask(application, as_user={"user": "ada", "groups": []})
    kept = trace(application, answer["query_id"])
    assert kept["as_user"] == {"user": "ada", "groups": []}
    assert len(kept["hits"]) == 3
    assert replay(application, answer["query_id"])["same"] is True


def test_asking_again_gives_the_same_while_nothing_changed(office: Team) -> None:
    first = ask(office.manager)
    again = replay(office.manager, first["query_id"])
    assert (again["same"], again["same_identity"]) == (True, True)
    assert again["chunks"] == {"appeared": [], "vanished": [], "moved": [], "unchanged": 3}
    assert again["index_versions"] == again["index_versions_before"]
    assert trace(office.manager, again["replay_id"])["request"] == trace(office.manager, first["query_id"])["request"]


def test_asking_again_shows_what_appeared_vanished_and_moved(office: Team) -> None:
    first = ask(office.manager)
    ids = {result["external_id"]: result["document_id"] for result in first["results"]}
    office.manager.delete(f"/v1/documents/{ids['parking']}").raise_for_status()
    office.put("Annual leave annual leave.", external_id="new")
    office.drain()
    again = replay(office.manager, first["query_id"])
    changed = again["documents"]
    new = office.manager.get("/v1/documents", params={"external_id": "new"}).json()["data"][0]["id"]
    assert again["same"] is False
    assert [change["document_id"] for change in changed["appeared"]] == [new]
    assert [change["document_id"] for change in changed["vanished"]] == [ids["parking"]]
    moved = {change["document_id"]: change for change in changed["moved"]}
    assert moved[ids["leave"]]["before"]["rank"] == 1
    assert moved[ids["leave"]]["after"]["rank"] == 2
    delta = moved[ids["leave"]]["after"]["score"] - moved[ids["leave"]]["before"]["score"]
    assert moved[ids["leave"]]["score_delta"] == pytest.approx(delta)


def test_what_its_asker_may_no_longer_read_is_counted_and_nothing_more(office: Team) -> None:
    application = office.client("query", "impersonate")
    first = ask(application, as_user={"user": "ada", "groups": []})
    last = first["results"][-1]["document_id"]
    office.manager.delete(f"/v1/documents/{last}").raise_for_status()
    again = replay(application, first["query_id"])
    assert (again["same"], again["hidden"], again["chunks"]["vanished"]) == (False, 1, [])
    assert last not in str(again)
    assert replay(office.client("manage", "impersonate"), first["query_id"])["hidden"] == 0


def test_a_new_version_changes_chunks_but_is_the_same_document(office: Team) -> None:
    first = ask(office.manager, top_k=1)
    office.put("Annual leave is thirty one days.", external_id="leave")
    office.drain()
    again = replay(office.manager, first["query_id"])
    assert len(again["chunks"]["appeared"]) == len(again["chunks"]["vanished"]) == 1
    assert again["documents"]["appeared"] == again["documents"]["vanished"] == []


def test_a_replay_gives_nobody_more_than_their_own_rights(office: Team) -> None:
    """A manager without `impersonate` asks as a manager; a key that asked for ada cannot do so once it is another's."""
    boss = office.client("manage", "impersonate")
    query_id = ask(boss, as_user={"user": "nobody"})["query_id"]
    assert len(trace(boss, query_id)["hits"]) == 2
    plain = replay(office.manager, query_id)
    assert (plain["same_identity"], len(plain["hits"])) == (False, 3)
    assert (replay(boss, query_id)["same_identity"], len(replay(boss, query_id)["hits"])) == (True, 2)
    asker = office.client("query")
    own = ask(asker)["query_id"]
    assert len(replay(asker, own)["hits"]) == 2


def test_the_question_must_be_sent_again_where_it_was_not_kept(office: Team) -> None:
    query_id = ask(office.manager)["query_id"]
    refused = office.manager.post(f"/v1/queries/{query_id}/replay", json={})
    assert (refused.status_code, refused.json()["code"]) == (422, "query_required")


def test_only_active_index_versions_are_asked(office: Team, other_team: Team) -> None:
    first = ask(office.manager)
    (active,) = trace(office.manager, first["query_id"])["index_versions"]
    assert replay(office.manager, first["query_id"], index_version=active)["same"] is True
    with office.service.runtime.database.read() as connection:
        foreign = collections.active_indexes(connection, other_team.id, ["default"])[0][1].id
    path, refusals = f"/v1/queries/{first['query_id']}/replay", []
    for name in (foreign, "idx_nothing"):
        refused = office.manager.post(path, json={"query": "leave", "index_version": name})
        assert (refused.status_code, refused.json()["code"]) == (409, "index_version_unavailable")
        refusals.append(refused.json()["detail"])
    assert len(set(refusals)) == 1


def test_with_content_on_the_question_is_kept_and_replayed_by_itself(tmp_path: Path) -> None:
    with Started(settings_for(tmp_path, trace_content=True)) as service:
        team = service.new_team()
        team.put("Annual leave is thirty days.")
        team.drain()
        query_id = ask(team.manager)["query_id"]
        kept = trace(team.manager, query_id)
        assert kept["query"] == "annual leave"
        quoting = ask(team.manager, query='"annual leave"')["query_id"]
        assert trace(team.manager, quoting)["plan"]["phrases"] == ["annual leave"]
        assert "thirty" not in str(kept), "passages are read from documents, never from traces"
        assert replay(team.manager, query_id, query=None)["same"] is True


def test_with_a_sample_of_nothing_nothing_is_kept(tmp_path: Path) -> None:
    with Started(settings_for(tmp_path, trace_sample=0)) as service:
        team = service.new_team()
        query_id = ask(team.manager)["query_id"]
        assert team.manager.get(f"/v1/queries/{query_id}").status_code == 404


def test_traces_survive_a_stop_and_go_when_their_time_is_over(tmp_path: Path) -> None:
    with Started(settings_for(tmp_path), worker=False) as service:
        team = service.new_team()
        query_id = ask(team.manager)["query_id"]
    with Started(settings_for(tmp_path), worker=False) as service:
        client = service.client("rag_admin_for_tests", **{"X-Rag-Team": team.id})
        service.runtime.sweep()
        assert trace(client, query_id)["id"] == query_id
    with Started(settings_for(tmp_path, trace_retention_s=0.001), worker=False) as service:
        client = service.client("rag_admin_for_tests", **{"X-Rag-Team": team.id})
        service.runtime.sweep()
        assert client.get(f"/v1/queries/{query_id}").status_code == 404
