"""Files in forms, many documents at once, and lists of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.conftest import Team

MARKDOWN = b"# Badges\n\nLost badges are reported to the porter."


def upload(team: Team, name: str, content: bytes, declared: str = "application/octet-stream", **fields: Any) -> Any:
    return team.manager.post("/v1/documents", files={"file": (name, content, declared)}, data=fields)


def test_a_file_comes_with_its_fields_beside_it(team: Team) -> None:
    answer = upload(
        team,
        "badges.md",
        MARKDOWN,
        title="Badges",
        metadata=json.dumps({"building": "north"}),
        acl=json.dumps({"public": True}),
        on_conflict="error",
    )
    assert answer.status_code == 202, answer.text
    assert answer.json()["external_id"] == "badges.md"
    team.drain()
    record = team.document(answer.json()["id"])
    assert (record["title"], record["media_type"]) == ("Badges", "text/markdown")
    assert record["metadata"] == {"building": "north"}
    assert team.retrieve("lost badges", team.client("query"))[0]["external_id"] == "badges.md"


@pytest.mark.parametrize(
    ("name", "declared", "field", "expected"),
    [
        ("a.html", "application/octet-stream", None, "text/html"),
        ("a.html", "text/plain; charset=utf-8", None, "text/plain"),
        ("a.html", "text/plain", "Text/X-RST", "text/x-rst"),
        ("a.unknown", "application/octet-stream", None, None),
    ],
)
def test_the_media_type_is_the_fields_then_the_declared_then_the_names(
    team: Team, name: str, declared: str, field: str | None, expected: str | None
) -> None:
    more = {} if field is None else {"media_type": field}
    answer = upload(team, name, b"hello there", declared, **more)
    assert team.document(answer.json()["id"])["media_type"] == expected


@pytest.mark.parametrize("name", ["../../etc/passwd.md", "C:\\docs\\passwd.md", "/passwd.md"])
def test_of_a_file_name_only_the_last_part_is_kept(team: Team, name: str) -> None:
    assert upload(team, name, MARKDOWN).json()["external_id"] == "passwd.md"


def test_content_is_replaced_by_a_file(team: Team) -> None:
    made = team.put("The old text about badges.", external_id="badges")
    team.drain()
    path = f"/v1/documents/{made['id']}/content"
    page = b"<html><title>B</title><body><h1>Badges</h1><p>The new page.</p></body></html>"
    answer = team.manager.put(path, files={"file": ("b.html", page, "text/html")}, data={"title": "Page"})
    assert (answer.status_code, answer.json()["version"]) == (202, 2)
    team.drain()
    record = team.document(made["id"])
    assert (record["media_type"], record["title"], record["status"]) == ("text/html", "Page", "ready")
    assert "new page" in team.manager.get(f"/v1/documents/{made['id']}/text").json()["text"]


@pytest.mark.parametrize(
    ("files", "fields", "field"),
    [
        ({}, {"title": "x"}, "file"),
        ({"file": ("a.md", b"")}, {}, "file"),
        ({"file": ("a.md", MARKDOWN)}, {"colour": "red"}, "colour"),
        ({"file": ("a.md", MARKDOWN)}, {"acl": json.dumps({"users": [""]})}, "acl.users.0"),
        ({"file": ("a.md", MARKDOWN)}, {"on_conflict": "merge"}, "on_conflict"),
        ({"other": ("a.md", MARKDOWN)}, {}, "file"),
    ],
)
def test_a_wrong_form_is_refused_by_the_name_of_its_field(
    team: Team, files: dict[str, Any], fields: dict[str, str], field: str
) -> None:
    boundary = files or {"title": (None, "x")}
    answer = team.manager.post("/v1/documents", files=boundary, data=fields if files else {})
    assert answer.status_code == 422, answer.text
    assert field in [error["field"] for error in answer.json()["errors"]]


@pytest.mark.parametrize("value", ["{", '{"k": NaN}', '{"k": "\\ud800"}', '{"k": "\\u0000"}'])
def test_metadata_of_a_form_is_json_as_strict_as_a_body(team: Team, value: str) -> None:
    answer = upload(team, "a.md", MARKDOWN, metadata=value)
    assert (answer.status_code, "metadata" in answer.text or "text" in answer.text) == (422, True)


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_another_kind_of_body_is_refused(team: Team, content_type: str) -> None:
    answer = team.manager.post("/v1/documents", content=b"hello", headers={"Content-Type": content_type})
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_content_type")


@pytest.mark.parametrize("text", ["", "   \n\t "])
def test_a_text_with_nothing_in_it_is_refused(team: Team, text: str) -> None:
    answer = team.manager.post("/v1/documents", json={"text": text})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "text")


def test_a_text_cannot_be_declared_a_pdf(team: Team) -> None:
    answer = team.manager.post("/v1/documents", json={"text": "x", "media_type": "application/pdf"})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "media_type")


def test_each_document_of_a_batch_is_taken_or_refused_for_itself(team: Team) -> None:
    team.put("Already here.", external_id="old")
    documents: list[Any] = [
        {"external_id": "a", "text": "Alpha goes first.", "acl": {"public": True}},
        {"external_id": "b", "text": ""},
        "no document",
        {"external_id": "c", "text": "Gamma.", "collection": "nowhere"},
        {"external_id": "old", "text": "Changed.", "on_conflict": "error"},
        {"external_id": "old", "text": "Changed again.", "on_conflict": "skip"},
        {"external_id": "e", "text": "x", "metadata": {"deep": {"er": 1}}},
        {"external_id": "f", "text": "Zeta.", "on_conflict": "error"},
    ]
    answer = team.manager.post("/v1/documents:batch", json={"documents": documents})
    assert answer.status_code == 200
    results = answer.json()["results"]
    assert [result["index"] for result in results] == list(range(8))
    assert [result["status"] for result in results] == [202, 422, 422, 404, 409, 202, 422, 202]
    for result in results:
        assert (result["document"] is None) == (result["status"] != 202)
        assert (result["problem"] is None) == (result["status"] == 202)
    assert results[1]["problem"]["errors"][0]["field"] == "text"
    assert results[5]["document"]["deduplicated"] is True
    team.drain()
    assert team.retrieve("alpha")[0]["external_id"] == "a"


def test_a_batch_that_names_a_document_twice_keeps_the_last(team: Team) -> None:
    twice = [{"external_id": "a", "text": f"Edition {n}."} for n in range(3)]
    results = team.manager.post("/v1/documents:batch", json={"documents": twice}).json()["results"]
    assert [result["document"]["version"] for result in results] == [1, 2, 3]
    assert len({result["document"]["id"] for result in results}) == 1
    team.drain()
    text = team.manager.get(f"/v1/documents/{results[0]['document']['id']}/text").json()
    assert (text["version"], text["text"].strip()) == (3, "Edition 2.")


@pytest.mark.parametrize("count", [0, 1001])
def test_a_batch_holds_one_to_a_thousand_documents(team: Team, count: int) -> None:
    answer = team.manager.post("/v1/documents:batch", json={"documents": [{"text": "x"}] * count})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "documents")


def test_a_batch_of_hundreds_is_taken_whole(team: Team) -> None:
    documents = [{"external_id": str(n), "text": f"Note {n}.", "metadata": {"n": n}} for n in range(120)]
    results = team.manager.post("/v1/documents:batch", json={"documents": documents}).json()["results"]
    assert [result["document"]["external_id"] for result in results] == [str(n) for n in range(120)]
    team.drain()
    listed = team.manager.get("/v1/documents?status=ready&limit=1000").json()
    assert len(listed["data"]) == 120
    assert listed["has_more"] is False


def test_pages_follow_each_other_without_gap_or_repeat_while_documents_are_added(team: Team) -> None:
    def put(name: str) -> None:
        team.put(f"Text {name}.", external_id=name)

    for n in range(7):
        put(f"old-{n}")
    seen: list[str] = []
    cursor: str | None = None
    while True:
        page = team.manager.get("/v1/documents", params={"limit": 2, **({"after": cursor} if cursor else {})}).json()
        seen += [row["external_id"] for row in page["data"]]
        put(f"new-{len(seen)}")
        cursor = page["next_cursor"]
        assert page["has_more"] == (cursor is not None)
        if cursor is None:
            break
    assert seen == [f"old-{n}" for n in reversed(range(7))]


@pytest.mark.parametrize("limit", ["0", "1001", "many"])
def test_a_limit_out_of_bounds_is_refused(team: Team, limit: str) -> None:
    answer = team.manager.get("/v1/documents", params={"limit": limit})
    assert answer.status_code == 422
    assert answer.json()["errors"][0] | {"code": "", "message": ""} == {
        "location": "query",
        "field": "limit",
        "code": "",
        "message": "",
    }


def test_documents_are_listed_by_status_collection_external_id_and_metadata(team: Team) -> None:
    team.manager.post("/v1/collections", json={"name": "other"})
    team.put("One.", external_id="one", metadata={"year": 2025, "final": True, "author": "Zoë", "word": "true"})
    team.put("Two.", external_id="two", metadata={"year": 2026, "final": False})
    team.put("Three.", external_id="three", collection="other", metadata={"year": 2026, "final": 1})

    def listed(**query: str) -> set[str]:
        page = team.manager.get("/v1/documents", params=query)
        assert page.status_code == 200, page.text
        return {row["external_id"] for row in page.json()["data"]}

    assert listed() == {"one", "two", "three"}
    assert listed(collection="other") == {"three"}
    assert listed(external_id="two") == {"two"}
    assert listed(**{"metadata.year": "2026"}) == {"two", "three"}
    assert listed(**{"metadata.year": "2026", "collection": "default"}) == {"two"}
    assert listed(**{"metadata.author": "Zoë"}) == {"one"}
    assert listed(**{"metadata.final": "true"}) == {"one"}
    assert listed(**{"metadata.final": "false"}) == {"two"}
    assert listed(**{"metadata.word": "true"}) == {"one"}
    for nowhere in ("collection=nowhere", "source=src_none"):
        assert team.manager.get(f"/v1/documents?{nowhere}").status_code == 404
    assert team.manager.get("/v1/documents?status=lost").status_code == 422
    assert team.manager.get('/v1/documents?metadata.a"b=1').status_code == 422
