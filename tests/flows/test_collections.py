"""Collections: made, described, found by name or id, deleted with all that is in them."""

from __future__ import annotations

import pytest

from tests.conftest import Team


def test_a_collection_is_found_by_name_and_by_id(team: Team) -> None:
    made = team.manager.post("/v1/collections", json={"name": "hand_book-2.0", "description": "All that is HR"})
    assert made.status_code == 201
    by_name = team.client("query").get("/v1/collections/hand_book-2.0").json()
    by_id = team.client("ingest").get(f"/v1/collections/{made.json()['id']}").json()
    assert by_name == by_id == made.json()
    assert (by_id["language"], by_id["description"]) == ("auto", "All that is HR")


@pytest.mark.parametrize("name", ["", "-a", "a b", "a/b", "col_mine", "x" * 101, "ä"])
def test_a_name_that_could_not_stand_in_an_address_is_refused(team: Team, name: str) -> None:
    answer = team.manager.post("/v1/collections", json={"name": name})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "name")


def test_names_are_unique_within_a_team_only(team: Team, other_team: Team) -> None:
    for each in (team, other_team):
        assert each.manager.post("/v1/collections", json={"name": "notes"}).status_code == 201
    again = team.manager.post("/v1/collections", json={"name": "notes"})
    assert (again.status_code, again.json()["code"]) == (409, "collection_exists")
    team.manager.post("/v1/collections", json={"name": "drafts"})
    taken = team.manager.patch("/v1/collections/drafts", json={"name": "notes"})
    assert (taken.status_code, taken.json()["code"]) == (409, "collection_exists")


def test_name_and_description_change_and_the_documents_stay(team: Team) -> None:
    team.manager.post("/v1/collections", json={"name": "old"})
    team.put("Whales are mammals.", collection="old")
    team.drain()
    changed = team.manager.patch("/v1/collections/old", json={"name": "new", "description": "d"})
    assert (changed.json()["name"], changed.json()["description"]) == ("new", "d")
    assert team.manager.get("/v1/collections/old").status_code == 404
    assert team.retrieve("whales", collections=["new"])[0]["collection"] == "new"


def test_the_default_collection_keeps_its_name_and_stays(team: Team) -> None:
    assert team.manager.patch("/v1/collections/default", json={"name": "x"}).status_code == 409
    assert team.manager.patch("/v1/collections/default", json={"description": "d"}).status_code == 200
    assert team.manager.delete("/v1/collections/default").status_code == 409


def test_a_deleted_collection_takes_its_documents_with_it(team: Team) -> None:
    team.manager.post("/v1/collections", json={"name": "short"})
    made = team.put("Whales are mammals.", collection="short")
    team.put("Whales in the default collection.")
    team.drain()
    gone = team.manager.delete("/v1/collections/short")
    assert gone.status_code == 202
    missing = team.manager.post("/v1/retrieve", json={"query": "whales", "collections": ["short"]})
    assert missing.status_code == 404
    team.drain()
    assert team.manager.get(f"/v1/jobs/{gone.json()['job_id']}").json()["state"] == "succeeded"
    tombstone = team.document(made["id"])
    assert (tombstone["status"], tombstone["collection"]) == ("deleted", None)
    assert len(team.retrieve("whales")) == 1


def test_several_collections_are_searched_as_one(team: Team) -> None:
    for name in ("north", "south"):
        team.manager.post("/v1/collections", json={"name": name})
        team.put(f"Whales of the {name} sea.", collection=name)
    team.put("Whales at home.")
    team.drain()
    found = team.retrieve("whales sea", collections=["north", "south", "north"])
    assert {hit["collection"] for hit in found} == {"north", "south"}
    assert {hit["collection"] for hit in team.retrieve("whales")} == {"default"}


def test_words_are_read_in_the_language_of_the_collection(team: Team) -> None:
    for name, language in (("cn", "cjk"), ("de", "german"), ("src", "code")):
        made = team.manager.post("/v1/collections", json={"name": name, "language": language})
        assert (made.status_code, made.json()["language"]) == (201, language)
    team.put("很多中国人喜欢喝茶。", collection="cn", external_id="tea")
    team.put("机器学习很有用。", collection="cn", external_id="machines")
    team.put("Das Haus wurde verkauft.", collection="de", external_id="house")
    team.put("def decode_utf8(data): return data", collection="src", external_id="decoder")
    team.drain()

    def found(query: str, collection: str) -> list[str]:
        hits = team.retrieve(query, mode="lexical", collections=[collection])
        return [hit["external_id"] for hit in hits]

    assert found("中国", "cn") == found("茶", "cn") == ["tea"]
    assert found("Häuser", "de") == ["house"]
    assert found("utf", "src") == found("decode_utf8", "src") == ["decoder"]
    assert found("中国", "de") == []


def test_an_unknown_language_is_refused(team: Team) -> None:
    answer = team.manager.post("/v1/collections", json={"name": "x", "language": "klingon"})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "language")


def test_the_language_stays_and_the_answer_says_why(team: Team) -> None:
    team.manager.post("/v1/collections", json={"name": "notes", "language": "german"})
    same = team.manager.patch("/v1/collections/notes", json={"language": "german", "description": "d"})
    assert (same.status_code, same.json()["description"]) == (200, "d")
    other = team.manager.patch("/v1/collections/notes", json={"language": "english"})
    assert (other.status_code, other.json()["code"]) == (409, "language_fixed")
    assert "belongs to its index" in other.json()["detail"]


def test_only_managers_change_collections(team: Team) -> None:
    client = team.client("query", "ingest", "impersonate")
    assert client.post("/v1/collections", json={"name": "mine"}).status_code == 403
    assert client.patch("/v1/collections/default", json={"description": "x"}).status_code == 403
    assert client.delete("/v1/collections/default").status_code == 403
    assert client.get("/v1/collections").status_code == 200
