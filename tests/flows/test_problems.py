"""Whatever goes wrong is a problem in one shape, which never repeats what was sent."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from fastapi.testclient import TestClient
from httpx2 import Response

from rag_service.api.app import create_app
from rag_service.api.limits import FORM_SLACK, BodyLimit
from rag_service.errors import LimitExceeded
from tests.conftest import ADMIN_KEY, Service, Started, Team, settings_for

MARK = "repeat-me-not"


def problem(answer: Response, status: int) -> dict[str, Any]:
    """The body of an answer that must be a problem of this status, and nothing of the request."""
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert {"type", "title", "status", "detail", "instance", "code", "request_id"} <= body.keys()
    assert body.keys() <= {"type", "title", "status", "detail", "instance", "code", "request_id", "errors"}
    assert body["status"] == status
    assert body["request_id"] == answer.headers["X-Request-Id"]
    assert body["detail"].endswith(".")
    assert MARK not in answer.text
    return body


def send(client: TestClient, body: bytes | str, path: str = "/v1/documents") -> Response:
    return client.post(path, content=body, headers={"Content-Type": "application/json"})


def test_unknown_routes_and_methods_are_problems(team: Team) -> None:
    assert problem(team.manager.get("/v1/nothing"), 404)["code"] == "no_such_route"
    wrong = team.manager.put("/v1/retrieve")
    assert problem(wrong, 405)["code"] == "method_not_allowed"
    assert wrong.headers["Allow"] == "POST"
    assert problem(team.manager.get("/v1/documents/"), 404)["instance"] == "/v1/documents/"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"repeat-me-not"',
        b'{"text": ["repeat-me-not"]}',
        b'{"text": "x", "repeat-me-not!": 1}',
        b'{"text": "x", "on_conflict": "repeat-me-not"}',
        b'{"text": "x", "acl": {"users": "repeat-me-not"}}',
        b'{"text": "x", "metadata": {"repeat-me-not ": 1}}',
        b'{"text": "x", "metadata": "repeat-me-not"}',
        b'{"text": "x", "metadata": {"k": {"repeat-me-not": 1}}}',
        b'{"text": "x", "collection": 1e999}',
        b'{"text": "\xff"}',
        b"\xff\xfe{\x00}\x00",
    ],
)
def test_a_body_that_cannot_be_understood_is_422_and_is_not_repeated(team: Team, body: bytes) -> None:
    problem(send(team.manager, body), 422)


@pytest.mark.parametrize("path", ["/v1/retrieve", "/v1/collections", "/v1/documents", "/v1/documents:batch"])
def test_a_body_that_is_not_what_the_route_takes_is_told_what_to_send(team: Team, path: str) -> None:
    for kind in ("", "text/plain", "application/x-www-form-urlencoded", "application/jsonl"):
        answer = team.manager.post(path, content=b'{"query": "repeat-me-not"}', headers={"Content-Type": kind})
        body = problem(answer, 415)
        assert (body["code"], "application/json" in body["detail"]) == ("unsupported_content_type", True)
    assert problem(send(team.manager, b"", path), 422)["detail"] == "Send a JSON body."
    for wrong in (b"null", b"[]", b'"repeat-me-not"'):
        assert problem(send(team.manager, wrong, path), 422)["detail"] == "Input should be a JSON object."


@pytest.mark.parametrize(
    "kind", ["application/json; charset=utf-8", "Application/JSON", "application/merge-patch+json"]
)
def test_every_kind_of_json_is_taken(team: Team, kind: str) -> None:
    made = team.put("The rules.", metadata={"year": 2030})
    changed = team.manager.patch(
        f"/v1/documents/{made['id']}/metadata", content=b'{"year": null}', headers={"Content-Type": kind}
    )
    assert (changed.status_code, team.document(made["id"])["metadata"]) == (202, {})


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "9223372036854775808", "1" * 5000])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/documents", '{"text": "x", "metadata": {"k": %s}}'),
        ("/v1/retrieve", '{"query": "x", "filter": {"k": %s}}'),
        ("/v1/retrieve", '{"query": "x", "min_score": %s, "top_k": %s}'),
    ],
)
def test_numbers_that_json_or_the_stores_do_not_know_are_422(team: Team, path: str, body: str, number: str) -> None:
    problem(send(team.manager, body.replace("%s", number), path), 422)


@pytest.mark.parametrize("text", ["a\\u0000b", "\\ud800", "\\udfff\\ud800", "ok \\ud83d"])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/documents", '{"text": "%s"}'),
        ("/v1/documents", '{"text": "x", "external_id": "%s"}'),
        ("/v1/documents", '{"text": "x", "metadata": {"k": ["%s"]}}'),
        ("/v1/documents", '{"text": "x", "acl": {"users": ["%s"]}}'),
        ("/v1/documents:batch", '{"documents": [{"text": "%s"}]}'),
        ("/v1/retrieve", '{"query": "%s"}'),
        ("/v1/retrieve", '{"query": "x", "filter": {"%s": 1}}'),
        ("/v1/collections", '{"name": "c", "description": "%s"}'),
    ],
)
def test_text_that_no_store_can_hold_is_422_wherever_it_stands(team: Team, path: str, body: str, text: str) -> None:
    assert problem(send(team.manager, body % text, path), 422)["code"] == "invalid_text"


def test_escapes_of_real_characters_are_text_like_any_other(team: Team) -> None:
    answer = send(team.manager, '{"text": "\\ud83d\\ude00 caf\\u00e9 \\\\u0000", "external_id": "\\u00e9"}')
    assert answer.status_code == 202
    assert answer.json()["external_id"] == "é"
    team.drain()
    text = team.manager.get(f"/v1/documents/{answer.json()['id']}/text").json()["text"]
    assert "😀 café \\u0000" in text


def test_json_nested_without_end_is_422(team: Team) -> None:
    for depth in (100, 900, 5_000, 100_000):
        problem(send(team.manager, '{"query": "x", "filter": ' + '{"$not":' * depth + "1" + "}" * depth + "}"), 422)
        problem(send(team.manager, "[" * depth + "]" * depth, "/v1/documents"), 422)


@pytest.mark.parametrize("path", ["/v1/documents/%00", "/v1/documents?external_id=%00", "/v1/collections/a%00b"])
def test_an_address_with_nul_is_422(team: Team, path: str) -> None:
    assert problem(team.manager.get(path), 422)["code"] == "invalid_text"


@pytest.mark.parametrize(
    ("method", "address", "named", "known"),
    [
        ("DELETE", "/v1/sources/src_1?document=keep", "document", "This route takes documents."),
        ("GET", "/v1/jobs?status=failed&limit=1", "status", "takes state, kind, source, document, limit, after."),
        ("GET", "/v1/documents?metadatum.k=1", "metadatum.k", "takes status, source, collection, external_id, "),
        ("GET", "/v1/admin/audit?actions=x", "actions", "takes limit, after, action, target, key, request_id, "),
        ("GET", "/v1/documents/doc_1?repeat-me-not%20=1", "(unreadable name)", "This route takes none."),
    ],
)
def test_a_parameter_that_the_route_does_not_know_is_422(
    team: Team, method: str, address: str, named: str, known: str
) -> None:
    body = problem(team.manager.request(method, address), 422)
    assert (body["errors"][0]["location"], body["errors"][0]["field"]) == ("query", named)
    assert known in body["detail"]


def test_a_request_keeps_its_id_if_it_is_a_sensible_one(service: Service) -> None:
    given = service.anonymous.get("/livez", headers={"X-Request-Id": "trace-1/a:b.c"})
    assert given.headers["X-Request-Id"] == "trace-1/a:b.c"
    for bad in ("x" * 129, "a b", "<script>", ""):
        made = service.anonymous.get("/livez", headers={"X-Request-Id": bad}).headers["X-Request-Id"]
        assert made.startswith("req_")


def test_a_defect_is_a_500_that_tells_nothing_and_logs_everything(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    app = create_app(service.runtime)

    @app.get("/broken/{name}")
    def broken(name: str) -> None:
        raise ZeroDivisionError(MARK)

    headers = {"Authorization": f"Bearer {ADMIN_KEY}", "X-Request-Id": "find-me"}
    with caplog.at_level(logging.ERROR):
        answer = TestClient(app).get("/broken/salaries", headers=headers)
    assert problem(answer, 500)["code"] == "internal_error"
    assert "find-me" in caplog.text
    assert MARK in caplog.text
    assert "GET /broken/{name} failed" in caplog.text


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that takes little at once."""
    settings = settings_for(Path(tmp_path_factory.mktemp("narrow")), max_batch_bytes=4_096, max_upload_bytes=8_192)
    with Started(settings, worker=False) as started:
        yield started


def test_a_body_over_the_limit_is_413_by_its_length_and_by_its_chunks(narrow: Service) -> None:
    client = narrow.new_team().manager
    body = b'{"text": "' + b"x" * 5_000 + b'"}'
    assert problem(send(client, body), 413)["code"] == "limit_exceeded"
    chunked = client.post(
        "/v1/documents",
        content=(body[n : n + 100] for n in range(0, len(body), 100)),
        headers={"Content-Type": "application/json"},
    )
    assert problem(chunked, 413)["code"] == "limit_exceeded"
    assert send(client, b'{"text": "' + b"x" * 4_000 + b'"}').status_code == 202


def test_a_file_over_the_limit_is_413(narrow: Service) -> None:
    client = narrow.new_team().manager

    def upload(size: int) -> Response:
        return client.post("/v1/documents", files={"file": ("a.txt", b"x" * size)})

    assert upload(8_192).status_code == 202
    for size in (8_193, 8_192 + FORM_SLACK):
        body = problem(upload(size), 413)
        assert body["code"] == "limit_exceeded"
        assert "8,192 bytes. Split it, or raise RAG_MAX_UPLOAD_BYTES." in body["detail"]


@pytest.mark.parametrize("second", [("file", ("b.txt", b"repeat-me-not")), ("acl", ("acl.json", b'{"public": true}'))])
def test_a_form_with_another_file_is_told_that_it_takes_one(team: Team, second: Any) -> None:
    for files in ([("file", ("a.txt", b"x")), second], [("file", ("a.txt", b"x"))] * 3, [second, second]):
        body = problem(team.manager.post("/v1/documents", files=files), 422)
        assert body["detail"] == "Send one file per request; metadata and acl are plain fields."


def test_of_an_endless_body_no_more_is_read_than_the_limit() -> None:
    read = 0

    async def endless() -> dict[str, Any]:
        nonlocal read
        read += 1
        return {"type": "http.request", "body": b"x" * 100, "more_body": True}

    async def reader(scope: Any, receive: Any, send: Any) -> None:
        while True:
            await receive()

    async def send_nothing(message: Any) -> None:
        raise AssertionError(message)

    limited = BodyLimit(reader, json_bytes=1_000, upload_bytes=1_000)
    with pytest.raises(LimitExceeded):
        asyncio.run(limited({"type": "http", "headers": [], "path": "/"}, endless, send_nothing))
    assert read == 11


def test_without_a_key_not_even_the_size_of_a_body_matters(narrow: Service) -> None:
    assert problem(send(narrow.anonymous, b"x" * 10_000), 401)["code"] == "not_authenticated"


def test_liveness_looks_at_nothing_and_readiness_names_what_is_wrong(tmp_path: Path) -> None:
    with Started(settings_for(tmp_path), worker=False) as service:
        assert service.anonymous.get("/readyz").json()["ready"] is True
        (tmp_path / "rag.db").rename(tmp_path / "gone.db")
        for leftover in tmp_path.glob("rag.db-*"):
            leftover.unlink()
        service.runtime.database.close()
        not_ready = service.anonymous.get("/readyz")
        assert not_ready.status_code == 503
        assert not_ready.json()["ready"] is False
        assert not_ready.json()["parts"]["database"]["reason"]
        assert service.anonymous.get("/livez").json() == {"status": "ok"}


def test_the_openapi_document_is_complete(service: Service) -> None:
    document = service.anonymous.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    operations = [
        (path, method, operation) for path, item in document["paths"].items() for method, operation in item.items()
    ]
    ids = [operation["operationId"] for _, _, operation in operations]
    assert len(ids) == len(set(ids))
    for path, method, operation in operations:
        assert operation["tags"], path
        assert operation["description"], path
        if path not in ("/livez", "/readyz"):
            assert operation["security"] == [{"key": []}]
            assert {"401", "403", "422", "500", "503"} <= operation["responses"].keys()
        for schema in _bodies(document, operation):
            assert "examples" in schema or schema.get("type") != "object" or "file" in schema["properties"], path
        assert method in ("get", "post", "put", "patch", "delete")


def test_every_link_of_the_openapi_document_leads_to_a_route_with_that_parameter(service: Service) -> None:
    paths = service.anonymous.get("/openapi.json").json()["paths"]
    taken = {operation["operationId"]: path for path, item in paths.items() for operation in item.values()}
    answers = [answer for item in paths.values() for one in item.values() for answer in one["responses"].values()]
    links = [link for answer in answers for link in answer.get("links", {}).values()]
    assert len(links) > 10
    for link in links:
        assert all(f"{{{name}}}" in taken[link["operationId"]] for name in link["parameters"]), link


def test_every_reference_of_the_openapi_document_leads_somewhere(service: Service) -> None:
    document = service.anonymous.get("/openapi.json").json()
    waiting: list[Any] = [document]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            if "$ref" in one:
                target: Any = document
                for part in one["$ref"].removeprefix("#/").split("/"):
                    target = target[part]
            waiting.extend(one.values())
        elif isinstance(one, list):
            waiting.extend(one)


def test_problems_are_what_the_openapi_document_says(service: Service, team: Team) -> None:
    schemas = service.anonymous.get("/openapi.json").json()["components"]["schemas"]
    schema = {**schemas["Problem"], "components": {"schemas": schemas}}
    for answer in (team.manager.get("/v1/jobs/none"), send(team.manager, b"{}"), service.anonymous.get("/v1/jobs")):
        jsonschema.validate(answer.json(), schema)


def test_the_documentation_page_is_open_and_needs_no_internet(service: Service) -> None:
    page = service.anonymous.get("/docs")
    assert page.status_code == 200
    assert "/openapi.json" in page.text
    assert "//" not in page.text.replace("<!doctype html>", "")
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]


def _bodies(document: dict[str, Any], operation: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for content in operation.get("requestBody", {}).get("content", {}).values():
        reference = content["schema"].get("$ref")
        if reference:
            yield document["components"]["schemas"][reference.rpartition("/")[2]]
