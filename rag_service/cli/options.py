"""Options that several commands share, and how their values are read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from rag_service.cli.failure import MISUSED, CommandFailed

Public = Annotated[bool, typer.Option("--public", help="Everybody in the team may read it.")]
Users = Annotated[
    list[str] | None, typer.Option("--user", metavar="USER", help="A user who may read it; repeat for more.")
]
Groups = Annotated[
    list[str] | None, typer.Option("--group", metavar="GROUP", help="A group that may read it; repeat for more.")
]
DenyUsers = Annotated[
    list[str] | None,
    typer.Option("--deny-user", metavar="USER", help="A user who may not read it, whatever else says so."),
]
DenyGroups = Annotated[
    list[str] | None,
    typer.Option("--deny-group", metavar="GROUP", help="A group that may not read it, whatever else says so."),
]
TopK = Annotated[int, typer.Option("--top-k", "-k", metavar="N", min=1, max=100, help="Number of results.")]
Mode = Annotated[str | None, typer.Option("--mode", metavar="MODE", help="hybrid (default), dense or lexical.")]
AsUser = Annotated[
    str | None,
    typer.Option("--as-user", metavar="USER", help="Ask for this user; needs a key with the scope impersonate."),
]
AsGroups = Annotated[
    list[str] | None,
    typer.Option("--as-group", metavar="GROUP", help="... as a member of this group; repeat for more."),
]
Narrowing = Annotated[
    str | None, typer.Option("--filter", metavar="JSON", help="Only documents like this, in Mongo's words.")
]
Collections = Annotated[
    list[str] | None, typer.Option("--collection", metavar="NAME", help="Only this collection; repeat for more.")
]
Limit = Annotated[int, typer.Option("--limit", metavar="N", min=1, max=100_000, help="Show at most this many.")]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Return at once instead of waiting for the end.")]


def given(**values: Any) -> dict[str, Any]:
    """Those that an option or argument said something of: what is left out is the service's to decide."""
    return {name: value for name, value in values.items() if value is not None}


def asker(user: str | None, groups: Sequence[str] | None) -> dict[str, Any] | None:
    """Whom is asked for, in the service's shape; None when no option said anything."""
    return {"user": user, "groups": list(groups or ())} if user is not None or groups else None


def acl(
    public: bool,
    users: Sequence[str] | None,
    groups: Sequence[str] | None,
    deny_users: Sequence[str] | None = None,
    deny_groups: Sequence[str] | None = None,
) -> dict[str, Any] | None:
    """The ACL in the service's shape; None when no option said anything."""
    lists = {"users": users, "groups": groups, "deny_users": deny_users, "deny_groups": deny_groups}
    if not public and not any(lists.values()):
        return None
    return {"public": public, **{name: list(members or ()) for name, members in lists.items()}}


def pairs(texts: Sequence[str] | None, option: str) -> dict[str, Any]:
    """key=value pairs. A value that is JSON (a number, true, a list) is read as such, anything else is text."""
    values: dict[str, Any] = {}
    for pair in texts or ():
        key, equals, value = pair.partition("=")
        if not key or not equals:
            raise CommandFailed(f"{option} {pair} is no pair.", f"Write {option} key=value.", exit_code=MISUSED)
        values[key] = _value(value)
    return values


def json_object(text: str | None, option: str, example: str) -> dict[str, Any] | None:
    """An option whose value is a JSON object."""
    if text is None:
        return None
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise CommandFailed(
            f"The value of {option} is no JSON object.", f"Write it like {option} '{example}'.", exit_code=MISUSED
        )
    return value


def _value(text: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return text if value is None or str(value) in ("nan", "inf", "-inf") else value
