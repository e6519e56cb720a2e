"""What a request may look like, and what every answer carries."""

from __future__ import annotations

import gzip
import json
import time
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response

from rag_service.api.limits import MOST_ADDRESS_BYTES, MOST_HEADER_BYTES, MOST_HEADERS
from rag_service.api.strict import loads
from rag_service.errors import InvalidRequest
from tests.conftest import Service, Team


def refused(answer: Response, status: int, code: str) -> Response:
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    return answer


class TestShape:
    def test_an_address_that_is_too_long_is_414_with_and_without_a_key(self, service: Service, team: Team) -> None:
        for client in (service.anonymous, team.manager):
            refused(client.get("/v1/documents/" + "x" * MOST_ADDRESS_BYTES), 414, "address_too_long")
            refused(client.get("/v1/documents", params={"after": "x" * MOST_ADDRESS_BYTES}), 414, "address_too_long")
        assert team.manager.get("/v1/documents/" + "x" * 100).status_code == 404

    def test_headers_that_are_too_many_or_too_large_are_431(self, service: Service, team: Team) -> None:
        many = {f"X-{number}": "x" for number in range(MOST_HEADERS)}
        for client in (service.anonymous, team.manager):
            refused(client.get("/v1/documents", headers=many), 431, "headers_too_large")
            large = client.get("/v1/documents", headers={"X-Large": "x" * MOST_HEADER_BYTES})
            refused(large, 431, "headers_too_large")
        assert team.manager.get("/v1/documents", headers={"X-Large": "x" * 8_000}).status_code == 200

    @pytest.mark.parametrize("encoding", ["gzip", "GZIP", "deflate", "br", "zstd", "identity, gzip", "made-up"])
    def test_a_packed_body_is_415_and_says_what_is_taken(self, team: Team, encoding: str) -> None:
        bomb = gzip.compress(b'{"text": "' + b"x" * 10_000_000 + b'"}')
        headers = {"Content-Type": "application/json", "Content-Encoding": encoding}
        answer = refused(team.manager.post("/v1/documents", content=bomb, headers=headers), 415, "unsupported_encoding")
        assert answer.headers["Accept-Encoding"] == "identity"

    def test_a_body_that_says_it_is_not_packed_is_taken(self, team: Team) -> None:
        headers = {"Content-Encoding": "identity"}
        assert team.manager.post("/v1/documents", json={"text": "x"}, headers=headers).status_code == 202

    @pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "BREW"])
    def test_a_method_that_no_route_knows_is_405_for_those_with_a_key(
        self, service: Service, team: Team, method: str
    ) -> None:
        answer = team.manager.request(method, "/v1/documents")
        assert answer.status_code == 405
        assert answer.headers["Allow"] == "GET, POST"
        assert service.anonymous.request(method, "/v1/documents").status_code == 401

    def test_allow_names_every_method_of_an_address_and_no_other(self, team: Team) -> None:
        def allowed(path: str) -> str:
            return str(team.manager.request("TRACE", path).headers["Allow"])

        assert allowed("/v1/documents/doc_1") == "DELETE, GET"
        assert allowed("/v1/sources/src_1") == "DELETE, GET, PATCH"
        assert allowed("/v1/sources/validate") == "POST"
        assert allowed("/v1/retrieve") == "POST"

    def test_a_question_longer_than_a_question_is_422(self, team: Team) -> None:
        refused(team.manager.post("/v1/retrieve", json={"query": "x" * 8_193}), 422, "invalid_request")
        assert team.manager.post("/v1/retrieve", json={"query": "x" * 8_192}).status_code == 200

    @pytest.mark.parametrize(
        "field",
        [
            {"top_k": "5"},
            {"top_k": True},
            {"highlight": 1},
            {"explain": "yes"},
            {"min_score": "0.5"},
            {"diversity": True},
            {"rerank": 0},
            {"feedback": "true"},
            {"fusion": {"weights": {"dense": "1"}}},
            {"recency": {"weight": "0.5"}},
        ],
        ids=str,
    )
    def test_a_value_of_another_type_is_refused_rather_than_guessed_at(self, team: Team, field: dict[str, Any]) -> None:
        refused(team.manager.post("/v1/retrieve", json={"query": "x", **field}), 422, "invalid_request")

    @pytest.mark.parametrize("public", ["yes", "true", 1, 1.0])
    def test_nothing_but_true_makes_a_document_public(self, team: Team, public: object) -> None:
        answer = team.manager.post("/v1/documents", json={"text": "x", "acl": {"public": public}})
        refused(answer, 422, "invalid_request")

    def test_a_filter_has_ten_levels_at_most(self, team: Team) -> None:
        def filtered(levels: int) -> Response:
            narrowing: dict[str, Any] = {"year": 2026}
            for _ in range(levels - 1):
                narrowing = {"$and": [narrowing]}
            answer: Response = team.manager.post("/v1/retrieve", json={"query": "x", "filter": narrowing})
            return answer

        assert filtered(10).status_code == 200
        assert "deeper than 10" in filtered(11).json()["detail"]

    def test_json_has_64_levels_at_most_however_wide_it_is(self) -> None:
        assert loads("[" * 64 + "]" * 64)
        assert len(loads(json.dumps([[[n]] for n in range(1_000)]))) == 1_000
        for deep in ("[" * 66 + "]" * 66, '{"a":' * 66 + "1" + "}" * 66, "[1," * 66 + "1" + "]" * 66):
            with pytest.raises(InvalidRequest, match="too deeply"):
                loads(deep)

    def test_measuring_a_body_costs_little_beside_reading_it(self) -> None:
        body = json.dumps([{"metadata": {f"k{n}": n for n in range(20)}, "text": "x" * 200} for _ in range(5_000)])
        began = time.thread_time()
        json.loads(body)
        read = time.thread_time() - began
        began = time.thread_time()
        loads(body)
        assert time.thread_time() - began < 5 * read + 0.05


def answers(service: Service, team: Team) -> list[Response]:
    """One of each kind, of every layer that answers."""
    client = team.manager
    return [
        service.anonymous.get("/livez"),
        service.anonymous.get("/openapi.json"),
        service.anonymous.get("/docs"),
        service.anonymous.get("/v1/documents"),
        service.anonymous.get("/" + "x" * 2 * MOST_ADDRESS_BYTES),
        client.get("/v1/documents"),
        client.get("/v1/documents/none"),
        client.put("/v1/documents"),
        client.post("/v1/retrieve", json={"query": "x"}),
        client.post("/v1/retrieve", json={}),
        client.post("/v1/retrieve", content=b"{}", headers={"Content-Encoding": "gzip"}),
        team.client("query").post("/v1/documents", json={"text": "x"}),
    ]


class TestAnswers:
    def test_are_not_guessed_at_kept_framed_or_named_to_others(self, service: Service, team: Team) -> None:
        for answer in answers(service, team):
            headers = answer.headers
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert headers["Cache-Control"] == "no-store"
            assert headers["Referrer-Policy"] == "no-referrer"
            assert headers["X-Frame-Options"] == "DENY"
            assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
            policy = headers["Content-Security-Policy"]
            assert policy.startswith("default-src 'none'")
            assert "frame-ancestors 'none'" in policy
            assert "Server" not in headers
            assert "Access-Control-Allow-Origin" not in headers

    def test_have_each_header_once_and_the_page_its_own_policy(self, service: Service) -> None:
        page = service.anonymous.get("/docs")
        assert len(page.headers.get_list("Content-Security-Policy")) == 1
        assert "script-src" in page.headers["Content-Security-Policy"]
        assert "script-src" not in service.anonymous.get("/livez").headers["Content-Security-Policy"]

    def test_demand_tls_where_they_came_over_it(self, service: Service) -> None:
        over_tls = TestClient(service.anonymous.app, base_url="https://service.example")
        assert "max-age=" in over_tls.get("/livez").headers["Strict-Transport-Security"]
        assert "Strict-Transport-Security" not in service.anonymous.get("/livez").headers

    def test_that_are_problems_carry_them_too_when_a_defect_is_answered(
        self, service: Service, team: Team, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(*_: object) -> None:
            raise ZeroDivisionError

        client = team.manager
        monkeypatch.setattr("rag_service.api.documents.check_size", broken, raising=False)
        monkeypatch.setattr("rag_service.api.uploads.check_size", broken)
        answer = client.post("/v1/documents", json={"text": "x"})
        assert answer.status_code == 500
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cache-Control"] == "no-store"
