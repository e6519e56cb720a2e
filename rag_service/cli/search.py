"""rag search, and how cited results are shown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rag_service.cli.options import AsGroups, AsUser, Collections, Mode, Narrowing, TopK, asker, given, json_object
from rag_service.cli.output import Output, printable
from rag_service.cli.session import Session, connected

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

_INDENT = "   "


@connected
def search(
    session: Session,
    query: Annotated[str, typer.Argument(metavar="QUERY", help="What you want to know.")],
    *,
    top_k: TopK = 10,
    mode: Mode = None,
    as_user: AsUser = None,
    as_groups: AsGroups = None,
    narrowing: Narrowing = None,
    collections: Collections = None,
) -> None:
    """Ask a question. Results come with their sources, and only those that the asker may read."""
    request = question(query, top_k, mode=mode, user=as_user, groups=as_groups, narrowing=narrowing, among=collections)
    answer = session.service.post("/v1/retrieve", {**request, "highlight": True})
    session.output.data(answer)
    show_results(session.output, answer)


def question(
    query: str,
    top_k: int,
    *,
    mode: str | None,
    user: str | None,
    groups: Sequence[str] | None,
    narrowing: str | None,
    among: Sequence[str] | None,
) -> dict[str, Any]:
    """What is asked, in the service's shape. Raises CommandFailed for a filter that is no JSON object."""
    return given(
        query=query,
        top_k=top_k,
        mode=mode,
        as_user=asker(user, groups),
        filter=json_object(narrowing, "--filter", '{"year": {"$gte": 2024}}'),
        collections=list(among) if among else None,
    )


def show_results(output: Output, answer: dict[str, Any]) -> None:
    """Every result with its citation, and what the search cost."""
    if output.as_json:
        return
    for result in answer["results"]:
        output.show(*_cited(result, output.console), "")
    if not answer["results"]:
        output.show("Nothing found that this asker may read.")
    found = len(answer["results"])
    output.show(f"{found} {'result' if found == 1 else 'results'} in {answer['usage']['total_ms']:.0f} ms")
    for part in answer.get("degraded") or ():
        output.note(f"Note: {part}")


def _cited(result: dict[str, Any], console: Console) -> Iterator[Text]:
    """A result in lines: what and how good, where, and the passage."""
    from rich.text import Text

    page = (result.get("position") or {}).get("page")
    yield Text.assemble(
        (f"{result['rank']}. ", "bold"),
        (printable(result["title"] or result["external_id"]), "bold cyan"),
        f", page {page}" if page else "",
        (f"  {result['score']:.3f}", "green"),
    )
    headings = " > ".join(printable(part) for part in result.get("heading_path") or ())
    for place in filter(None, (headings, printable(result.get("uri") or ""))):
        yield Text(f"{_INDENT}{place}", style="dim")
    for paragraph in _marked(result).split("\n"):
        for line in paragraph.wrap(console, console.width - len(_INDENT)) if paragraph.plain.strip() else ():
            yield Text(_INDENT).append_text(line)


def _marked(result: dict[str, Any]) -> Text:
    """The passage with its best sentences in bold."""
    from rich.text import Text

    text, marked, place = str(result["text"]), Text(), 0
    for span in sorted(result.get("highlights") or (), key=lambda span: int(span["start"])):
        marked.append(printable(text[place : span["start"]]))
        marked.append(printable(text[span["start"] : span["end"]]), style="bold")
        place = span["end"]
    return marked.append(printable(text[place:]))
