"""Who may read what, decided in one place.

Both directions live here: an ACL becomes the tokens stored with a document, a principal becomes the tokens
a search must match. A document is readable when one of its allow tokens is in the scope and none of its deny
tokens is. A document whose ACL admits nobody still carries the manage token, so that its team's managers see it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from connectors.base import Acl
from rag_service.types import Person

PUBLIC = "public"
MANAGE = "manage"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is asking. `user` None and no groups: nobody in particular, who reads public documents only."""

    team: str
    user: str | None = None
    groups: frozenset[str] = frozenset()
    manages: bool = False


@dataclass(frozen=True, slots=True)
class AccessTokens:
    """The ACL of a document as stored beside its chunks."""

    allow: tuple[str, ...]
    deny: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AccessScope:
    """The only thing a search accepts: one team and what its asker holds. It cannot be empty."""

    team: str
    tokens: frozenset[str]

    def __post_init__(self) -> None:
        if not self.team or not self.tokens:
            raise ValueError("an access scope needs a team and at least one token")


def principal_for(team: str, person: Person | None) -> Principal:
    """Exactly this person; where none is named, somebody who reads all of the team's documents."""
    if person is None:
        return Principal(team, manages=True)
    return Principal(team, person.user, frozenset(person.groups))


def tokens_of(acl: Acl) -> AccessTokens:
    """The tokens under which a document with this ACL is stored."""
    allow = [MANAGE]
    if acl.public:
        allow.append(PUBLIC)
    return AccessTokens(
        allow=tuple(allow + _named(acl.users, acl.groups)),
        deny=tuple(_named(acl.deny_users, acl.deny_groups)),
    )


def scope_of(principal: Principal) -> AccessScope:
    """The scope of everything this principal may read."""
    tokens = {PUBLIC, *_named((principal.user,) if principal.user else (), principal.groups)}
    if principal.manages:
        tokens.add(MANAGE)
    return AccessScope(team=principal.team, tokens=frozenset(tokens))


def may_read(scope: AccessScope, team: str, tokens: AccessTokens) -> bool:
    """The rule itself, for callers that hold a document's tokens in memory."""
    return scope.team == team and not scope.tokens.isdisjoint(tokens.allow) and scope.tokens.isdisjoint(tokens.deny)


def narrows(before: AccessTokens, after: AccessTokens) -> bool:
    """True when somebody who could read under `before` may not under `after`."""
    return bool(_missing(before.allow, after.allow) or _missing(after.deny, before.deny))


def _missing(these: Collection[str], there: Collection[str]) -> set[str]:
    return set(these) - set(there)


def _named(users: Iterable[str], groups: Iterable[str]) -> list[str]:
    return sorted(f"user:{user}" for user in users) + sorted(f"group:{group}" for group in groups)
