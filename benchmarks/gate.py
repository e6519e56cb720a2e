"""The regression gate: measured quality against the committed baseline.

A baseline is {collection: {leg: nDCG@10}}, as `python -m benchmarks.quality --write-baseline` leaves it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

Quality: TypeAlias = Mapping[str, Mapping[str, float]]

BASELINE = Path(__file__).with_name("baseline.json")
TOLERANCE = 0.01


def losses(measured: Quality, baseline: Quality, tolerance: float = TOLERANCE) -> list[str]:
    """One sentence for every leg of a measured collection that lies more than `tolerance` below the baseline.

    A collection without a baseline loses nothing. A leg of the baseline that was not measured counts as lost: a gate
    that a missing number passes is none.
    """
    found = []
    for collection in sorted(measured.keys() & baseline.keys()):
        for leg, before in baseline[collection].items():
            now = measured[collection].get(leg)
            if now is None:
                found.append(f"{collection}, {leg}: not measured, {before:.4f} before")
            elif not now >= before - tolerance:
                found.append(f"{collection}, {leg}: {now:.4f}, {before:.4f} before")
    return found


def read_baseline(file: Path = BASELINE) -> Quality:
    baseline: Quality = json.loads(file.read_text(encoding="utf-8"))
    return baseline


def write_baseline(measured: Quality, file: Path = BASELINE) -> None:
    """Set what was measured; collections that were not keep their numbers."""
    kept = dict(read_baseline(file)) if file.exists() else {}
    rounded = {name: {leg: round(value, 4) for leg, value in legs.items()} for name, legs in measured.items()}
    file.write_text(json.dumps(kept | rounded, indent=2, sort_keys=True) + "\n", encoding="utf-8")
