"""rag job, and waiting for the work that other commands start."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from rag_service.cli.client import Service
from rag_service.cli.failure import CommandFailed
from rag_service.cli.options import Limit
from rag_service.cli.output import Output, moment
from rag_service.cli.session import Session, connected

commands = typer.Typer(help="Jobs: syncs and the indexing of documents.", no_args_is_help=True)

_OPEN = ("queued", "running")
_FIRST_LOOK_S, _LAST_LOOK_S = 0.05, 1.0
JobId = Annotated[str, typer.Argument(metavar="ID", help="Id of the job.")]


@commands.command("list")
@connected
def list_jobs(
    session: Session,
    state: Annotated[str | None, typer.Option("--state", metavar="STATE", help="Only jobs in this state.")] = None,
    kind: Annotated[
        str | None, typer.Option("--kind", metavar="KIND", help="Only sync, index, remove, refresh, reindex or probe.")
    ] = None,
    limit: Limit = 20,
) -> None:
    """List jobs, newest first."""
    page = session.service.list_all("/v1/jobs", limit, state=state, kind=kind)
    session.output.data(page)
    rows = [(job["id"], job["kind"], job["state"], progress_of(job), moment(job["created_at"])) for job in page["data"]]
    session.output.table(("ID", "Kind", "State", "Progress", "Created"), rows, "There is no such job.")


@commands.command("show")
@connected
def show_job(session: Session, job_id: JobId) -> None:
    """Show a job: state, counters, milliseconds per stage, error."""
    job = session.service.get(f"/v1/jobs/{job_id}")
    session.output.data(job)
    _describe(session.output, job)


@commands.command("watch")
@connected
def watch_job(session: Session, job_id: JobId) -> None:
    """Follow a job to its end. Exits 1 if it fails, or if any of its documents does."""
    job = wait_for_job(session, job_id, "Job")
    session.output.data(job)
    _describe(session.output, job)
    require_success(job)


@commands.command("cancel")
@connected
def cancel_job(session: Session, job_id: JobId) -> None:
    """Cancel a job: at once if it waits, at its next step if it runs."""
    job = session.service.post(f"/v1/jobs/{job_id}/cancel")
    session.output.data(job)
    session.output.show(f"Job {job_id} is {job['state']}.")


def wait_for_job(session: Session, job_id: str, what: str) -> dict[str, Any]:
    """Watch a job until it is over, with its progress. Returns it as it ended, however that was."""
    with session.output.progress(what) as progress:
        for job in looks(session.service, f"/v1/jobs/{job_id}"):
            done, total = done_and_total(job)
            progress.update(done, total)
            if job["state"] not in _OPEN:
                return job
    raise AssertionError("looks never end by themselves")


def looks(service: Service, path: str, team: str | None = None) -> Iterator[dict[str, Any]]:
    """The same thing again and again, at first quickly, then once a second. `team`: of this one, if not of ours."""
    headers = {"X-Rag-Team": team} if team else {}
    pause = _FIRST_LOOK_S
    while True:
        yield service.send("GET", path, headers=headers)
        time.sleep(pause)
        pause = min(pause * 1.3, _LAST_LOOK_S)


def done_and_total(job: dict[str, Any]) -> tuple[int, int | None]:
    """How many documents of a job are through, of how many."""
    progress = job.get("progress") or {}
    return int(progress.get("done") or 0), progress.get("total")


def require_success(job: dict[str, Any]) -> None:
    """Raises CommandFailed unless the job did all it had to."""
    if job["state"] == "succeeded":
        return
    if job["state"] == "completed_with_errors":
        failed = (job.get("counters") or {}).get("failed", "Some")
        raise CommandFailed(
            f"{failed} of its documents failed; the others are searchable.",
            "See why: rag document list --status failed",
        )
    error = job.get("error") or {}
    raise CommandFailed(
        error.get("message") or f"The job ended as {job['state']}.", f"See all of it: rag job show {job['id']}"
    )


def progress_of(job: dict[str, Any]) -> str:
    """Documents through, of how many."""
    done, total = done_and_total(job)
    return f"{done}/{total}" if total else "-"


def _describe(output: Output, job: dict[str, Any]) -> None:
    output.fields(
        {
            "id": job["id"],
            "kind": job["kind"],
            "state": job["state"],
            "progress": progress_of(job),
            "counters": job.get("counters"),
            "stages (ms)": job.get("stages_ms"),
            "source": job.get("source_id"),
            "document": job.get("document_id"),
            "created": moment(job["created_at"]),
            "finished": moment(job.get("finished_at")),
            "error": (job.get("error") or {}).get("message"),
        }
    )
