"""Queries from the service or from files, asked one after the other through the service's front door."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from rag_service.cli.failure import MISUSED, CommandFailed
from rag_service.cli.session import Session

if TYPE_CHECKING:
    from rag_service.evaluation.report import Report
    from rag_service.evaluation.scoring import Answered
    from rag_service.types import LabelledQuery

PATH = "/v1/query-sets"
MOST = 10_000
_BUSY = (429, 503)
_TRIES = 20
_WAIT_S = 3.0


def queries_of(session: Session, name: str) -> tuple[list[LabelledQuery], str]:
    """The queries of a file or folder, where there is one of that name, or of a query set; and their collection."""
    if Path(name).exists():
        return queries_in(Path(name)), "default"
    if "/" in name:
        raise CommandFailed(f"There is no file or folder {name}.", "Check the path.", exit_code=MISUSED)
    from rag_service.types import LabelledQuery

    path = f"{PATH}/{quote(name, safe='')}"
    about = session.service.get(path)
    page = session.service.list_all(f"{path}/queries", MOST)
    return [LabelledQuery.of(one) for one in page["data"]], str(about["collection"])


def queries_in(path: Path) -> list[LabelledQuery]:
    """The queries of a CSV file, a BEIR folder, or one that is packed. Raises CommandFailed."""
    from rag_service.errors import RagError
    from rag_service.evaluation.beir import ALL_QRELS, QUERIES, read_beir
    from rag_service.evaluation.files import read_file

    try:
        if path.is_dir():
            files = [name for name in (QUERIES, *ALL_QRELS) if (path / name).is_file()]
            return read_beir({name: (path / name).read_text(encoding="utf-8") for name in files})
        return read_file(path.read_bytes())
    except RagError as error:
        raise CommandFailed(f"{path}: {error.message}", exit_code=MISUSED) from None
    except (OSError, UnicodeDecodeError) as error:
        raise CommandFailed(f"{path} cannot be read ({type(error).__name__}).", exit_code=MISUSED) from None


def ask_all(session: Session, queries: Sequence[LabelledQuery], collection: str, measures: Iterable[str]) -> Report:
    """Ask `collection` all queries; the `measures` are taken beside the usual ones."""
    from rag_service.evaluation.report import report
    from rag_service.evaluation.scoring import REPORTED

    if not queries:
        raise CommandFailed("There is no query to ask.", "Put queries with expected documents in.", exit_code=MISUSED)
    answers = []
    with session.output.progress("Asking", "queries") as progress:
        for query in queries:
            answers.append(_ask(session, query, collection))
            progress.update(len(answers), len(queries))
    return report(queries, answers, dict.fromkeys((*REPORTED, *measures)))


def _ask(session: Session, query: LabelledQuery, collection: str) -> Answered:
    from rag_service.evaluation.scoring import Answered, Found

    answer = _patiently(session, _question(query, collection))
    found = [Found(hit["document_id"], hit["external_id"]) for hit in answer["results"]]
    took = float(answer["usage"]["total_ms"])
    return Answered(tuple(dict.fromkeys(found)), took, degraded=bool(answer["degraded"]))


def _question(query: LabelledQuery, collection: str) -> dict[str, Any]:
    from rag_service.evaluation.scoring import DEPTH

    question: dict[str, Any] = {
        "query": query.query,
        "collections": [collection],
        "top_k": DEPTH,
        "max_chunks_per_document": 1,
        "filter": None if query.filter is None else dict(query.filter),
        "min_score": query.min_score,
    }
    if query.as_user is not None:
        question["as_user"] = {"user": query.as_user.user, "groups": list(query.as_user.groups)}
    return question


def _patiently(session: Session, question: dict[str, Any]) -> dict[str, Any]:
    """Ask again while the service wants us to be slower."""
    for _ in range(_TRIES):
        try:
            answer: dict[str, Any] = session.service.post("/v1/retrieve", question)
        except CommandFailed as failed:
            if failed.problem is None or failed.problem.get("status") not in _BUSY:
                raise
            time.sleep(_WAIT_S)
        else:
            return answer
    raise CommandFailed("The service is too busy to be evaluated.", "Try again later, or raise RAG_RATE_RETRIEVE.")
