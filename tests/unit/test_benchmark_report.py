"""A report overwrites nothing, hides no failure, and names no folder of the machine it was made on."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from benchmarks import report
from benchmarks.report import Outcome, Part, free_name, parts, run, written

PROGRAM = """
import json, pathlib, sys
print("| a table |")
pathlib.Path(sys.argv[sys.argv.index("--json") + 1]).write_text(json.dumps([{"round": 1, "docs_s": 2.0}]))
sys.exit(int(sys.argv[1]))
"""


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def part(exit_code: int) -> Part:
    return Part("made up", [sys.executable, "-c", PROGRAM, str(exit_code)])


def test_a_second_report_of_the_same_day_and_commit_gets_a_name_of_its_own(tmp_path: Path) -> None:
    names = [free_name(tmp_path / "reports", "2026-01-31-abc1234").name for _ in range(3)]
    assert names == ["2026-01-31-abc1234.md", "2026-01-31-abc1234-2.md", "2026-01-31-abc1234-3.md"]


def test_a_part_keeps_what_it_printed_and_its_rows(tmp_path: Path) -> None:
    outcome = run(part(0), tmp_path / "rows.json")
    assert outcome.printed == "| a table |\n"
    assert outcome.rows == [{"round": 1, "docs_s": 2.0}]
    assert outcome.failed is None


def test_a_part_that_fails_is_reported_beside_what_it_measured(tmp_path: Path) -> None:
    outcome = run(part(3), tmp_path / "rows.json")
    assert outcome.failed == "exit code 3"
    text = written([outcome], [])
    assert "| a table |" in text
    assert "exit code 3" in text


def test_a_part_that_leaves_no_file_has_no_rows(tmp_path: Path) -> None:
    outcome = run(Part("broken", [sys.executable, "-c", "raise SystemExit('no data')"]), tmp_path / "rows.json")
    assert (outcome.rows, outcome.failed) == ([], "no data")


def test_a_part_that_hangs_is_ended_with_all_it_started_and_keeps_what_it_printed(tmp_path: Path) -> None:
    child = tmp_path / "child"
    program = (
        "import pathlib, subprocess, sys, time\n"
        "print('| a row |', flush=True)\n"
        "started = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"pathlib.Path({str(child)!r}).write_text(str(started.pid))\n"
        "time.sleep(600)\n"
    )
    outcome = run(Part("hangs", [sys.executable, "-c", program]), tmp_path / "rows.json", time.monotonic() + 3)
    assert outcome.printed == "| a row |\n"
    assert (outcome.failed or "").startswith("not ready")
    deadline = time.monotonic() + 10
    while is_alive(int(child.read_text())) and time.monotonic() < deadline:
        time.sleep(0.01)  # killed, but not ended yet
    assert not is_alive(int(child.read_text()))


def test_a_part_for_which_no_time_is_left_is_named_all_the_same(tmp_path: Path) -> None:
    outcome = run(part(0), tmp_path / "rows.json", time.monotonic() - 1)
    assert "not run" in written([outcome], [])


def test_rounds_become_median_and_extremes() -> None:
    rows = [{"round": n, "docs_s": rate} for n, rate in enumerate([3.0, 1.0, 2.0])]
    assert "| docs_s | 2.00 | 1.00 | 3.00 |" in written([Outcome(part(0), "", rows)], [])


def test_a_report_says_what_it_was_measured_with() -> None:
    text = written([], [])
    for word in ("commit", "machine", "cores", "vector units", "torch", "qdrant-edge-py"):
        assert word in text


def test_no_folder_of_this_machine_gets_into_a_report(tmp_path: Path) -> None:
    outcomes = [Outcome(each, "", []) for each in parts(tmp_path / "data", tmp_path / "cache")]
    assert outcomes
    assert str(tmp_path) not in written(outcomes, [])


def test_plots_are_drawn_beside_the_report(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="comes with the extra `bench`")
    from benchmarks.plots import draw

    measured: dict[str, list[dict[str, Any]]] = {
        "quality": [{"collection": "small", "dense": 0.4, "lexical": 0.5, "hybrid": 0.6}],
        "scale": [{"chunks": n, "p50_ms": n / 10_000, "p95_ms": n / 5_000} for n in (10_000, 30_000)],
        "ingest": [{"folder": "docs", "round": 1, "chunks_s": 80.0, "alone_s": 100.0}],
        "chunking": [{"splitter": "ours"}],
    }
    pictures = draw(measured, tmp_path / "r.md")
    assert sorted(picture.name for picture in pictures) == ["r-ingest.png", "r-quality.png", "r-scale.png"]
    assert all(picture.read_bytes().startswith(b"\x89PNG") for picture in pictures)


def test_rows_are_plain_json(tmp_path: Path) -> None:
    run(part(0), tmp_path / "rows.json")
    assert json.loads((tmp_path / "rows.json").read_text()) == [{"round": 1, "docs_s": 2.0}]


def test_a_report_is_written_also_when_a_part_failed_and_then_the_command_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "parts", lambda data, cache: [part(0), part(3)])
    monkeypatch.setattr(sys, "argv", ["report", "--data", str(tmp_path), "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit, match="made up"):
        report.main()
    [written_file] = (tmp_path / "out").glob("*.md")
    assert written_file.read_text().split("\n").count("| a table |") == 2
