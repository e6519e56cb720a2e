"""Whether two samples of answers differ by more than chance: pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

_GROUPS = 10
# One chance in ten thousand that equal samples look so different, in standard deviations of a normal variable.
_RARE = 3.719


def standard_difference(few: int, of: int, former: int, of_former: int) -> float:
    """The difference of two shares in its standard deviations (two-proportion z-test, pooled); 0 where both are 0 or 1.

    Positive where few/of is the larger one.
    """
    pooled = (few + former) / (of + of_former)
    spread = math.sqrt(pooled * (1 - pooled) * (1 / of + 1 / of_former))
    return 0.0 if spread == 0 else (few / of - former / of_former) / spread


def stability_index(reference: Sequence[int], newest: Sequence[int]) -> tuple[float, float]:
    """(population stability index of two histograms over the same bins, what chance alone seldom exceeds).

    Bins are put together to at most ten groups that hold about equal shares of the reference; half an answer is added
    to each group, so that none is empty. Of equal samples of n and m, the index is about (1/n + 1/m) times a chi-square
    variable of groups - 1 degrees of freedom (Yurdakul, Statistical properties of the population stability index,
    2018): the second number is its 0.9999 quantile, by the approximation of Wilson and Hilferty (1931).
    """
    groups = _grouped(reference, newest)
    total, total_newest = sum(reference), sum(newest)
    index = 0.0
    for old, new in groups:
        share = (old + 0.5) / (total + 0.5 * len(groups))
        share_newest = (new + 0.5) / (total_newest + 0.5 * len(groups))
        index += (share_newest - share) * math.log(share_newest / share)
    freedom = len(groups) - 1
    return index, _chi_square(freedom) * (1 / total + 1 / total_newest)


def _grouped(reference: Sequence[int], newest: Sequence[int]) -> list[tuple[int, int]]:
    """Neighbouring bins together until each group holds a tenth of the reference; the last takes what is left."""
    wanted = sum(reference) / _GROUPS
    groups: list[tuple[int, int]] = []
    old = new = 0
    for count, count_newest in zip(reference, newest, strict=True):
        old, new = old + count, new + count_newest
        if old >= wanted:
            groups.append((old, new))
            old = new = 0
    if old or new or not groups:
        groups.append((old, new))
    return groups


def _chi_square(freedom: int) -> float:
    """The 0.9999 quantile."""
    if freedom == 0:
        return 0.0
    part = 2 / (9 * freedom)
    return float(freedom * (1 - part + _RARE * math.sqrt(part)) ** 3)
