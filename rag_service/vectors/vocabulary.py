"""What the points of an index have in common, so that a search need not ask each of them about it.

An index usually holds the points of one team, and few readers are denied anything in it. Conditions on the team and
on denials that every point satisfies cost more than the search itself: a store looks them up point by point.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from rag_service.vectors.conditions import Condition, Every, Match, Without


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The teams that an index's points belong to and the tokens that they deny, or more of either, never fewer.

    `denied` None: too many to know them all.
    """

    teams: frozenset[str]
    denied: frozenset[str] | None

    def including(self, teams: Iterable[str], denied: Iterable[str]) -> Vocabulary:
        """With these added; itself when they add nothing."""
        all_denied = None if self.denied is None else self.denied.union(denied)
        more = Vocabulary(self.teams.union(teams), all_denied)
        return self if more == self else more

    def simplified(self, condition: Every) -> Every:
        """A condition that the same points of this index satisfy, without the parts that all of them do."""
        parts = tuple(part for part in condition.conditions if not self._holds_everywhere(part))
        return Every(parts) if parts else condition

    def _holds_everywhere(self, condition: Condition) -> bool:
        match condition:
            case Match("team", teams):
                return self.teams.issubset(teams)
            case Without(Match("deny", tokens)):
                return self.denied is not None and self.denied.isdisjoint(tokens)
            case _:
                return False
