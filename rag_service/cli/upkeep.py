"""rag admin backup, restore and reconcile.

The data folder of the embedded mode belongs to one process. While the service runs, it does the work and these commands
watch; while it does not, or where the data is on servers, they do it themselves.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rag_service.cli.client import DEFAULT_URL
from rag_service.cli.failure import MISUSED, CommandFailed
from rag_service.cli.jobs import looks
from rag_service.cli.output import Output
from rag_service.cli.session import Session, connected, ending

if TYPE_CHECKING:
    from rag_service.db.operations import Operation
    from rag_service.runtime import Runtime
    from rag_service.runtime.upkeep import Upkeep

_MOVING = ".moving"


@connected
def backup(
    session: Session,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to make; it must not be there yet.")],
) -> None:
    """Take a backup of the service, which goes on meanwhile: metadata, blobs and vectors that belong together."""
    if folder.exists():
        raise CommandFailed(f"{folder} is there already.", "Name a folder that is not.", exit_code=MISUSED)
    done = _here(session, lambda upkeep: upkeep.take_backup(folder))
    if done is None:
        done = _through_service(session, "/v1/admin/backups", {}, "Backup")
        done["report"]["path"] = str(_bring(Path(done["report"]["path"]), folder))
    session.output.data(done)
    report = done["report"]
    session.output.show(f"The backup is in {report['path']} ({report['bytes'] / 1e6:.1f} MB).")
    session.output.fields(report["counts"])
    if needed := report.get("secret_keys"):
        session.output.note(
            f"Credentials and secrets in it are encrypted under the key {', '.join(needed)}, which is not in it: keep "
            "RAG_SECRET_KEYS, or secret.key of the data folder, apart. Restored without, the service does not start."
        )
    if any(report["missing"].values()):
        session.output.note(
            f"The service itself had lost {report['missing']} before. Look closer: rag admin reconcile --repair"
        )


def restore(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A backup, as `rag admin backup` made it.")],
    force: Annotated[bool, typer.Option("--force", help="Replace the data that is there. It is gone then.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """Restore a service that does not run from a backup, all of which is verified first."""
    from rag_service.cli.process import read_settings
    from rag_service.errors import RagError
    from rag_service.runtime.restoring import keys_lacking, restore

    output = Output(as_json)
    with ending(output):
        try:
            settings = read_settings()
            found = restore(settings, folder, lambda _stage, _done, _total: None, force=force)
            lacking = keys_lacking(settings)
        except RagError as error:
            raise CommandFailed(error.message, exit_code=MISUSED) from None
        output.data({"created_at": found.created_at, "counts": dict(found.counts), "missing": dict(found.missing)})
        output.show(f"Restored the backup of {found.created_at}. Start the service: rag serve")
        output.fields(dict(found.counts))
        if lacking:
            output.note(f"Before it can start: {lacking}")


@connected
def reconcile(
    session: Session,
    repair: Annotated[bool, typer.Option("--repair", help="Mend what is found.")] = False,
) -> None:
    """Compare catalogue, index and blobs with each other. Exits 1 if something is found and not mended."""
    done = _here(session, lambda upkeep: upkeep.reconcile(mend=repair))
    if done is None:
        done = _through_service(session, "/v1/admin/reconcile", {"repair": repair}, "Reconcile")
    report = done["report"]
    session.output.data(done)
    rows = [
        (place["team"], place["collection"], damage, found["count"], found["mended"], found["samples"][:3])
        for place in report["collections"]
        for damage, found in place["findings"].items()
    ]
    columns = ("Team", "Collection", "Damage", "Found", "Mended", "Such as")
    session.output.table(columns, rows, f"All is well. Compared: {report['compared']}.")
    if report["found"] > report["mended"]:
        left = report["found"] - report["mended"]
        raise CommandFailed(
            f"{left} of {report['found']} are not mended.", "" if repair else "Mend them with --repair."
        )


def _here(session: Session, work: Callable[[Upkeep], Operation]) -> dict[str, Any] | None:
    """Do it in this process; None where a service is named, where there is no data, or a running service has it."""
    from rag_service.cli.process import read_settings
    from rag_service.errors import RagError
    from rag_service.runtime import build

    settings = read_settings()
    has_data = settings.database_url is not None or (settings.data_dir / "rag.db").exists()
    if session.service.url != DEFAULT_URL or not has_data:
        return None
    try:
        with _closing(build(settings)) as runtime:
            runtime.lock_folder()
            if problem := runtime.parts()["database"]:
                raise CommandFailed(problem, exit_code=MISUSED)
            return _succeeded(_as_json(work(runtime.upkeep)))
    except RagError as error:
        if error.code == "data_folder_in_use":
            return None
        raise CommandFailed(error.message) from None


@contextmanager
def _closing(runtime: Runtime) -> Iterator[Runtime]:
    try:
        yield runtime
    finally:
        runtime.close()


def _as_json(operation: Operation) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(operation)


def _through_service(session: Session, path: str, wanted: dict[str, Any], what: str) -> dict[str, Any]:
    begun = session.service.post(path, wanted)
    with session.output.progress(what) as progress:
        for page in looks(session.service, "/v1/admin/operations"):
            operation = next(one for one in page["data"] if one["id"] == begun["id"])
            progress.update(operation["progress"]["done"], operation["progress"]["total"])
            if operation["state"] != "running":
                return _succeeded(operation)
    raise AssertionError("looks never end by themselves")


def _succeeded(operation: dict[str, Any]) -> dict[str, Any]:
    if operation["error"]:
        raise CommandFailed(operation["error"]["message"])
    return operation


def _bring(made: Path, wanted: Path) -> Path:
    """Move a backup from the service's folder to where it was asked for, if it lies on this machine."""
    if not made.is_dir():
        return made
    wanted.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        made.rename(wanted)
    except OSError:  # another file system, or a folder of somebody else's
        _copy(made, wanted)
        shutil.rmtree(made, ignore_errors=True)
    return wanted.absolute()


def _copy(made: Path, wanted: Path) -> None:
    from rag_service.backup import manifest
    from rag_service.backup.exchange import sync_tree
    from rag_service.errors import RagError

    unfinished = wanted.with_name(f".{wanted.name}{_MOVING}")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        shutil.copytree(made, unfinished)
        unfinished.chmod(0o700)
        manifest.verify(unfinished)
        sync_tree(unfinished)
        unfinished.rename(wanted)
    except (OSError, RagError) as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise CommandFailed(f"The backup could not be moved to {wanted} ({error}).", f"It is in {made}.") from None
