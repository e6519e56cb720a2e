"""Whether two systems differ on the same queries, or only by the luck of which queries were asked.

The p-value is that of the paired randomisation test (Smucker, Allan and Carterette, A comparison of statistical
significance tests for information retrieval evaluation, CIKM 2007): if both were equally good, each difference could
as well have had the other sign. The interval is the percentile interval of the paired bootstrap (Efron and Tibshirani,
An Introduction to the Bootstrap, 1993). Both draw from a fixed seed: the same differences give the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000
# Of very many differences fewer resamples are as steady, and all of them would take a quarter of a minute.
_MOST_DRAWN = 10_000_000
_FEWEST = 1_000
_SEED = 2007
# Up to so many differences that are not 0, all their signs are tried: 4,096 ways.
_EXACT = 12
# Numbers held at a time: 8 MB.
_AT_ONCE = 1_000_000
_ROUNDING = 1e-12


@dataclass(frozen=True, slots=True)
class Paired:
    """The mean difference, the ends of its 95 % interval, and the two-sided p-value of "there is none"."""

    mean: float
    low: float
    high: float
    p_value: float


def paired(differences: Sequence[float]) -> Paired:
    """Test one difference per query. Raises ValueError where there is none at all."""
    if not differences:
        raise ValueError("no differences to test")
    values = np.asarray(differences, dtype=np.float64)
    mean = float(values.mean())
    low, high = np.percentile(_bootstrapped(values), [2.5, 97.5])
    return Paired(mean, float(low), float(high), _p_value(values[values != 0.0]))


def _p_value(moved: NDArray[np.float64]) -> float:
    """Differences of 0 have no sign to turn: they are left out."""
    if not len(moved):
        return 1.0
    observed = abs(moved.sum()) - _ROUNDING
    if len(moved) <= _EXACT:
        ways = np.arange(2 ** len(moved))[:, None] >> np.arange(len(moved)) & 1
        return float((np.abs((2.0 * ways - 1.0) @ moved) >= observed).mean())
    random = np.random.default_rng(_SEED)
    extreme = 0
    portions = _portions(len(moved))
    for rows in portions:
        signs = 2.0 * random.integers(0, 2, (rows, len(moved)), dtype=np.int8) - 1.0
        extreme += int((np.abs(signs @ moved) >= observed).sum())
    # With the observed one among the resamples: Phipson and Smyth, Permutation p-values should never be zero, 2010.
    return (extreme + 1) / (sum(portions) + 1)


def _bootstrapped(values: NDArray[np.float64]) -> NDArray[np.float64]:
    random = np.random.default_rng(_SEED)
    means = [
        values[random.integers(0, len(values), (rows, len(values)))].mean(axis=1) for rows in _portions(len(values))
    ]
    return np.concatenate(means)


def _portions(width: int) -> list[int]:
    """Numbers of resamples of this width, in portions that fit in memory."""
    most = max(1, _AT_ONCE // width)
    whole, rest = divmod(max(_FEWEST, min(RESAMPLES, _MOST_DRAWN // width)), most)
    return [most] * whole + ([rest] if rest else [])
