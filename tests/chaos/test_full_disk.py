"""A full disk refuses politely, loses nothing that was accepted, and is over when it is over."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from tests.chaos.full_disk import filled
from tests.chaos.report import seed_of


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(psutil.Process, "rlimit"), reason="limits of another process are set on Linux only")
def test_what_was_accepted_while_the_disk_filled_is_there_in_the_end(tmp_path: Path) -> None:
    report = filled(tmp_path, seed_of(9), times=1, restart=True)
    print(report)  # noqa: T201 - the seed of a run that failed
    assert report.wrong == ()
    assert report.numbers["refused"]
    assert report.numbers["accepted"]
