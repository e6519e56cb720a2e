"""rag doctor: what this machine and the service need, each with what to do if it is not so."""

from __future__ import annotations

import platform
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from rag_service.cli.client import Service
from rag_service.cli.failure import FAILED, CommandFailed
from rag_service.cli.output import Output, printable
from rag_service.cli.session import Session, connected

if TYPE_CHECKING:
    from rag_service.settings import Settings

_MIN_FREE_BYTES = 1024**3


@dataclass(frozen=True, slots=True)
class Finding:
    """`fix` is empty when all is well."""

    check: str
    ok: bool
    message: str
    fix: str = ""


@connected
def doctor(session: Session) -> None:
    """Check this machine, the data folder, the model and the running service. Exits 1 if there is a problem."""
    from rag_service.cli.process import read_settings

    settings = read_settings()
    checks: list[Callable[[], Finding]] = [
        _python,
        _processor,
        lambda: _data_folder(settings.data_dir),
        lambda: _database(settings),
        lambda: _model(settings),
        lambda: _service(session.service),
    ]
    findings = []
    for check in checks:
        findings.append(check())
        _tell(session.output, findings[-1])
    problems = [finding for finding in findings if not finding.ok]
    session.output.data({"ok": not problems, "checks": [asdict(finding) for finding in findings]})
    if problems:
        raise typer.Exit(FAILED)


def _tell(output: Output, finding: Finding) -> None:
    from rich.text import Text

    state = ("ok     ", "green") if finding.ok else ("problem", "bold red")
    output.show(Text.assemble(state, f"  {finding.check}: {printable(finding.message)}"))
    if finding.fix:
        output.show(Text(f"         {printable(finding.fix)}"))


def _python() -> Finding:
    version = platform.python_version()
    fits = (3, 11) <= sys.version_info[:2] < (3, 14)
    return Finding("python", fits, version, "" if fits else "Use Python 3.11, 3.12 or 3.13: make PYTHON=python3.12 run")


def _processor() -> Finding:
    """Never a problem: without units for shorter numbers the local model computes in float32, at half the speed."""
    from rag_service.embedding.processors import usual_formats

    formats = " or ".join(usual_formats())
    return Finding("cpu", True, f"{platform.machine()}, on which the local model computes in {formats}")


def _data_folder(folder: Path) -> Finding:
    """Looks for the folder, or for the nearest one above it that would have to hold it. Makes nothing."""
    import os

    nearest = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        fix = "Make it writable for this user, or choose another RAG_DATA_DIR."
        return Finding("data folder", False, f"{folder} cannot be written", fix)
    free = shutil.disk_usage(nearest).free
    told = f"{folder.absolute()}, {free / 1024**3:.1f} GB free"
    if free < _MIN_FREE_BYTES:
        return Finding("data folder", False, told, "Free at least 1 GB, or choose another RAG_DATA_DIR.")
    return Finding("data folder", True, told if folder.exists() else f"{told}; made at the first start")


def _database(settings: Settings) -> Finding:
    from rag_service.errors import RagError
    from rag_service.runtime import build

    if settings.database_url is None and not (settings.data_dir / "rag.db").exists():
        return Finding("database", True, "none yet; made at the first start")
    problem: str | None
    try:
        runtime = build(settings)
        runtime.check_database()
        runtime.database.close()
        problem = None
    except RagError as error:
        problem = error.message
    fix = "Start `rag serve` with this version once: it brings the database up to date." if problem else ""
    return Finding("database", problem is None, problem or "up to date", fix)


def _model(settings: Settings) -> Finding:
    from rag_service.errors import RagError
    from rag_service.runtime import build

    try:
        embedder = build(settings).embedder
        began = time.perf_counter()
        embedder.embed(["Is anybody there?"], "query")
        loaded_s = time.perf_counter() - began
        began = time.perf_counter()
        embedder.embed(["What can be found here?"], "query")
        embed_ms = (time.perf_counter() - began) * 1000
        told = (
            f"{embedder.identity}, computed in {embedder.computation}, loaded in {loaded_s:.1f} s, "
            f"embeds a question in {embed_ms:.0f} ms"
        )
    except RagError as error:
        return Finding("model", False, error.message, "Check RAG_EMBEDDER, RAG_EMBEDDING_MODEL and RAG_EMBEDDING_URL.")
    return Finding("model", True, told)


def _service(service: Service) -> Finding:
    try:
        service.get("/readyz")
    except CommandFailed as failed:
        parts = (failed.problem or {}).get("parts") or {}
        reasons = [f"{name}: {part['reason']}" for name, part in parts.items() if not part["ready"]]
        message = f"not ready. {' '.join(reasons)}" if reasons else failed.message
        return Finding("service", False, message, failed.fix or "Look at the log of the service.")
    return Finding("service", True, f"ready at {service.url}")
