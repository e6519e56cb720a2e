"""Whatever is sent, no route answers 5xx, and every refusal is a problem."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import Service, Team
from tests.security.test_routes import own_everything

# Names that the routes know, so that random bodies get past the first check now and then.
NAMES = (
    *(
        "acl",
        "as_user",
        "collection",
        "collections",
        "config",
        "confirm_deletions",
        "deletion_protection",
        "deny_users",
    ),
    *(
        "description",
        "documents",
        "expires_at",
        "explain",
        "external_id",
        "filter",
        "fusion",
        "groups",
        "highlight",
        "k",
    ),
    *("document_id", "index_version"),
    *("queries", "expected", "expect_nothing", "grade"),
    *("id", "max_chunks_per_document", "max_percent", "media_type", "metadata", "method", "min_score", "mode", "name"),
    *(
        "on_conflict",
        "public",
        "query",
        "root",
        "schedule_s",
        "scopes",
        "text",
        "title",
        "top_k",
        "type",
        "uri",
        "user",
    ),
    *("users", "weights", "$and", "$or", "$not", "$in", "$gt", "$exists", "$eq"),
)
WORDS = ("default", "files", "hybrid", "query", "manage", "rrf", "replace", "text/html", "2026-01-01", "/nowhere", "a")

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.sampled_from(WORDS),
    st.text(st.characters(), max_size=20),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.one_of(st.sampled_from(NAMES), st.text(max_size=5)), inner)
    ),
    max_leaves=12,
)
bodies = st.one_of(st.dictionaries(st.sampled_from(NAMES), values, max_size=6), values)
starts: dict[str, dict[str, Any]] = {
    "create_team": {"name": "x"},
    "create_key": {"name": "k", "scopes": ["query"]},
    "create_collection": {"name": "c"},
    "create_document": {"text": "x"},
    "create_source": {"name": "s", "type": "files", "config": {"root": "/nowhere"}},
    "validate_source": {"type": "files", "config": {"root": "/nowhere"}},
    "replace_document_content": {"text": "x"},
    "retrieve": {"query": "x"},
    "why_not": {"query": "x", "external_id": "a"},
    "replay_query": {"query": "x"},
    "create_query_set": {"name": "s"},
    "create_query_set_from_feedback": {"name": "s"},
    "add_labelled_queries": {"queries": [{"query": "x", "expected": [{"external_id": "a"}]}]},
    "replace_labelled_queries": {"queries": []},
}


class Ids(dict[str, str]):
    """Ids by the names that paths give them; of what there is none of, one that nobody has."""

    def __missing__(self, name: str) -> str:
        return f"{name}_of_nobody"


@pytest.fixture(scope="module")
def own(service: Service) -> Team:
    team = service.new_team()
    team.manager.post("/v1/query-sets", json={"name": "golden"}).raise_for_status()
    probe = {"name": "p", "query": "x", "expect": {"nothing": True}}
    team.manager.post("/v1/probes", json=probe).raise_for_status()
    return team


@pytest.fixture(scope="module")
def operations(service: Service) -> list[tuple[str, str, str]]:
    return [(operation["operationId"], method, path) for path, method, operation in described(service)]


@pytest.fixture(scope="module")
def parameters(service: Service) -> dict[str, list[str]]:
    """Of what is read: the parameters that its query may have."""
    return {
        operation["operationId"]: [
            one["name"].replace("*", "a") for one in operation["parameters"] if one.get("in") == "query"
        ]
        for _, method, operation in described(service)
        if method == "get"
    }


def described(service: Service) -> list[tuple[str, str, dict[str, Any]]]:
    paths = service.anonymous.get("/openapi.json").json()["paths"]
    return [
        (path, method, operation)
        for path, item in paths.items()
        for method, operation in item.items()
        if path.startswith("/v1/")
    ]


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_no_body_breaks_a_route(own: Team, operations: list[tuple[str, str, str]], data: st.DataObject) -> None:
    made = own.put("Something to change.")
    query_id = own.admin.post("/v1/retrieve", json={"query": "x"}).json()["query_id"]
    ids = {"document_id": made["id"], "job_id": made["job_id"], "collection": "default", "team_id": own.id}
    ids |= {"query_set": "golden", "probe_id": own.manager.get("/v1/probes").json()["data"][0]["id"]}
    name, method, path = data.draw(st.sampled_from([row for row in operations if row[1] not in ("get", "delete")]))
    drawn = data.draw(bodies)
    body = {**starts.get(name, {}), **drawn} if isinstance(drawn, dict) else drawn
    address = path.format_map(Ids(ids, query_id=query_id))
    sent = json.dumps(body).encode()
    answer = own.admin.request(method, address, content=sent, headers={"Content-Type": "application/json"})
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400:
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.json()["status"] == answer.status_code


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_no_address_breaks_a_route(
    own: Team, operations: list[tuple[str, str, str]], parameters: dict[str, list[str]], data: st.DataObject
) -> None:
    junk = st.one_of(st.sampled_from(("0", "-1", "9" * 30, "true", "", "ready", "default")), st.text(max_size=30))
    name, _, path = data.draw(st.sampled_from([row for row in operations if row[1] == "get"]))
    names = st.sampled_from([*parameters[name], "unknown"])
    query = data.draw(st.dictionaries(names, junk, max_size=4))
    address = path
    for parameter in [part.strip("{}") for part in path.split("/") if part.startswith("{")]:
        address = address.replace(
            f"{{{parameter}}}", data.draw(st.from_regex(r"[A-Za-z0-9_.:~%-]{1,40}", fullmatch=True))
        )
    answer = own.admin.get(address, params=query)
    assert answer.status_code < 500, (name, answer.text)


def test_no_list_takes_a_cursor_that_no_page_gave(service: Service, tmp_path: Path) -> None:
    owned = own_everything(service, tmp_path, "paged")
    lists = [
        (operation["operationId"], path.format(**owned.ids))
        for path, _, operation in described(service)
        if any(parameter.get("name") == "after" for parameter in operation.get("parameters", ()))
    ]
    assert len(lists) > 15
    for name, address in lists:
        # Teams are named by people: to them, that is the place of a team that has gone.
        named = () if name == "list_teams" else ("zzz", "9" * 26)
        for wrong in ("", "No cursor", "\u00b2", *named):
            answer = owned.team.admin.get(address, params={"after": wrong})
            assert answer.status_code == 422, (name, wrong)
            assert answer.json()["detail"] == "after is no cursor. Send the next_cursor of the page before.", name
