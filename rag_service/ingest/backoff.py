"""How often a failed job is tried again, and how long it waits before: by class of error."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from rag_service.errors import ErrorClass

# A worker that dies says little about the job it held, so that is forgiven more often than a parser that dies.
MAX_WORKER_DEATHS = 10


@dataclass(frozen=True, slots=True)
class Policy:
    """`tries` in all, waiting `first_s` seconds after the first, twice as long each time, up to `longest_s`.

    `may_pass`: the same work may succeed later without anybody changing the document.
    """

    tries: int
    first_s: float = 0.0
    longest_s: float = 0.0
    may_pass: bool = False


POLICIES: Mapping[ErrorClass, Policy] = {
    ErrorClass.TRANSIENT: Policy(tries=20, first_s=2, longest_s=600, may_pass=True),  # two hours in all
    ErrorClass.QUOTA: Policy(tries=40, first_s=5, longest_s=3600, may_pass=True),  # a day and more
    ErrorClass.AUTH: Policy(tries=2, first_s=300, longest_s=300, may_pass=True),  # more would lock the account
    ErrorClass.POISON: Policy(tries=3, first_s=1, longest_s=4),  # a document that kills its parser does so again
    ErrorClass.PERMANENT: Policy(tries=1),
    ErrorClass.DEFECT: Policy(tries=5, first_s=2, longest_s=600, may_pass=True),
}


def wait_s(
    error_class: ErrorClass,
    failures: int,
    retry_after: float = 0.0,
    draw: Callable[[float, float], float] = random.uniform,
) -> float | None:
    """Seconds to wait after the `failures`-th failure of this class; None: give up.

    Jobs that failed together come back spread over half to one and a half times the wait, and never before
    `retry_after` seconds are over.
    """
    policy = POLICIES[error_class]
    if failures >= policy.tries:
        return None
    wait = min(policy.first_s * 2.0 ** (failures - 1), policy.longest_s) * draw(0.5, 1.5)
    return max(wait, retry_after * draw(1.0, 1.25))
