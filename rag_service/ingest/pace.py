"""How fast this installation does its work, from the jobs that it did lately.

Jobs note the milliseconds that they spent in each stage and how large the work was: bytes parsed, chunks written,
vectors computed. That gives milliseconds per unit, of the jobs most like the work to come. Jobs run abreast, and in
each other's way: how much was spent in all of them together for each second that passed is what they had of this
installation's threads, cores and stores. Both are of the same jobs, so that the one bears out the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from rag_service.db import Connection, rates
from rag_service.db.rates import Ran
from rag_service.types import FromStage, JobKind, Queue

_LOOKED_AT = 5_000
# So many jobs like those to come make a sample; if there are fewer, any jobs of the kind do better.
_ENOUGH = 20
_SAMPLE = 1_000
# Between two jobs of one run there is less than this.
_PAUSE_S = 1.0

# The stages of indexing with what their length is measured by.
_UNITS = {"parse": "bytes", "chunk": "chunks", "index": "chunks"}


@dataclass(frozen=True, slots=True)
class Pace:
    """Milliseconds of a job per byte parsed, chunk cut, vector computed or taken over, chunk and document written.

    None: never measured. `abreast`: seconds spent in jobs per second that passes; None without any job.
    """

    parse: float | None = None
    chunk: float | None = None
    embed: float | None = None
    reuse: float | None = None
    index: float | None = None
    refresh: float | None = None
    abreast: float | None = None


def pace(connection: Connection, from_stage: FromStage) -> Pace:
    """Of the newest jobs that began at this stage; of any for what those did not do."""
    if from_stage in (FromStage.PERMISSIONS, FromStage.METADATA):
        done = _bulk_if_enough(rates.lately(connection, JobKind.REFRESH, _LOOKED_AT))
        return Pace(refresh=_ratio((ran.stages_ms.get("refresh", 0.0), 1) for ran in done), abreast=abreast(done))
    every = [ran for ran in rates.lately(connection, JobKind.INDEX, _LOOKED_AT) if ran.sizes.get("chunks")]
    alike = [ran for ran in every if ran.from_stage == _payload_of(from_stage)]
    samples = [alike[:_SAMPLE], _bulk_if_enough(every)] if len(alike) >= _ENOUGH else [_bulk_if_enough(every)]
    reuse = _first(samples, _reuse)
    return Pace(
        parse=_first(samples, lambda sample: _per_unit(sample, "parse")),
        chunk=_first(samples, lambda sample: _per_unit(sample, "chunk")),
        embed=_first(samples, lambda sample: _embed(sample, reuse or 0.0)),
        reuse=reuse,
        index=_first(samples, lambda sample: _per_unit(sample, "index")),
        abreast=abreast(samples[0]),
    )


def abreast(sample: Sequence[Ran]) -> float | None:
    """Seconds spent in these jobs per second in which any of them was under way."""
    spans = sorted((ran.began, ran.ended) for ran in sample)
    passed, until = 0.0, None
    for began, ended in spans:
        if until is None or (began - until).total_seconds() > _PAUSE_S:
            passed += (ended - began).total_seconds()
            until = ended
        elif ended > until:
            passed += (ended - until).total_seconds()
            until = ended
    spent = sum(sum(ran.stages_ms.values()) for ran in sample) / 1000
    return spent / passed if passed > 0 and spent > 0 else None


def _payload_of(from_stage: FromStage) -> str | None:
    # What is fetched again is indexed from its bytes.
    return FromStage.PARSE if from_stage == FromStage.FETCH else from_stage


def _bulk_if_enough(done: Sequence[Ran]) -> Sequence[Ran]:
    """Jobs that came by the many ran abreast, as those will that are asked about."""
    bulk = [ran for ran in done if ran.queue == Queue.BULK]
    return (bulk if len(bulk) >= _ENOUGH else done)[:_SAMPLE]


def _first(samples: Sequence[Sequence[Ran]], measure: Callable[[Sequence[Ran]], float | None]) -> float | None:
    return next((found for sample in samples if (found := measure(sample)) is not None), None)


def _per_unit(sample: Sequence[Ran], stage: str) -> float | None:
    unit = _UNITS[stage]
    return _ratio((ran.stages_ms[stage], ran.sizes.get(unit, 0)) for ran in sample if stage in ran.stages_ms)


def _reuse(sample: Sequence[Ran]) -> float | None:
    """Of jobs that computed no vector at all."""
    return _ratio((ran.stages_ms.get("embed", 0.0), ran.sizes["chunks"]) for ran in sample if not _computed(ran))


def _embed(sample: Sequence[Ran], reuse: float) -> float | None:
    """Of jobs that computed vectors, less what taking over the others took."""
    took = [
        (ran.stages_ms.get("embed", 0.0) - reuse * (ran.sizes["chunks"] - _computed(ran)), _computed(ran))
        for ran in sample
        if _computed(ran)
    ]
    return _ratio(took)


def _computed(ran: Ran) -> int:
    return min(ran.sizes.get("embedded", 0), ran.sizes["chunks"])


def _ratio(pairs: Iterable[tuple[float, int]]) -> float | None:
    """Sum by sum, so that large work weighs as much as it is large."""
    spent, size = 0.0, 0
    for ms, units in pairs:
        spent += ms
        size += units
    return max(0.0, spent) / size if size else None
