"""A short form of all benchmarks, as one Markdown report with plots.

    python -m benchmarks.report --data ../shared/data

Each benchmark runs in a process of its own, so that none warms or fills the memory of the next, and leaves its rows as
JSON. The report names versions, machine and commit, and says of each part that failed why. Files are never overwritten:
reports/<UTC date>-<commit>.md, then -2.md and so on. The folder is not committed: figures of one machine at one hour
mislead on another, and what must not be lost, the baseline of quality, is a file of its own.
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import results

FOLDER = Path(__file__).with_name("reports")
PACKAGES = ("rag-service", "torch", "openvino", "sentence-transformers", "qdrant-edge-py", "unstructured", "numpy")
FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16")
SMALL = ("adi", "anthropic_docs", "cranfield")
ALL_LIMIT_S = 900  # of which a quiet machine with two cores needs less than 600
PART_LIMIT_S = 240  # a part that hangs must not take the others with it


@dataclass(frozen=True)
class Part:
    name: str
    command: list[str]


@dataclass(frozen=True)
class Outcome:
    part: Part
    printed: str
    rows: list[dict[str, Any]]
    failed: str | None = None


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=Path, required=True, help="folder with the folders collections and docs")
    arguments.add_argument("--out", type=Path, default=FOLDER)
    arguments.add_argument("--cache", type=Path, default=Path(".bench-cache"))
    arguments.add_argument("--only", nargs="+", help="names of parts")
    given = arguments.parse_args()
    chosen = [part for part in parts(given.data, given.cache) if not given.only or part.name in given.only]
    deadline = time.monotonic() + ALL_LIMIT_S
    with tempfile.TemporaryDirectory(prefix="rag-bench-") as folder:
        outcomes = [run(part, Path(folder) / f"{number}.json", deadline) for number, part in enumerate(chosen)]
    file = free_name(given.out, f"{datetime.now(UTC):%Y-%m-%d}-{commit()}")
    pictures = drawn(outcomes, file)
    file.write_text(written(outcomes, pictures), encoding="utf-8")
    print(f"written: {file}")
    if failed := [outcome.part.name for outcome in outcomes if outcome.failed]:
        raise SystemExit(f"failed: {', '.join(failed)}")


def parts(data: Path, cache: Path) -> list[Part]:
    """What is run, in order. Quality is measured on the collections that are small enough, and held to the baseline."""
    collections = str(data / "collections")
    python = [sys.executable, "-m"]
    chosen = [
        Part(
            "quality",
            [*python, "benchmarks.quality", "--data", collections, "--check", "--collections", *SMALL],
        ),
        Part(
            "ingest", [*python, "benchmarks.ingest", "--docs", str(data / "docs" / "fastapi_docs_en"), "--rounds", "2"]
        ),
        Part(
            "embedding",
            [*python, "benchmarks.embedding", "--data", collections, "--passages", "300", "--rounds", "2"],
        ),
        Part("latency", [*python, "benchmarks.latency", "--data", collections, "--chunks", "2000", "--queries", "500"]),
        Part(
            "chunking",
            [*python, "benchmarks.chunking", "--data", f"{collections}/chroma_chunking", "--cache", str(cache)],
        ),
    ]
    if find_spec("benchmarks.scale"):
        chosen.append(Part("scale", [*python, "benchmarks.scale", "--engine", "--sizes", "10000", "30000"]))
    return chosen


def run(part: Part, file: Path, deadline: float = float("inf")) -> Outcome:
    """Run one benchmark to its end, or to `deadline` (monotonic seconds); what it printed is kept in any case."""
    print(f"... {part.name}", flush=True)
    limit = min(PART_LIMIT_S, deadline - time.monotonic())
    if limit <= 0:
        return Outcome(part, "", [], "not run: the time for all parts was up")
    # A session of its own, so that a part that hangs is ended together with the service it has started.
    command = [*part.command, "--json", str(file)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=True) as process:
        try:
            printed, said = process.communicate(timeout=limit)
            code = process.returncode
            failed = (said.strip() or f"exit code {code}")[-2000:] if code else None
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            printed, _ = process.communicate()
            failed = f"not ready after {limit:.0f} s"
    return Outcome(part, printed, results.read(file), failed)


def free_name(folder: Path, stem: str) -> Path:
    """An empty new file: stem.md, or the first of stem-2.md, stem-3.md ... that is not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        file = folder / (f"{stem}.md" if number == 1 else f"{stem}-{number}.md")
        try:
            file.touch(exist_ok=False)
        except FileExistsError:
            number += 1
        else:
            return file


def written(outcomes: Sequence[Outcome], pictures: Sequence[Path]) -> str:
    lines = ["# Benchmarks", "", *_machine(), ""]
    for outcome in outcomes:
        lines += [f"## {outcome.part.name}", "", f"`python {' '.join(_shown(outcome.part.command))}`", ""]
        lines += [outcome.printed.strip(), ""]
        if spread := _spread(outcome.rows):
            lines += ["| over the rounds | median | least | most |", "|---|---|---|---|", *spread, ""]
        if outcome.failed:
            lines += ["Failed:", "", "```text", outcome.failed, "```", ""]
    return "\n".join([*lines, *(f"![{picture.stem}]({picture.name})" for picture in pictures), ""])


def _shown(command: Sequence[str]) -> list[str]:
    # Folders of this machine say nothing to a reader.
    return [Path(word).name if Path(word).is_absolute() else word for word in command[1:]]


def _machine() -> Iterator[str]:
    described = _cpu()
    flags = [flag for flag in FLAGS if flag in described.get("flags", "").split()]
    yield f"- time: {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, commit {commit()}"
    yield f"- machine: {described.get('model name', platform.processor() or 'unknown')}, {os.cpu_count()} cores"
    yield f"- vector units: {', '.join(flags) or 'none known'}"
    yield f"- Python {platform.python_version()}, {', '.join(_installed())}"


def _installed() -> Iterator[str]:
    for package in PACKAGES:
        try:
            yield f"{package} {version(package)}"
        except PackageNotFoundError:
            yield f"{package} not installed"


def _cpu() -> dict[str, str]:
    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


def commit() -> str:
    """The short id of the commit that is checked out, or `unknown` outside of a repository."""
    asked = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    found = subprocess.run(asked, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


def _spread(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Median and extremes of what the rounds of one folder measured; nothing where nothing was repeated."""
    rounds = [row for row in rows if "round" in row]
    names = [name for name in ("docs_s", "chunks_s", "alone_s", "on_top") if len(rounds) > 1 and name in rounds[0]]
    values = {name: [float(row[name]) for row in rounds] for name in names}
    return [f"| {name} | {median(v):.2f} | {min(v):.2f} | {max(v):.2f} |" for name, v in values.items()]


def drawn(outcomes: Sequence[Outcome], file: Path) -> list[Path]:
    """Plots beside the report; none without matplotlib, which only the extra `bench` brings."""
    if find_spec("matplotlib") is None:
        return []
    from benchmarks.plots import draw

    return draw({outcome.part.name: outcome.rows for outcome in outcomes}, file)


if __name__ == "__main__":
    main()
