"""What an evaluation demands, and the files it leaves for continuous integration."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from rag_service.cli import evaluation_run
from rag_service.cli.evaluation_checks import checks, read_baseline, thresholds
from rag_service.cli.evaluation_files import junit, markdown
from rag_service.cli.failure import CommandFailed
from rag_service.evaluation.report import Report, Result
from rag_service.evaluation.scoring import Latency
from rag_service.types import LabelledQuery


def found(*results: Result, degraded: int = 0, **metrics: float) -> Report:
    named = {name.replace("_at_", "@"): value for name, value in metrics.items()}
    return Report(
        queries=max(len(results), 1),
        labelled=len(results),
        metrics=named,
        measured=dict.fromkeys(named, len(results)),
        latency=Latency(1.0, 2.0),
        degraded=degraded,
        results=results,
    )


def result(name: str, ndcg: float, query: str = "a question") -> Result:
    return Result(name, query, {"ndcg@10": ndcg, "mrr": 1.0}, ("a", "b"), 1.0)


class TestChecks:
    def test_hold_at_the_threshold_and_not_below(self) -> None:
        assert [one.passed for one in checks(found(ndcg_at_10=0.7), {"ndcg@10": 0.7}, None, None)] == [True]
        assert [one.passed for one in checks(found(ndcg_at_10=0.7), {"ndcg@10": 0.70001}, None, None)] == [False]

    @pytest.mark.parametrize(("value", "least"), [(float("nan"), 0.1), (0.5, float("nan"))])
    def test_fail_where_a_number_is_none(self, value: float, least: float) -> None:
        assert not checks(found(mrr=value), {"mrr": least}, None, None)[0].passed

    def test_count_the_queries_that_lost_to_a_baseline(self) -> None:
        now = found(result("a", 0.4), result("b", 0.9), result("new", 0.0))
        (check,) = checks(now, {}, {"a": 0.5, "b": 0.9, "gone": 1.0}, None)
        assert (check.passed, check.detail) == (False, "1 of 2 are: a")
        assert checks(now, {}, {"a": 0.5}, 1)[0].passed

    def test_fail_on_a_baseline_of_other_queries(self) -> None:
        assert not checks(found(result("a", 1.0)), {}, {"b": 0.5}, 10)[0].passed

    def test_fail_on_degraded_answers(self) -> None:
        made = checks(found(mrr=1.0, degraded=1), {"mrr": 0.5}, None, None)
        assert [one.passed for one in made] == [True, False]
        assert checks(found(degraded=1), {}, None, None) == ()


def test_thresholds_are_of_known_measures() -> None:
    assert thresholds(["ndcg@10=0.7", "abstention=1"]) == {"ndcg@10": 0.7, "abstention": 1.0}
    for wrong in ("ndcg@10", "ndcg@10=", "precision=1", "=1"):
        with pytest.raises(CommandFailed):
            thresholds([wrong])


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"results": [{"id": "a"}]}', '{"results": [1]}'])
def test_a_baseline_is_an_earlier_run(tmp_path: Path, content: str) -> None:
    file = tmp_path / "baseline.json"
    file.write_text(content)
    with pytest.raises(CommandFailed, match="no earlier run"):
        read_baseline(file)
    file.write_text(json.dumps({"results": [{"id": "a", "scores": {"mrr": 0.5}}, {"id": "b", "scores": {}}]}))
    assert read_baseline(file) == {"a": 0.5}


HOSTILE = 'a | b\n<script>alert(1)</script> \x00\x1b[31m `x` "]]>" & more'


def test_junit_holds_whatever_a_query_says() -> None:
    now = found(result("a", 0.1, HOSTILE), ndcg_at_10=0.1)
    (suite,) = ElementTree.fromstring(junit("golden\x07", now, checks(now, {"ndcg@10": 0.7}, None, None)))
    assert suite.get("failures") == "1"
    failure = suite.find("testcase/failure")
    assert failure is not None
    assert failure.get("message") == "is 0.1000 over 1 queries"
    assert "<script>" in (failure.text or "")


def test_markdown_keeps_a_query_to_its_cell() -> None:
    now = found(result("a", 0.1, HOSTILE), ndcg_at_10=0.1)
    text = markdown("golden", now, checks(now, {"ndcg@10": 0.7}, None, None))
    assert "FAILED" in text.splitlines()[0]
    (row,) = [line for line in text.splitlines() if "script" in line]
    assert row.count("|") - row.count("\\|") == 4
    assert "<script>" not in row
    assert "\x1b" not in row


class Busy:
    """A service that is busy for the first questions."""

    def __init__(self, times: int, status: int = 429) -> None:
        self.left = times
        self.status = status

    def post(self, path: str, content: Any) -> dict[str, Any]:
        self.left -= 1
        if self.left >= 0:
            raise CommandFailed("Too many requests.", problem={"status": self.status})
        hit = {"document_id": "doc_a", "external_id": content["query"]}
        return {"results": [hit, hit], "usage": {"total_ms": 4.0}, "degraded": []}


class TestAsking:
    def ask(self, service: Busy, monkeypatch: pytest.MonkeyPatch) -> tuple[tuple[str, ...], list[float]]:
        waited: list[float] = []
        monkeypatch.setattr(time, "sleep", waited.append)
        session: Any = type("Session", (), {"service": service})
        answer = evaluation_run._ask(session, LabelledQuery(id="q", query="x"), "default")
        return tuple(one.external_id for one in answer.found), waited

    @pytest.mark.parametrize("status", [429, 503])
    def test_waits_while_the_service_is_busy(self, monkeypatch: pytest.MonkeyPatch, status: int) -> None:
        answered, waited = self.ask(Busy(3, status), monkeypatch)
        assert answered == ("x",)
        assert len(waited) == 3

    def test_gives_up_on_other_refusals_and_in_the_end(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(CommandFailed, match="Too many"):
            self.ask(Busy(1, 403), monkeypatch)
        with pytest.raises(CommandFailed, match="too busy"):
            self.ask(Busy(1_000), monkeypatch)
