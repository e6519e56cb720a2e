"""An evaluation as files for continuous integration: JUnit XML, which names what failed, and Markdown to read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element, SubElement, tostring

from rag_service.cli.evaluation_checks import Check

if TYPE_CHECKING:
    from rag_service.evaluation.report import Report, Result

_WORST = 10
_LONGEST = 120
# What XML 1.0 cannot hold.
_UNWRITABLE = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(name: str, found: Report, checks: Sequence[Check]) -> str:
    """A test case for each check; the worst queries stand in what a failed one says."""
    failed = sum(not check.passed for check in checks)
    suites = Element("testsuites")
    counts = {"tests": str(len(checks)), "failures": str(failed), "errors": "0", "skipped": "0"}
    suite = SubElement(suites, "testsuite", {"name": _writable(f"rag eval {name}"), **counts})
    properties = SubElement(suite, "properties")
    for measure, value in found.metrics.items():
        SubElement(properties, "property", name=measure, value=f"{value:.4f}")
    for check in checks:
        case = SubElement(suite, "testcase", classname=_writable(name), name=check.name, time="0")
        if not check.passed:
            failure = SubElement(case, "failure", message=_writable(check.detail))
            failure.text = _writable("\n".join(_told(one) for one in found.results[:_WORST]))
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + tostring(suites, encoding="unicode") + "\n"


def markdown(name: str, found: Report, checks: Sequence[Check]) -> str:
    return "\n".join(_lines(name, found, checks)) + "\n"


def _lines(name: str, found: Report, checks: Sequence[Check]) -> Iterator[str]:
    verdict = "passed" if all(check.passed for check in checks) else "FAILED"
    yield f"## Evaluation of {_cell(name)}: {verdict if checks else 'nothing was demanded'}"
    yield ""
    if checks:
        yield from ("| check | | |", "|---|---|---|")
        yield from (
            f"| {check.name} | {'ok' if check.passed else 'FAILED'} | {_cell(check.detail)} |" for check in checks
        )
        yield ""
    yield from ("| measure | mean | queries |", "|---|---|---|")
    yield from (f"| {measure} | {value:.4f} | {found.measured[measure]} |" for measure, value in found.metrics.items())
    yield ""
    times = found.latency
    yield f"{found.queries} queries, {times.p50:.0f} ms at the median, {times.p95:.0f} ms at the 95th percentile."
    yield ""
    yield from ("| worst queries | score | found |", "|---|---|---|")
    for one in found.results[:_WORST]:
        yield f"| {_cell(one.query)} | {score(one)} | {_cell(', '.join(one.found[:3]))} |"


def score(result: Result) -> str:
    """By its first measure: `ndcg@10 0.63`."""
    return next((f"{name} {value:.2f}" for name, value in result.scores.items()), "-")


def _told(result: Result) -> str:
    return f"{score(result)}  {' '.join(result.query.split())[:_LONGEST]}"


def _writable(text: str) -> str:
    return _UNWRITABLE.sub("", text)


def _cell(text: str) -> str:
    """On one line of a table, with nothing that Markdown or HTML would take for its own."""
    line = " ".join(_UNWRITABLE.sub("", text).split())
    line = f"{line[:_LONGEST]}..." if len(line) > _LONGEST else line
    return re.sub(r"([\\`*_\[\]|#])", r"\\\1", line).replace("&", "&amp;").replace("<", "&lt;")
