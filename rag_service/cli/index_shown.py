"""Index versions and comparisons, as a person reads them."""

from __future__ import annotations

from typing import Any

from rag_service.cli.output import Output, moment

_WORST_SHOWN = 10


def version_row(made: dict[str, Any]) -> tuple[object, ...]:
    size = made["sizes"]
    told = (size["documents"], size["chunks"], _megabytes(size["bytes"]), _progress(made), made["note"])
    return (made["id"], made["number"], made["collection"], _state(made), made["embedding_model"], *told)


def show_version(output: Output, made: dict[str, Any]) -> None:
    so_far = made["progress"]
    output.fields(
        {
            "id": made["id"],
            "number": made["number"],
            "collection": made["collection"],
            "state": _state(made),
            "note": made["note"],
            "pipeline": made["pipeline"],
            "model": f"{made['embedding_model']} ({made['dimensions']} dimensions)",
            "chunker": made["chunker"],
            "analyser": made["analyser"],
            "priority": f"{made['priority']}, {made['max_concurrency']} at a time",
            "documents": made["sizes"]["documents"],
            "chunks": made["sizes"]["chunks"],
            "MB on disk": _megabytes(made["sizes"]["bytes"]),
            "progress": _progress(made),
            "behind": so_far["behind"],
            "failed": so_far["failed"],
            "seconds left": so_far["eta_s"],
            "created": moment(made["created_at"]),
            "ready since": moment(made["built_at"]),
            "active since": moment(made["activated_at"]),
            "kept until": moment(made["retire_at"]),
            "error": (made["error"] or {}).get("message"),
        }
    )
    rows = [(one["document_id"], one["code"], one["message"]) for one in so_far["failures"]]
    if rows:
        output.table(("ID", "Code", "Why it could not be built"), rows, "")
    if made["quality"]:
        show_quality(output, made["quality"])


def show_switch(output: Output, made: dict[str, Any]) -> None:
    output.show(f"Collection {made['collection']!r} answers from {made['id']} (number {made['number']}).")
    if made["quality"]:
        show_quality(output, made["quality"])


def show_quality(output: Output, quality: dict[str, Any] | None) -> None:
    """The measures of both, then the questions that lost most."""
    if not quality:
        output.show("There is no comparison yet.")
        return
    comparison = quality["comparison"]
    rows = [(name, *(_figure(value) for value in values)) for name, values in _measures(comparison)]
    output.table(
        ("Measure", "Active", "Candidate", "Difference", "p"), rows, "No question is judged: nothing could be measured."
    )
    output.fields(
        {
            "questions": f"{comparison['queries']}, {comparison['labelled']} of them judged",
            "worse, better": f"{comparison['worse']}, {comparison['better']}",
            "overlap@10": _figure(comparison["overlap_at_10"]),
            "rank-biased overlap": _figure(comparison["rbo"]),
            "ms of the active (p50, p95)": _latency(comparison["active_latency"]),
            "ms of the candidate": _latency(comparison["candidate_latency"]),
        }
    )
    worst = [(_figure(one["delta"]), _figure(one["rbo"]), one["query"]) for one in comparison["changes"][:_WORST_SHOWN]]
    output.table(("Difference", "Alike", "Question, worst first"), worst, "No question was asked.")
    verdict = quality.get("verdict")
    if verdict:
        output.show("The gate is passed." if verdict["passed"] else "The gate is not passed.", *verdict["reasons"])


def _measures(comparison: dict[str, Any]) -> list[tuple[str, list[Any]]]:
    measured = comparison["metrics"].items()
    return [(name, [one["active"], one["candidate"], one["delta"], one["p_value"]]) for name, one in measured]


def _latency(measured: dict[str, float]) -> str:
    return ", ".join(f"{value:.1f}" for value in measured.values())


def _state(made: dict[str, Any]) -> str:
    return f"{made['state']}, paused" if made["paused"] else str(made["state"])


def _progress(made: dict[str, Any]) -> str:
    so_far = made["progress"]
    return f"{so_far['done']}/{so_far['total']}"


def _megabytes(size: int | None) -> float | None:
    return None if size is None else round(size / 1e6, 1)


def _figure(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else "-" if value is None else str(value)
