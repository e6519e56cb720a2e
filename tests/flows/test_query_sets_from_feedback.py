"""One call makes a query set of what people said of answers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from rag_service.types import utc_now
from tests.conftest import Service, Started, Team, settings_for

PATH = "/v1/query-sets:from-feedback"


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Started(settings_for(tmp_path_factory.mktemp("judged"), trace_content=True), worker=False) as service:
        yield service


@pytest.fixture
def judging(own: Service) -> Team:
    team = own.new_team()
    for name in ("leave", "canteen"):
        team.put(f"All that is to be said of the {name}.", external_id=name)
    own.work()
    return team


def ids(team: Team) -> dict[str, str]:
    return {one["external_id"]: one["id"] for one in team.manager.get("/v1/documents").json()["data"]}


def say(team: Team, query: str, of: str | None = None, **said: Any) -> None:
    """Ask, and say something of the document `of` in the answer."""
    asked = said.pop("ask", {})
    query_id = team.admin.post("/v1/retrieve", json={"query": query, **asked}).json()["query_id"]
    about = {} if of is None else {"document_id": ids(team)[of]}
    answer = team.admin.post("/v1/feedback", json={"query_id": query_id, **about, **said})
    assert answer.status_code == 201, answer.text


def made(team: Team, name: str = "judged", **wanted: Any) -> dict[str, dict[str, int]]:
    """By question, the grades of the documents that the new set expects."""
    answer = team.manager.post(PATH, json={"name": name, **wanted})
    assert answer.status_code == 201, answer.text
    names = {document: external for external, document in ids(team).items()}
    found = team.manager.get(f"/v1/query-sets/{name}/queries").json()["data"]
    return {one["query"]: {names[each["document_id"]]: each["grade"] for each in one["expected"]} for one in found}


def test_likes_and_missed_documents_become_expected_ones(judging: Team) -> None:
    say(judging, "how much leave", "leave", rating="like")
    say(judging, "what is for lunch", "leave", rating="dislike", expected_document_id=ids(judging)["canteen"])
    say(judging, "who cares", "leave", rating="dislike")
    assert made(judging) == {"how much leave": {"leave": 2}, "what is for lunch": {"canteen": 3}}
    record = judging.manager.get("/v1/query-sets/judged").json()
    assert (record["collection"], record["query_count"]) == ("default", 2)


def test_signals_likes_and_time_narrow_it(judging: Team) -> None:
    say(judging, "how much leave", "leave", signals=["copied"])
    say(judging, "lunch", "canteen", rating="like")
    assert made(judging, "liked") == {"lunch": {"canteen": 2}}
    assert made(judging, "used", signals=True) == {"how much leave": {"leave": 1}, "lunch": {"canteen": 2}}
    for wanted in ({"min_likes": 2}, {"since": utc_now().isoformat()}):
        refused = judging.manager.post(PATH, json={"name": "none", **wanted})
        assert (refused.status_code, refused.json()["code"]) == (422, "no_feedback")


def test_a_question_keeps_the_rights_of_whom_it_was_asked_for(judging: Team) -> None:
    say(judging, "how much leave", "leave", rating="like", ask={"as_user": {"user": "ada", "groups": ["staff"]}})
    made(judging)
    (query,) = judging.manager.get("/v1/query-sets/judged/queries").json()["data"]
    assert query["as_user"] == {"user": "ada", "groups": ["staff"]}


def test_deleted_documents_are_expected_of_nobody(judging: Team) -> None:
    say(judging, "how much leave", "leave", rating="like")
    say(judging, "lunch", "canteen", rating="like")
    judging.manager.delete(f"/v1/documents/{ids(judging)['leave']}").raise_for_status()
    assert made(judging) == {"lunch": {"canteen": 2}}


def test_feedback_of_another_team_or_collection_is_not_used(own: Service, judging: Team) -> None:
    say(judging, "how much leave", "leave", rating="like")
    judging.manager.post("/v1/collections", json={"name": "other"}).raise_for_status()
    assert judging.manager.post(PATH, json={"name": "x", "collection": "other"}).status_code == 422
    stranger = own.new_team().manager
    assert stranger.post(PATH, json={"name": "x"}).json()["code"] == "no_feedback"
    assert stranger.post(PATH, json={"name": "x", "collection": "nowhere"}).status_code == 404


def test_a_name_that_is_taken_is_refused(judging: Team) -> None:
    say(judging, "how much leave", "leave", rating="like")
    made(judging)
    assert judging.manager.post(PATH, json={"name": "judged"}).status_code == 409
