"""`python -m tests.chaos [name ...]`: every scenario in its long form, and a table of how each went.

RAG_CHAOS_SEED chooses the seed; without it each run takes another one, and the table says which. Exits 1 if one broke.
"""

from __future__ import annotations

import argparse
import logging
import random
import sys
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from tests.chaos.full_disk import filled
from tests.chaos.interleavings import interleave
from tests.chaos.kills import killed_in_a_sync, killed_with_a_job
from tests.chaos.many_processes import queue_lost, servers_out, zombies
from tests.chaos.outage import database_out, vectors_out
from tests.chaos.poison import poisoned
from tests.chaos.report import Report, Scenario, seed_of, table

SCENARIOS: Mapping[str, Scenario] = {
    "kills": partial(killed_in_a_sync, files=5_000, kills=50),
    "redelivery": partial(killed_with_a_job, runs=30),
    "poison": partial(poisoned, neighbours=500),
    "interleavings": partial(interleave, examples=1_000),
    "full-disk": partial(filled, times=10),
    "vectors-out": partial(vectors_out, documents=500),
    "queue-lost": partial(queue_lost, files=2_000, worker_kills=20, redis_kills=2, outage_s=12),
    "zombies": partial(zombies, stops=50),
    "servers-out": partial(servers_out, rounds=5),
    "database-out": partial(database_out, documents=500),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"of {', '.join(SCENARIOS)}; all where none is given")
    names = parser.parse_args().names or list(SCENARIOS)
    if unknown := [name for name in names if name not in SCENARIOS]:
        parser.error(f"There is no {', '.join(unknown)}; there are {', '.join(SCENARIOS)}.")
    logging.disable(logging.ERROR)
    reports: list[Report] = []
    for name in names:
        seed = seed_of(random.SystemRandom().randrange(10_000))
        print(f"{name}, seed {seed} ...", file=sys.stderr, flush=True)  # noqa: T201 - what a person waits for
        with tempfile.TemporaryDirectory(prefix=f"rag-chaos-{name}-") as folder:
            reports.append(SCENARIOS[name](Path(folder), seed))
        print(reports[-1], file=sys.stderr, flush=True)  # noqa: T201 - same
    print(table(reports))  # noqa: T201 - the result
    return int(any(report.wrong for report in reports))


if __name__ == "__main__":
    sys.exit(main())
