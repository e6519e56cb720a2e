"""Feedback on answers: who may give it, what is kept with it, what becomes of it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import delete

from rag_service.db import documents
from rag_service.db.tables import queries
from tests.conftest import Service, Started, Team, settings_for

IDS = ("leave", "sick", "parking")


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service whose traces keep the question."""
    with Started(settings_for(tmp_path_factory.mktemp("own"), trace_content=True)) as started:
        yield started


@pytest.fixture
def office(own: Service) -> Team:
    return furnished(own.new_team())


def furnished(team: Team) -> Team:
    team.put("Annual leave is thirty days.", external_id="leave")
    team.put("Sick leave is paid.", external_id="sick", acl={"users": ["ada"]})
    team.put("Parking is free.", external_id="parking")
    team.drain()
    return team


def document(team: Team, external_id: str) -> str:
    (found,) = team.manager.get("/v1/documents", params={"external_id": external_id}).json()["data"]
    return str(found["id"])


def ask(client: TestClient, query: str = "annual leave", **more: Any) -> dict[str, Any]:
    answer = client.post("/v1/retrieve", json={"query": query, **more})
    assert answer.status_code == 200, answer.text
    asked: dict[str, Any] = answer.json()
    return asked


def give(client: TestClient, query_id: str, **said: Any) -> dict[str, Any]:
    answer = client.post("/v1/feedback", json={"query_id": query_id, **said})
    assert answer.status_code == 201, answer.text
    given: dict[str, Any] = answer.json()
    return given


def refused(client: TestClient, query_id: str, **said: Any) -> tuple[int, Any]:
    answer = client.post("/v1/feedback", json={"query_id": query_id, **said})
    body = answer.json()
    return answer.status_code, (body.get("code"), body.get("detail"))


def listed(team: Team, **narrowing: Any) -> list[dict[str, Any]]:
    answer = team.manager.get("/v1/feedback", params=narrowing)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["data"]
    return found


def summary(team: Team, **narrowing: Any) -> list[dict[str, Any]]:
    answer = team.manager.get("/v1/feedback/summary", params=narrowing)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["data"]
    return found


# --- what is kept ---------------------------------------------------------------------------


def test_it_keeps_what_it_needs_of_the_trace(office: Team) -> None:
    asker = office.client("query", "impersonate")
    answer = ask(asker, as_user={"user": "ada", "groups": ["staff"]})
    hit = answer["results"][0]
    said = give(
        asker,
        answer["query_id"],
        chunk_id=hit["chunk_id"],
        rating="dislike",
        reasons=["outdated", "outdated", "incorrect"],
        comment="It is 28 days.",
        expected_document_id=document(office, "sick"),
    )
    expected = {
        "query_id": answer["query_id"],
        "query": "annual leave",
        "as_user": {"user": "ada", "groups": ["staff"]},
        "document_id": hit["document_id"],
        "chunk_id": hit["chunk_id"],
        "rating": "dislike",
        "reasons": ["outdated", "incorrect"],
        "signals": [],
        "comment": "It is 28 days.",
        "expected_document_id": document(office, "sick"),
        "source_id": None,
        "rank": 1,
        "score": hit["score"],
        "version": 1,
        "index_version": hit["provenance"]["index_version"],
    }
    assert said == said | expected
    assert said["collection_id"] == office.manager.get("/v1/collections/default").json()["id"]
    assert said["asked_at"] < said["at"]
    assert listed(office) == [said]


def test_it_outlives_its_trace(office: Team) -> None:
    answer = ask(office.manager)
    said = give(office.manager, answer["query_id"], document_id=document(office, "leave"), rating="like")
    with office.service.runtime.database.transaction() as transaction:
        transaction.connection.execute(delete(queries).where(queries.c.id == answer["query_id"]))
    assert refused(office.manager, answer["query_id"], rating="like")[0] == 404
    assert listed(office) == [said]


def test_the_question_is_kept_only_where_its_trace_kept_it(service: Service) -> None:
    team = furnished(service.new_team())
    said = give(team.manager, ask(team.manager)["query_id"], rating="like")
    assert said["query"] is None
    assert "annual" not in json.dumps(listed(team))


def test_of_a_document_the_best_of_its_hits_is_meant(office: Team) -> None:
    answer = ask(office.manager)
    for result in answer["results"]:
        said = give(office.manager, answer["query_id"], document_id=result["document_id"], signals=["clicked"])
        assert (said["rank"], said["chunk_id"]) == (result["rank"], None)


def test_an_answer_as_a_whole_is_spoken_of_too(office: Team) -> None:
    said = give(office.manager, ask(office.manager)["query_id"], signals=["retried", "edited_answer"])
    assert (said["document_id"], said["rank"], said["rating"]) == (None, None, None)
    assert said["signals"] == ["retried", "edited_answer"]
    assert said["collection_id"] == office.manager.get("/v1/collections/default").json()["id"]
    office.manager.post("/v1/collections", json={"name": "other"})
    both = ask(office.manager, collections=["default", "other"])["query_id"]
    said = give(office.manager, both, rating="like")
    assert (said["collection_id"], said["index_version"]) == (None, None)
    said = give(office.manager, both, document_id=document(office, "leave"), rating="like")
    assert said["collection_id"] == office.manager.get("/v1/collections/default").json()["id"]
    assert said["index_version"].startswith("idx_")


def test_said_again_signals_add_up_and_the_rest_replaces(office: Team) -> None:
    query = ask(office.manager)["query_id"]
    about = {"document_id": document(office, "leave")}
    first = give(office.manager, query, **about, rating="like", signals=["copied"])
    second = give(office.manager, query, **about, rating="dislike", reasons=["outdated"], comment="Old.")
    third = give(office.manager, query, **about, signals=["clicked", "copied"])
    assert first["id"] == second["id"] == third["id"]
    assert (third["rating"], third["reasons"], third["comment"]) == ("dislike", ["outdated"], "Old.")
    assert third["signals"] == ["copied", "clicked"]
    assert listed(office) == [third]
    fourth = give(office.manager, query, **about, rating="like")
    assert (fourth["rating"], fourth["reasons"]) == ("like", [])
    # Another key, and the answer as a whole, are spoken of apart.
    give(office.admin, query, **about, rating="like")
    give(office.manager, query, rating="like")
    assert len(listed(office)) == 3


# --- who may --------------------------------------------------------------------------------


def test_a_key_speaks_of_what_it_asked_itself_and_a_manager_of_all(office: Team, own: Service) -> None:
    mine, other = office.client("query"), office.client("query")
    query = ask(mine)["query_id"]
    of_nobody = refused(mine, "q_of_nobody", rating="like")
    assert of_nobody[0] == 404
    assert refused(other, query, rating="like") == of_nobody
    assert refused(own.new_team().manager, query, rating="like") == of_nobody
    assert give(mine, query, rating="like")["key_id"]
    assert give(office.manager, query, rating="dislike")
    assert give(office.admin, query, rating="dislike")["key_id"] is None
    assert [one["rating"] for one in listed(office)] == ["dislike", "dislike", "like"]


def test_only_what_was_a_hit_can_be_spoken_of(office: Team, own: Service) -> None:
    client = office.client("query")
    answer = ask(client, top_k=1)
    (hit,) = answer["results"]
    theirs = furnished(own.new_team())
    unknown = refused(client, answer["query_id"], document_id="doc_of_nobody", rating="like")
    assert unknown[0] == 404
    for about in (
        {"document_id": document(office, "parking")},
        {"document_id": document(office, "sick")},
        {"document_id": document(theirs, "leave")},
        {"chunk_id": "chunk_of_nobody"},
        {"chunk_id": hit["chunk_id"], "document_id": document(office, "parking")},
    ):
        assert refused(client, answer["query_id"], **about, rating="like") == unknown
    assert give(client, answer["query_id"], chunk_id=hit["chunk_id"], document_id=hit["document_id"], rating="like")


def test_a_hit_that_may_not_be_read_any_more_is_none(office: Team) -> None:
    client = office.client("query")
    answer = ask(client)
    unknown = refused(client, answer["query_id"], document_id="doc_of_nobody", rating="like")
    leave = document(office, "leave")
    office.manager.patch(f"/v1/documents/{leave}/acl", json={"users": ["ada"]})
    assert refused(client, answer["query_id"], document_id=leave, rating="like") == unknown
    assert give(office.manager, answer["query_id"], document_id=leave, rating="like")


def expectations(office: Team, own: Service) -> tuple[list[tuple[int, Any]], tuple[int, Any]]:
    """What is said of documents that the asker may not read, and of one that there is not."""
    client = office.client("query", user="bob")
    query = ask(client)["query_id"]
    theirs = furnished(own.new_team())
    hidden = [document(office, "sick"), document(theirs, "leave")]
    unknown = refused(client, query, rating="dislike", expected_document_id="doc_of_nobody")
    return [refused(client, query, rating="dislike", expected_document_id=one) for one in hidden], unknown


def test_what_was_expected_is_something_that_the_asker_may_read(office: Team, own: Service) -> None:
    hidden, unknown = expectations(office, own)
    assert unknown[0] == 404
    assert hidden == [unknown, unknown]
    ada = office.client("query", user="ada")
    sick = document(office, "sick")
    assert give(ada, ask(ada)["query_id"], expected_document_id=sick)["expected_document_id"] == sick


def test_a_route_that_forgets_who_asks_would_be_noticed(
    office: Team, own: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        documents, "get_readable", lambda connection, name, _: documents.get(connection, office.id, name)
    )
    hidden, unknown = expectations(office, own)
    assert hidden != [unknown, unknown]


def test_for_whom_it_was_asked_gives_rights_only_to_who_may_ask_for_others(office: Team) -> None:
    asker = office.client("query", "impersonate")
    query = ask(asker, as_user={"user": "ada"})["query_id"]
    sick = document(office, "sick")
    assert give(asker, query, document_id=sick, rating="like")
    bob = office.client("query", user="bob")
    own_query = ask(bob)["query_id"]
    office.service.runtime.traces.get(office.id, own_query)
    with office.service.runtime.database.transaction() as transaction:
        stored = queries.update().where(queries.c.id == own_query)
        transaction.connection.execute(stored.values(as_user={"user": "ada", "groups": []}))
    assert refused(bob, own_query, rating="like", expected_document_id=sick)[0] == 404


@pytest.mark.parametrize("scopes", [("query",), ("ingest",), ("impersonate",), ("query", "ingest", "impersonate")])
def test_only_who_manages_reads_and_deletes_it(office: Team, scopes: tuple[str, ...]) -> None:
    client = office.client(*scopes)
    for path in ("", "/summary", "/export"):
        assert client.get(f"/v1/feedback{path}").status_code == 403
    assert client.delete("/v1/feedback/fbk_1").status_code == 403


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"rating": "meh"},
        {"rating": None},
        {"reasons": ["outdated"]},
        {"signals": ["outdated"]},
        {"signals": "copied"},
        {"rating": "like", "reasons": ["because"]},
        {"rating": "like", "comment": ""},
        {"comment": "x" * 4_001},
        {"comment": "\u0000"},
        {"rating": "like", "document_id": ""},
        {"rating": "like", "chunk_id": "x" * 101},
        {"rating": "like", "team_id": "other"},
        {"rating": "like", "signals": ["copied"] * 5},
    ],
)
def test_what_says_nothing_or_nonsense_is_refused(office: Team, said: dict[str, Any]) -> None:
    assert refused(office.manager, ask(office.manager)["query_id"], **said)[0] == 422


# --- what becomes of it ---------------------------------------------------------------------


@pytest.fixture
def spoken(office: Team, tmp_path: Path) -> Team:
    """Feedback on two uploads and on a page of a source."""
    (tmp_path / "page.md").write_text("Annual leave of contractors.")
    body = {"name": "pages", "type": "files", "config": {"root": str(tmp_path)}, "acl": {"public": True}}
    source = office.admin.post("/v1/sources", json=body).json()["id"]
    office.manager.post(f"/v1/sources/{source}/sync")
    office.drain()
    query = ask(office.manager)["query_id"]
    give(office.manager, query, document_id=document(office, "leave"), rating="like", signals=["copied"])
    page = document(office, "page.md")
    give(office.manager, query, document_id=page, rating="dislike", reasons=["outdated", "not_relevant"])
    again = ask(office.manager)["query_id"]
    give(office.manager, again, document_id=page, rating="dislike", reasons=["outdated"], signals=["clicked"])
    return office


def test_it_is_counted_by_collection_and_source(spoken: Team) -> None:
    of_source, of_uploads = summary(spoken)
    source = spoken.manager.get("/v1/sources").json()["data"][0]["id"]
    assert (of_source["collection"], of_source["source_id"]) == ("default", source)
    assert (of_source["given"], of_source["likes"], of_source["dislikes"]) == (2, 0, 2)
    assert {name: count for name, count in of_source["reasons"].items() if count} == {"outdated": 2, "not_relevant": 1}
    assert {name: count for name, count in of_source["signals"].items() if count} == {"clicked": 1}
    assert (of_uploads["source_id"], of_uploads["likes"], of_uploads["signals"]["copied"]) == (None, 1, 1)
    assert [row["given"] for row in summary(spoken, source=source)] == [2]
    assert summary(spoken, since="2100-01-01T00:00:00Z") == []


def test_it_is_listed_by_page_and_narrowed(spoken: Team) -> None:
    first = spoken.manager.get("/v1/feedback", params={"limit": 2}).json()
    rest = spoken.manager.get("/v1/feedback", params={"limit": 2, "after": first["next_cursor"]}).json()
    assert [one["rating"] for one in first["data"] + rest["data"]] == ["dislike", "dislike", "like"]
    assert (first["has_more"], rest["has_more"]) == (True, False)
    (like,) = listed(spoken, rating="like")
    page = document(spoken, "page.md")
    for narrowing, count in (
        ({"rating": "dislike"}, 2),
        ({"reason": "outdated"}, 2),
        ({"reason": "not_relevant"}, 1),
        ({"reason": "missing"}, 0),
        ({"signal": "copied"}, 1),
        ({"query_id": like["query_id"]}, 2),
        ({"document": page}, 2),
        ({"document": page, "signal": "clicked"}, 1),
        ({"collection": like["collection_id"]}, 3),
        ({"collection": "default"}, 3),
        ({"until": like["at"]}, 0),
        ({"since": like["at"]}, 3),
    ):
        assert len(listed(spoken, **narrowing)) == count, narrowing
    for wrong in ({"rating": "meh"}, {"since": "yesterday"}, {"signal": "outdated"}):
        assert spoken.manager.get("/v1/feedback", params=wrong).status_code == 422


def test_a_collection_or_source_that_is_none_is_told_instead_of_nothing_said(spoken: Team) -> None:
    for wrong in ({"collection": "nope"}, {"source": "pages"}):
        for path in ("/v1/feedback", "/v1/feedback/summary", "/v1/feedback/export"):
            answer = spoken.manager.get(path, params=wrong)
            assert (answer.status_code, "There is no such" in answer.text) == (404, True), path


def test_of_a_collection_that_is_gone_it_is_found_by_the_id_that_it_names(office: Team) -> None:
    office.manager.post("/v1/collections", json={"name": "gone"}).raise_for_status()
    office.put("Nobody needs this rule.", collection="gone", acl={"public": True})
    office.drain()
    said = give(office.manager, ask(office.manager, "a rule", collections=["gone"])["query_id"], rating="like")
    office.manager.delete("/v1/collections/gone").raise_for_status()
    office.drain()
    assert [one["id"] for one in listed(office, collection=said["collection_id"])] == [said["id"]]
    assert office.manager.get("/v1/feedback", params={"collection": "gone"}).status_code == 404


def test_it_is_exported_as_json_lines_and_as_csv(spoken: Team) -> None:
    answer = spoken.manager.get("/v1/feedback/export")
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert lines == listed(spoken)[::-1]
    answer = spoken.manager.get("/v1/feedback/export", params={"format": "csv", "rating": "dislike"})
    assert answer.headers["content-type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [row["id"] for row in rows] == [line["id"] for line in lines[1:]]
    assert [row["reasons"] for row in rows] == ["outdated not_relevant", "outdated"]
    assert rows[0]["comment"] == ""
    assert list(rows[0]) == list(lines[0])


@pytest.mark.parametrize("comment", ["=HYPERLINK(1)", "+1", "-1", "@sum", "\tx"])
def test_a_comment_is_no_formula_of_a_spreadsheet(office: Team, comment: str) -> None:
    give(office.manager, ask(office.manager)["query_id"], comment=comment)
    text = office.manager.get("/v1/feedback/export", params={"format": "csv"}).text
    (row,) = csv.DictReader(io.StringIO(text))
    assert row["comment"] == f"'{comment}"


def test_it_is_deleted_for_good(office: Team, own: Service) -> None:
    said = give(office.manager, ask(office.manager)["query_id"], comment="My number is 555.")
    path = f"/v1/feedback/{said['id']}"
    assert own.new_team().manager.delete(path).status_code == 404
    assert office.manager.delete(path).status_code == 204
    assert office.manager.delete(path).status_code == 404
    assert listed(office) == []
