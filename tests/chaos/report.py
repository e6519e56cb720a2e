"""What a scenario hands back: what happened, what was measured, and what is wrong with it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Report:
    """`wrong` empty is a pass. The same scenario with the same seed does the same again."""

    scenario: str
    seed: int
    happened: str
    numbers: Mapping[str, object] = field(default_factory=dict)
    wrong: tuple[str, ...] = ()

    def __str__(self) -> str:
        numbers = ", ".join(f"{name} {value}" for name, value in self.numbers.items())
        verdict = "held" if not self.wrong else f"BROKEN: {'; '.join(self.wrong[:5])} ({len(self.wrong)} in all)"
        return f"{self.scenario} | seed {self.seed} | {self.happened} | {numbers} | {verdict}"


class Scenario(Protocol):
    def __call__(self, folder: Path, seed: int, /) -> Report:
        """Run in an empty folder."""
        ...


def seed_of(default: int) -> int:
    """The seed to use: RAG_CHAOS_SEED if it is set, to run again what went wrong with another one."""
    return int(os.environ.get("RAG_CHAOS_SEED", default))


def table(reports: Iterable[Report]) -> str:
    lines = ["| scenario | seed | what happened | numbers | verdict |", "|---|---|---|---|---|"]
    return "\n".join([*lines, *(f"| {report} |" for report in reports)])


def percentile(values: Iterable[float], share: float) -> float:
    """The smallest value that at least `share` of all do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-int(share * 100) * len(ordered) // 100) - 1)]
