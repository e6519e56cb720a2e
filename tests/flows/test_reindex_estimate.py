"""What a dry run says comes true."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from tests.conftest import Service, Started, Team, settings_for
from tests.flows.test_reindex import children, job_of, plan, start

FEW, MANY = 40, 120
_OPEN = ("queued", "running")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Started(settings_for(tmp_path_factory.mktemp("estimate"))) as started:
        yield started


@pytest.fixture(scope="module")
def filled(service: Service) -> Team:
    """Documents of one to six chunks; `part` few is a sample of them all."""
    team, chance = service.new_team(), random.Random(7)
    words = [f"word{number}" for number in range(2_000)]
    wanted = []
    for place in range(FEW + MANY):
        parts = chance.randint(1, 6)
        text = "\n\n".join(f"# Part {part}\n\n{' '.join(chance.choices(words, k=60))}" for part in range(parts))
        wanted.append({"text": text, "metadata": {"part": "few" if place < FEW else "many"}})
    assert team.manager.post("/v1/documents:batch", json={"documents": wanted}).status_code in (200, 202, 207)
    team.drain(200)
    return team


def spent(process: psutil.Process) -> float:
    """CPU seconds of the service and of the parsers beside it."""
    return sum(sum(one.cpu_times()[:2]) for one in (process, *process.children(recursive=True)))


def timed(team: Team, from_stage: str, part: str) -> tuple[float, float, str]:
    """(seconds, CPU seconds, job) of doing it."""
    process = psutil.Process()
    began, cpu = time.monotonic(), spent(process)
    job_id = start(team, from_stage, filter={"part": part})
    while job_of(team, job_id)["state"] in _OPEN:
        time.sleep(0.05)
    return time.monotonic() - began, spent(process) - cpu, job_id


def off_by(predicted: float, actual: float) -> float:
    return abs(predicted / actual - 1)


@pytest.mark.slow
@pytest.mark.parametrize("from_stage", ["metadata", "embed", "parse"])
def test_documents_chunks_and_seconds_are_within_a_quarter_of_what_then_happens(filled: Team, from_stage: str) -> None:
    """One round over a third as many documents is what the estimate for the others is made of.

    Other tests run on the same cores meanwhile, now more, now less. The seconds that each round took for each second
    of CPU that it got say how much; the estimate is held against what the second round would have taken at the pace
    of the first. On a quiet machine the two are the same.
    """
    warm_s, warm_cpu, _ = timed(filled, from_stage, "few")
    told = plan(filled, from_stage, filter={"part": "many"})
    took_s, took_cpu, job_id = timed(filled, from_stage, "many")
    slower = (took_s / took_cpu) / (warm_s / warm_cpu)
    done = children(filled, job_id)
    assert (told["documents"], told["skipped"]) == (MANY, {})
    assert len(done) == MANY
    if from_stage != "metadata":
        assert told["chunks"] == sum(row.counters["chunks"] for row in done)
    assert off_by(told["seconds"] * slower, took_s) < 0.25, (told["seconds"], slower, took_s)


def test_what_was_never_done_here_has_no_time(tmp_path: Any) -> None:
    with Started(settings_for(tmp_path), worker=False) as service:
        team = service.new_team()
        assert plan(team, "embed")["seconds"] == 0
        team.put("A page.")
        assert plan(team, "parse") == {
            "documents": 1,
            "chunks": 0,
            "seconds": None,
            "disk_bytes": 0,
            "tokens": 0,
            "skipped": {},
        }
        service.work()
        assert plan(team, "parse")["seconds"] > 0
        assert plan(team, "metadata")["seconds"] is None
