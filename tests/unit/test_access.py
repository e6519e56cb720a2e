from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.base import Acl
from rag_service.access import (
    MANAGE,
    PUBLIC,
    AccessScope,
    Principal,
    may_read,
    narrows,
    principal_for,
    scope_of,
    tokens_of,
)
from rag_service.types import Person

NAMES = st.lists(st.sampled_from(["ann", "bob", "cas", "dev", "hr"]), max_size=4).map(tuple)
ACLS = st.builds(Acl, public=st.booleans(), users=NAMES, groups=NAMES, deny_users=NAMES, deny_groups=NAMES)
PRINCIPALS = st.builds(
    Principal,
    team=st.sampled_from(["red", "blue"]),
    user=st.none() | st.sampled_from(["ann", "bob"]),
    groups=st.frozensets(st.sampled_from(["dev", "hr"])),
    manages=st.booleans(),
)


def reads(acl: Acl, principal: Principal, team: str) -> bool:
    """The rule in words: own team; not denied; then public, or named, or a manager."""
    if principal.team != team or principal.user in acl.deny_users or principal.groups & set(acl.deny_groups):
        return False
    named = principal.user in acl.users or bool(principal.groups & set(acl.groups))
    return acl.public or named or principal.manages


@given(ACLS, PRINCIPALS, st.sampled_from(["red", "blue"]))
def test_tokens_decide_exactly_as_the_rule_in_words(acl: Acl, principal: Principal, team: str) -> None:
    assert may_read(scope_of(principal), team, tokens_of(acl)) == reads(acl, principal, team)


def test_nobody_in_particular_reads_public_documents_only() -> None:
    nobody = scope_of(Principal("red"))
    assert may_read(nobody, "red", tokens_of(Acl(public=True)))
    assert not may_read(nobody, "red", tokens_of(Acl(users=("ann",), groups=("dev",))))
    assert not may_read(nobody, "red", tokens_of(Acl()))


def test_a_document_without_an_acl_is_for_managers_only() -> None:
    nobodys = tokens_of(Acl())
    assert may_read(scope_of(Principal("red", manages=True)), "red", nobodys)
    assert not may_read(scope_of(Principal("red", "ann", frozenset({"dev"}))), "red", nobodys)


def test_a_question_for_a_person_is_asked_with_exactly_their_rights() -> None:
    ada = principal_for("a", Person("ada", ("staff",)))
    assert scope_of(ada).tokens == {PUBLIC, "user:ada", "group:staff"}
    assert scope_of(principal_for("a", Person())).tokens == {PUBLIC}
    assert scope_of(principal_for("a", None)).tokens == {PUBLIC, MANAGE}


def test_deny_wins_over_every_way_in() -> None:
    acl = Acl(public=True, users=("ann",), groups=("dev",), deny_users=("ann",))
    assert not may_read(scope_of(Principal("red", "ann", frozenset({"dev"}))), "red", tokens_of(acl))


def test_a_user_cannot_pass_for_a_group_or_for_a_rank() -> None:
    for name in (PUBLIC, MANAGE, "group:dev"):
        assert scope_of(Principal("red", name)).tokens == {PUBLIC, f"user:{name}"}


@pytest.mark.parametrize(("team", "tokens"), [("", {"public"}), ("red", set())])
def test_a_scope_cannot_be_empty(team: str, tokens: set[str]) -> None:
    with pytest.raises(ValueError, match="at least one token"):
        AccessScope(team, frozenset(tokens))


@given(ACLS, ACLS)
def test_narrowing_is_noticed_whenever_somebody_loses_access(before: Acl, after: Acl) -> None:
    people = [
        Principal("red", user, frozenset(groups), manages)
        for user in (None, "ann", "bob", "cas")
        for groups in ((), ("dev",), ("hr",), ("dev", "hr"))
        for manages in (False, True)
    ]
    lost = any(reads(before, who, "red") and not reads(after, who, "red") for who in people)
    assert not lost or narrows(tokens_of(before), tokens_of(after))
