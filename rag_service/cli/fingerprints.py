"""rag admin fingerprints and accept-fingerprint: whether embedding models still give the vectors that they gave."""

from __future__ import annotations

from typing import Annotated

import typer

from rag_service.cli.failure import CommandFailed
from rag_service.cli.output import Output, moment
from rag_service.cli.session import Session, connected

_PATH = "/v1/admin/fingerprints"


@connected
def fingerprints(session: Session) -> None:
    """Compare what the embedding models give now with what they gave. Exits 1 if one has moved."""
    found = session.service.get(_PATH)
    session.output.data(found)
    _show(session.output, found["data"])
    if moved := [model["model"] for model in found["data"] if model["moved"]]:
        raise CommandFailed(
            f"These give other vectors than they gave: {', '.join(moved)}.",
            "Bring the former model back. If the change is meant: rag admin accept-fingerprint MODEL",
        )


@connected
def accept_fingerprint(
    session: Session,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Name of the model, as `rag admin fingerprints` says.")],
) -> None:
    """Take what a model gives now for right. Vectors made before do not fit to it: build its collections anew."""
    found = session.service.post(f"{_PATH}:accept", {"model": model})
    session.output.data(found)
    _show(session.output, found["data"])
    session.output.show(f"{model} is known by these vectors now. Build its collections anew.")


def _show(output: Output, models: list[dict[str, object]]) -> None:
    rows = [
        (model["model"], model["computation"], f"{model['cosine']:.6f}", model["moved"], moment(model["known_since"]))
        for model in models
    ]
    output.table(("Model", "Computed by", "Least cosine", "Moved", "Known since"), rows, "No model is in use.")
