"""How fast work goes is told from the jobs most like it, weighed by their size, and by how many ran abreast."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from rag_service.db import rates
from rag_service.db.rates import Ran
from rag_service.ingest import pace as module
from rag_service.ingest.pace import abreast, pace
from rag_service.types import FromStage, JobKind, Queue

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
MANY = 25


def ran(
    at_s: float, took_s: float, *, stage: str | None = None, queue: Queue = Queue.BULK, chunks: int = 10, **ms: float
) -> Ran:
    """A job that began `at_s` and was held for `took_s`; sizes are `embedded` and `bytes` of `ms` where given."""
    sizes = {"chunks": chunks, "embedded": int(ms.pop("embedded", 0)), "bytes": int(ms.pop("bytes", 0))}
    began = BEGAN + timedelta(seconds=at_s)
    return Ran(queue, stage, ms, sizes, began, began + timedelta(seconds=took_s))


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Tell the module what ran lately."""

    def tell(*, index: list[Ran] | None = None, refresh: list[Ran] | None = None) -> None:
        of = {JobKind.INDEX: index or [], JobKind.REFRESH: refresh or []}
        monkeypatch.setattr(rates, "lately", lambda _connection, kind, _limit: of[kind])

    return tell


def measured(from_stage: FromStage) -> module.Pace:
    return pace(None, from_stage)  # type: ignore[arg-type] # what it would ask is replaced


def test_nothing_is_known_before_anything_ran(known: Any) -> None:
    known()
    assert measured(FromStage.PARSE) == module.Pace()
    assert measured(FromStage.METADATA) == module.Pace()


def test_two_jobs_at_a_time_are_two_abreast() -> None:
    jobs = [ran(second, 1.0, index=1000.0) for second in range(10) for _ in range(2)]
    assert abreast(jobs) == pytest.approx(2.0)


def test_pauses_between_runs_do_not_count_but_those_within_one_do() -> None:
    apart = [ran(0, 1.0, index=1000.0), ran(3600, 1.0, index=1000.0)]
    assert abreast(apart) == pytest.approx(1.0)
    within = [ran(0, 1.0, index=1000.0), ran(1.5, 1.0, index=1000.0)]
    assert abreast(within) == pytest.approx(2.0 / 2.5)


def test_a_job_within_another_adds_no_time() -> None:
    assert abreast([ran(0, 4.0, index=4000.0), ran(1, 1.0, index=1000.0)]) == pytest.approx(5.0 / 4.0)
    assert abreast([]) is None


def test_large_work_weighs_as_much_as_it_is_large(known: Any) -> None:
    small = [ran(at, 0.1, chunks=1, index=100.0) for at in range(MANY)]
    large = [ran(at, 1.0, chunks=99, index=1000.0) for at in range(MANY)]
    known(index=small + large)
    assert measured(FromStage.EMBED).index == pytest.approx(1100.0 / 100)


def test_each_stage_has_its_unit(known: Any) -> None:
    known(index=[ran(at, 1.0, bytes=2000, embedded=10, parse=100, chunk=50, embed=400, index=20) for at in range(MANY)])
    found = measured(FromStage.PARSE)
    assert (found.parse, found.chunk, found.embed, found.index) == pytest.approx((0.05, 5.0, 40.0, 2.0))


def test_computing_a_vector_and_taking_one_over_are_told_apart(known: Any) -> None:
    taken_over = [ran(at, 0.1, embedded=0, embed=10.0) for at in range(MANY)]
    mixed = [ran(at, 0.1, embedded=4, embed=4 * 50 + 6 * 1.0) for at in range(MANY)]
    known(index=taken_over + mixed)
    found = measured(FromStage.CHUNK)
    assert (found.reuse, found.embed) == pytest.approx((1.0, 50.0))


def test_jobs_that_began_at_the_same_stage_are_asked_first(known: Any) -> None:
    whole = [ran(at, 1.0, embedded=10, embed=500.0, index=100.0) for at in range(MANY)]
    alike = [ran(at, 0.1, stage="embed", embed=10.0, index=30.0) for at in range(100, 100 + MANY)]
    known(index=alike + whole)
    found = measured(FromStage.EMBED)
    assert found.index == pytest.approx(3.0)
    assert found.embed == pytest.approx((500.0 - 0) / 10)  # which those alike never did
    assert found.abreast == pytest.approx(abreast(alike))


def test_a_few_alike_are_no_sample(known: Any) -> None:
    whole = [ran(at, 1.0, index=100.0) for at in range(MANY)]
    known(index=[ran(0, 9.0, stage="embed", index=9000.0), *whole])
    assert measured(FromStage.EMBED).index == pytest.approx((9000 + 100 * MANY) / (10 * (MANY + 1)))


def test_jobs_that_came_by_the_many_are_asked_before_single_uploads(known: Any) -> None:
    single = [ran(at * 10, 1.0, queue=Queue.UPLOADS, index=1000.0) for at in range(MANY)]
    bulk = [ran(1000 + at // 2, 1.0, index=400.0) for at in range(MANY)]
    known(index=single + bulk)
    assert measured(FromStage.PARSE).index == pytest.approx(40.0)
    known(index=single)
    assert measured(FromStage.PARSE).index == pytest.approx(100.0)


def test_what_is_only_written_is_measured_by_the_document(known: Any) -> None:
    known(refresh=[ran(at, 0.01, refresh=8.0) for at in range(MANY)])
    found = measured(FromStage.PERMISSIONS)
    assert found.refresh == pytest.approx(8.0)
    assert found.index is None
