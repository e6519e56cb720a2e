"""Following a build to its end."""

from __future__ import annotations

from typing import Any

from rag_service.cli.failure import CommandFailed
from rag_service.cli.jobs import looks
from rag_service.cli.session import Session

_UNDER_WAY = ("building", "catching_up")


def follow(session: Session, path: str) -> dict[str, Any]:
    """Watch a build until it is ready; returns the index version. Raises CommandFailed when it comes to another end."""
    with session.output.progress("Build", unit="chunks") as progress:
        for made in looks(session.service, path):
            so_far = made["progress"]
            progress.update(so_far["chunks_done"], so_far["chunks_total"], so_far["eta_s"])
            if made["state"] not in _UNDER_WAY:
                break
            if made["paused"]:
                raise CommandFailed(f"{made['id']} is paused.", f"Go on: rag index resume {made['id']}")
    if made["state"] in ("failed", "retired"):
        why = (made["error"] or {}).get("message", "")
        raise CommandFailed(f"{made['id']} is {made['state']}. {why}".strip(), "See all of it: rag index show ID")
    if made["progress"]["failed"]:
        session.output.note(
            f"{made['progress']['failed']} documents could not be built. See why: rag index show {made['id']}"
        )
    return dict(made)
