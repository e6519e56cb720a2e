"""Query sets over HTTP: made, changed, listed, taken out as files and in again, and nobody else's business."""

from __future__ import annotations

import io
import tarfile
import zipfile
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response

from rag_service.db import query_sets
from rag_service.errors import LimitExceeded
from rag_service.evaluation import files
from rag_service.types import LabelledQuery
from tests.conftest import Team

LEAVE = {"id": "leave", "query": "How long is parental leave?", "expected": [{"external_id": "hr/leave", "grade": 3}]}
BOARD = {"id": "board", "query": "What does the board earn?", "expect_nothing": True, "as_user": {"user": "ada"}}
# One of everything that can be said of a query.
FULL = {
    "id": 'all, "of" it',
    "query": "line one\nline two, \u00e9t\u00e9\tand more",
    "expected": [{"document_id": "doc_1", "grade": 2}, {"external_id": "tab\there", "grade": 1}],
    "as_user": {"user": None, "groups": ["staff", "a,b"]},
    "filter": {"year": {"$gte": 2024}, "tags": {"$in": ["x", "y"]}},
    "min_score": 0.25,
}


def make(client: TestClient, name: str = "golden", *queries: dict[str, Any], **more: Any) -> dict[str, Any]:
    answer = client.post("/v1/query-sets", json={"name": name, "queries": list(queries), **more})
    assert answer.status_code == 201, answer.text
    record: dict[str, Any] = answer.json()
    return record


def queries(client: TestClient, name: str = "golden", **params: Any) -> list[dict[str, Any]]:
    answer = client.get(f"/v1/query-sets/{name}/queries", params=params)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["data"]
    return found


def refused(answer: Response, status: int, said: str) -> None:
    assert answer.status_code == status, answer.text
    assert said in answer.text


class TestSets:
    def test_are_made_for_a_collection_and_found_by_name_or_id(self, client: TestClient) -> None:
        client.post("/v1/collections", json={"name": "handbook"}).raise_for_status()
        made = make(client, "golden", LEAVE, BOARD, collection="handbook", description="Asked in May")
        assert (made["collection"], made["query_count"], made["description"]) == ("handbook", 2, "Asked in May")
        assert client.get("/v1/query-sets/golden").json() == client.get(f"/v1/query-sets/{made['id']}").json() == made

    def test_are_listed_newest_first_page_by_page_and_by_collection(self, client: TestClient) -> None:
        client.post("/v1/collections", json={"name": "handbook"}).raise_for_status()
        names = [make(client, f"s{n}", collection="handbook" if n % 2 else "default")["name"] for n in range(4)]
        first = client.get("/v1/query-sets", params={"limit": 3}).json()
        assert [one["name"] for one in first["data"]] == names[:0:-1]
        rest = client.get("/v1/query-sets", params={"after": first["next_cursor"]}).json()
        assert ([one["name"] for one in rest["data"]], rest["has_more"]) == (names[:1], False)
        of_one = client.get("/v1/query-sets", params={"collection": "handbook"}).json()["data"]
        assert [one["name"] for one in of_one] == ["s3", "s1"]

    def test_change_their_name_and_description_and_go(self, client: TestClient) -> None:
        make(client, "golden", LEAVE)
        make(client, "other")
        changed = client.patch("/v1/query-sets/golden", json={"name": "gilded", "description": "d"}).json()
        assert (changed["name"], changed["description"], changed["query_count"]) == ("gilded", "d", 1)
        refused(client.patch("/v1/query-sets/gilded", json={"name": "other"}), 409, "query_set_exists")
        assert client.delete("/v1/query-sets/gilded").json()["name"] == "gilded"
        refused(client.get("/v1/query-sets/gilded"), 404, "not_found")
        make(client, "gilded")
        assert queries(client, "gilded") == []

    def test_go_with_their_collection(self, client: TestClient) -> None:
        client.post("/v1/collections", json={"name": "handbook"}).raise_for_status()
        make(client, "golden", LEAVE, collection="handbook")
        make(client, "kept", LEAVE)
        client.delete("/v1/collections/handbook").raise_for_status()
        assert [one["name"] for one in client.get("/v1/query-sets").json()["data"]] == ["kept"]

    @pytest.mark.parametrize("name", ["qs_mine", "", "a b", "x" * 101, "../x"])
    def test_have_names_that_look_like_no_id(self, client: TestClient, name: str) -> None:
        assert client.post("/v1/query-sets", json={"name": name}).status_code == 422

    def test_of_an_unknown_collection_are_not_made(self, client: TestClient) -> None:
        refused(client.post("/v1/query-sets", json={"name": "x", "collection": "nowhere"}), 404, "no such collection")
        assert client.get("/v1/query-sets").json()["data"] == []

    def test_belong_to_their_team_alone(self, team: Team, other_team: Team) -> None:
        theirs = make(team.manager, "golden", LEAVE)
        intruder = other_team.manager
        nobody = intruder.get("/v1/query-sets/qs_nobodys").json()["detail"]
        for name in ("golden", theirs["id"]):
            for path in ("", "/queries", "/export"):
                assert intruder.get(f"/v1/query-sets/{name}{path}").json()["detail"] == nobody
            assert intruder.put(f"/v1/query-sets/{name}/queries", json={"queries": []}).status_code == 404
            assert intruder.delete(f"/v1/query-sets/{name}").status_code == 404
        make(intruder, "golden")
        assert len(queries(team.manager)) == 1

    def test_are_for_keys_that_manage(self, team: Team) -> None:
        assert team.client("query", "ingest", "impersonate").get("/v1/query-sets").status_code == 403


class TestQueries:
    def test_come_back_as_they_were_sent_and_in_their_order(self, client: TestClient) -> None:
        make(client, "golden", FULL, LEAVE, BOARD)
        full, leave, board = queries(client)
        assert {name: full[name] for name in FULL} == {
            **FULL,
            "expected": [
                {"document_id": "doc_1", "external_id": None, "grade": 2},
                {"document_id": None, "external_id": "tab\there", "grade": 1},
            ],
        }
        assert (leave["id"], leave["as_user"], leave["expect_nothing"]) == ("leave", None, False)
        assert (board["expected"], board["expect_nothing"]) == ([], True)
        assert board["as_user"] == {"user": "ada", "groups": []}

    def test_are_appended_and_replaced_and_named_where_they_are_not(self, client: TestClient) -> None:
        make(client, "golden", {"query": "a", "expect_nothing": True})
        added = client.post("/v1/query-sets/golden/queries", json={"queries": [LEAVE, {**BOARD, "id": ""}]}).json()
        assert added["query_count"] == 3
        assert [query["id"] for query in queries(client)] == ["q1", "leave", "q3"]
        replaced = client.put("/v1/query-sets/golden/queries", json={"queries": [BOARD]}).json()
        assert replaced["query_count"] == 1
        assert replaced["updated_at"] > added["updated_at"]
        assert [query["id"] for query in queries(client)] == ["board"]

    def test_are_listed_page_by_page(self, client: TestClient) -> None:
        make(client, "golden", *({"query": f"n {n}", "expect_nothing": True} for n in range(7)))
        first = client.get("/v1/query-sets/golden/queries", params={"limit": 4}).json()
        second = client.get("/v1/query-sets/golden/queries", params={"limit": 4, "after": first["next_cursor"]}).json()
        assert [one["query"] for one in first["data"] + second["data"]] == [f"n {n}" for n in range(7)]
        assert second["next_cursor"] is None
        for wrong in ("x", "-1", "9" * 30, "\u00b2"):
            refused(client.get("/v1/query-sets/golden/queries", params={"after": wrong}), 422, "cursor")

    def test_have_ids_of_their_own(self, client: TestClient) -> None:
        make(client, "golden", LEAVE)
        answer = client.post("/v1/query-sets/golden/queries", json={"queries": [BOARD, LEAVE]})
        refused(answer, 422, "id_twice")
        assert [query["id"] for query in queries(client)] == ["leave"]

    @pytest.mark.parametrize(
        "wrong",
        [
            {"query": "x"},
            {"query": " ", "expect_nothing": True},
            {"query": "x", "expect_nothing": True, "expected": [{"external_id": "a"}]},
            {"query": "x", "expected": [{"grade": 1}]},
            {"query": "x", "expected": [{"external_id": "a", "document_id": "b"}]},
            {"query": "x", "expected": [{"external_id": "a", "grade": 4}]},
            {"query": "x", "expected": [{"external_id": "a", "grade": 0}]},
            {"query": "x", "expected": [{"external_id": "a"}, {"external_id": "a", "grade": 2}]},
            {"query": "x", "expect_nothing": True, "filter": {"$nonsense": 1}},
            {"query": "x", "expect_nothing": "yes"},
            {"query": "x" * 8_193, "expect_nothing": True},
        ],
        ids=str,
    )
    def test_that_make_no_sense_are_refused_whole(self, client: TestClient, wrong: dict[str, Any]) -> None:
        answer = client.post("/v1/query-sets", json={"name": "golden", "queries": [LEAVE, wrong]})
        refused(answer, 422, "invalid_request")
        assert client.get("/v1/query-sets/golden").status_code == 404

    def test_are_ten_thousand_at_most(self, team: Team) -> None:
        made = make(team.manager, "golden")
        database = team.service.runtime.database
        many = [LabelledQuery(id="", query="q", expect_nothing=True)] * query_sets.MOST_QUERIES
        with database.transaction() as transaction:
            found = query_sets.get(transaction.connection, team.id, made["id"])
            assert query_sets.add_queries(transaction.connection, found, many).query_count == 10_000
        refused(team.manager.post("/v1/query-sets/golden/queries", json={"queries": [LEAVE]}), 413, "10,000")
        with pytest.raises(LimitExceeded), database.transaction() as transaction:
            query_sets.add_queries(transaction.connection, found, [*many, many[0]], replace=True)
        assert len(queries(team.manager, limit=1000)) == 1000

    def test_of_two_writers_at_once_are_all_there(self, team: Team) -> None:
        make(team.manager, "golden")
        stale = [LabelledQuery(id="a", query="q", expect_nothing=True)]
        with team.service.runtime.database.read() as connection:
            before = query_sets.get(connection, team.id, "golden")
        team.manager.post("/v1/query-sets/golden/queries", json={"queries": [LEAVE]}).raise_for_status()
        with team.service.runtime.database.transaction() as transaction:
            assert query_sets.add_queries(transaction.connection, before, stale).query_count == 2
        assert [query["id"] for query in queries(team.manager)] == ["leave", "a"]


class TestFiles:
    def upload(self, client: TestClient, content: bytes, name: str = "copy", **more: str) -> Response:
        answer: Response = client.post(
            "/v1/query-sets:import", data={"name": name, **more}, files={"file": ("set", content)}
        )
        return answer

    @pytest.mark.parametrize("form", ["zip", "tar.gz", "csv"])
    def test_go_out_and_in_again_without_loss(self, client: TestClient, form: str) -> None:
        make(client, "golden", FULL, LEAVE, BOARD)
        out = client.get("/v1/query-sets/golden/export", params={"format": form})
        assert f'filename="golden.{form}"' in out.headers["Content-Disposition"]
        taken = self.upload(client, out.content)
        assert taken.status_code == 201, taken.text
        assert taken.json()["query_count"] == 3
        assert queries(client, "copy") == queries(client, "golden")
        again = client.get("/v1/query-sets/copy/export", params={"format": form})
        assert len(again.content) == len(out.content)

    def test_of_a_plain_table_are_taken_in(self, client: TestClient) -> None:
        table = "query,external_id,grade\nleave?,hr/leave,3\nleave?,hr/faq,\nlunch?,canteen,1\n"
        assert self.upload(client, table.encode()).json()["query_count"] == 2
        leave, lunch = queries(client, "copy")
        assert [(one["external_id"], one["grade"]) for one in leave["expected"]] == [("hr/leave", 3), ("hr/faq", 1)]
        assert lunch["query"] == "lunch?"

    def test_of_a_folder_as_beir_has_them_are_taken_in(self, client: TestClient) -> None:
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr("scifact/corpus.jsonl", "not looked at")
            archive.writestr("scifact/queries.jsonl", '{"_id": "1", "text": "a"}\n{"_id": "2", "text": "b"}\n')
            archive.writestr("scifact/qrels/train.tsv", "query-id\tcorpus-id\tscore\n1\tother\t1\n")
            archive.writestr("scifact/qrels/test.tsv", "query-id\tcorpus-id\tscore\n1\td1\t4\n1\td2\t0\n2\td3\t0\n")
        assert self.upload(client, packed.getvalue()).json()["query_count"] == 1
        (query,) = queries(client, "copy")
        assert query["expected"] == [{"document_id": None, "external_id": "d1", "grade": 3}]

    def test_replace_a_set_only_where_that_is_asked(self, client: TestClient) -> None:
        make(client, "golden", LEAVE)
        table = b"query,external_id\nlunch?,canteen\n"
        refused(self.upload(client, table, "golden"), 409, "query_set_exists")
        assert self.upload(client, table, "golden", on_conflict="replace").json()["query_count"] == 1
        assert queries(client)[0]["query"] == "lunch?"
        assert self.upload(client, table, "new", on_conflict="replace").status_code == 201

    def test_replace_no_set_about_another_collection(self, client: TestClient) -> None:
        client.post("/v1/collections", json={"name": "de"}).raise_for_status()
        make(client, "golden", LEAVE)
        table = b"query,external_id\nlunch?,canteen\n"
        answer = self.upload(client, table, "golden", on_conflict="replace", collection="de")
        refused(answer, 409, "query_set_of_another_collection")
        assert "Leave collection out" in answer.json()["detail"]
        assert [query["id"] for query in queries(client)] == ["leave"]
        named = self.upload(client, table, "golden", on_conflict="replace", collection="default")
        assert named.json()["collection"] == "default"
        self.upload(client, table, "deutsch", collection="de").raise_for_status()
        assert self.upload(client, table, "deutsch", on_conflict="replace").json()["collection"] == "de"

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (b"PK\x03\x04 and nothing more", "damaged"),
            (b"PKs of all cases\nx\n", "row 2"),
            (b"\x1f\x8b and nothing more", "damaged"),
            (b"\xff\xfe\x00", "UTF-8"),
            (b"question,answer\na,b\n", "row 2"),
            (b"query,external_id,grade\na,b,7\n", "row 2"),
            (b"query,external_id,filter\na,b,{\n", "row 2"),
            (b'query,external_id,as_user\na,b,"{""name"": 1}"\n', "as_user"),
            (b"query\nnobody judged it\n", "row 2: the query names no document"),
            (b"query\n", "no query with expected documents"),
            (b'query,external_id,filter\na,b,"{""$no"": 1}"\n', "filter"),
            (b'query,expect_nothing,as_user\na,true,"{""user"": ""\\u0000""}"\n', "NUL"),
        ],
        ids=lambda value: repr(value)[:30],
    )
    def test_that_are_broken_are_refused_and_say_where(self, client: TestClient, content: bytes, said: str) -> None:
        refused(self.upload(client, content), 422, said)
        assert client.get("/v1/query-sets").json()["data"] == []

    def test_that_unpack_to_too_much_are_refused(self, client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(files, "LARGEST", 1_000_000)
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as tar:
            member = tarfile.TarInfo("queries.jsonl")
            member.size = 2_000_000
            tar.addfile(member, io.BytesIO(bytes(member.size)))
        zipped = io.BytesIO()
        with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("queries.jsonl", bytes(member.size))
        for bomb in (packed, zipped):
            assert len(bomb.getvalue()) < 10_000
            refused(self.upload(client, bomb.getvalue()), 413, "Leave the corpus out")

    def test_are_sent_as_forms(self, client: TestClient) -> None:
        assert client.post("/v1/query-sets:import", json={"name": "x"}).status_code == 415
