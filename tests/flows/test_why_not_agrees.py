"""The verdict on any document agrees with what is retrieved and with who-may-read-what in plain Python."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connectors.base import Acl
from rag_service.access import AccessTokens, Principal, scope_of, tokens_of
from rag_service.errors import NotFound
from rag_service.retrieval.filters import parse_filter
from rag_service.retrieval.options import Feedback, Options, Recency
from rag_service.retrieval.plan import FusionSpec, RetrievalRequest
from rag_service.retrieval.syntax import read
from rag_service.retrieval.why_not import Subject, Verdict
from tests import access_model
from tests.conftest import Service, Team

USERS, GROUPS, WORDS = ("ada", "bob"), ("staff", "hr"), ("leave", "annual", "parking", "canteen", "salary")
DEMANDS = ('"leave"', '"annual leave"', "-parking", "-salary")


@dataclass(frozen=True)
class Known:
    """A document as it was put in."""

    id: str
    team: str
    access: AccessTokens
    fields: dict[str, Any]
    text: str


@pytest.fixture(scope="module", params=[1, 2])
def corpus(request: pytest.FixtureRequest, service: Service) -> tuple[Team, list[Known]]:
    rng, team, known = random.Random(request.param), service.new_team(), []

    def some(names: tuple[str, ...]) -> list[str]:
        return [name for name in names if rng.random() < 0.3]

    for n in range(24):
        acl = Acl(rng.random() < 0.4, tuple(some(USERS)), tuple(some(GROUPS)), tuple(some(USERS)), tuple(some(GROUPS)))
        metadata: dict[str, Any] = {"n": rng.randrange(4), "tags": some(WORDS), "published": f"{2000 + n}-01-01"}
        if rng.random() < 0.5:
            metadata["draft"] = rng.random() < 0.5
        written = {name: list(value) if isinstance(value, tuple) else value for name, value in _parts(acl).items()}
        text = " ".join(rng.choice(WORDS) for _ in range(rng.randint(3, 12)))
        made = team.put(text, external_id=f"d{n}", title=f"T{n % 3}", metadata=metadata, acl=written)
        fields = {"external_id": f"d{n}", "title": f"T{n % 3}", "source": None, "metadata": metadata}
        known.append(Known(made["id"], team.id, tokens_of(acl), fields, text))
    team.drain()
    return team, known


def _parts(acl: Acl) -> dict[str, Any]:
    return {name: getattr(acl, name) for name in ("public", "users", "groups", "deny_users", "deny_groups")}


conditions = st.one_of(
    st.builds(lambda op, n: {"n": {op: n}}, st.sampled_from(["$eq", "$ne", "$gt", "$lte"]), st.integers(0, 3)),
    st.builds(
        lambda op, tags: {"tags": {op: tags}},
        st.sampled_from(["$in", "$nin"]),
        st.lists(st.sampled_from(WORDS), min_size=1),
    ),
    st.builds(lambda there: {"draft": {"$exists": there}}, st.booleans()),
    st.builds(lambda title: {"title": title}, st.sampled_from(["T0", "T1"])),
)
filters = st.recursive(
    conditions,
    lambda inner: st.one_of(
        st.builds(
            lambda name, parts: {name: parts}, st.sampled_from(["$and", "$or"]), st.lists(inner, min_size=1, max_size=3)
        ),
        st.builds(lambda part: {"$not": part}, inner),
    ),
    max_leaves=5,
)
askers = st.one_of(
    st.just({"manages": True}),
    st.builds(
        lambda user, groups: {"user": user, "groups": frozenset(groups)},
        st.sampled_from([None, *USERS]),
        st.sets(st.sampled_from(GROUPS)),
    ),
)
questions = st.fixed_dictionaries(
    {
        "query": st.lists(st.sampled_from([*WORDS, *DEMANDS, "nowhere", "the"]), min_size=1, max_size=3).map(" ".join),
        "top_k": st.integers(1, 8),
        "mode": st.sampled_from(["hybrid", "dense", "lexical"]),
        "fusion": st.sampled_from([None, FusionSpec("weighted", 0.5, 0.5), FusionSpec("rrf")]),
        "min_score": st.one_of(st.none(), st.floats(0, 1)),
        "filter": st.one_of(st.none(), filters).map(parse_filter),
        "max_chunks_per_document": st.sampled_from([None, 1]),
        "options": st.builds(
            Options,
            feedback=st.sampled_from([None, Feedback()]),
            diversity=st.sampled_from([None, None, 0.5]),
            collapse=st.sampled_from([None, None, 0.5]),
            recency=st.sampled_from([None, None, Recency("published", weight=0.9)]),
        ),
    }
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(question=questions, asker=askers, data=st.data())
def test_every_verdict_agrees_with_the_answer_and_with_the_model(
    corpus: tuple[Team, list[Known]], question: dict[str, Any], asker: dict[str, Any], data: st.DataObject
) -> None:
    team, known = corpus
    runtime, principal, request = team.service.runtime, Principal(team.id, **asker), RetrievalRequest(**question)
    hits = runtime.retriever.retrieve(request, principal).hits
    ranks = {hit.chunk.chunk.document_id: hit.rank for hit in reversed(hits)}
    for document in data.draw(st.lists(st.sampled_from(known), min_size=5, max_size=5, unique_by=lambda one: one.id)):
        subject = Subject(document_id=document.id)
        verdict = runtime.why_not.explain(subject, request, principal, tells_all=True)
        _check(document, verdict, request, principal, ranks)
        if access_model.visible(scope_of(principal), document):
            again = runtime.why_not.explain(subject, request, principal, tells_all=False)
            # Scores that age let pass are lower a moment later.
            assert again == verdict or (request.options.recency and again.reason == verdict.reason)
        else:
            with pytest.raises(NotFound):
                runtime.why_not.explain(subject, request, principal, tells_all=False)


def _check(
    document: Known, verdict: Verdict, request: RetrievalRequest, principal: Principal, ranks: dict[str, int]
) -> None:
    if not access_model.visible(scope_of(principal), document):
        assert (verdict.kind, ranks.get(document.id)) == ("not_readable", None)
    elif not access_model.matches(request.filter, document.fields):
        assert (verdict.kind, ranks.get(document.id)) == ("filtered_out", None)
        assert not access_model.matches(parse_filter(verdict.detail["clause"]), document.fields)
    elif document.id in ranks:
        assert (verdict.kind, verdict.detail["rank"]) == ("returned", ranks[document.id])
    elif not _worded(document, request):
        assert verdict.kind == "wording"
        assert verdict.detail["missing"] or verdict.detail["unwanted"]
    else:
        assert verdict.kind == "below_cut_off"
        _check_cut(verdict.detail, request, len(ranks))


def _worded(document: Known, request: RetrievalRequest) -> bool:
    """Words are single-spaced and lower case here, so that plain Python can tell."""
    question, text = read(request.query), f" {document.text} "
    return all(one in text for one in question.phrases) and not any(one in text for one in question.excluded)


def _check_cut(detail: Any, request: RetrievalRequest, returned: int) -> None:
    match detail["cut"]:
        case "min_score":
            assert detail["fused"]["score"] < (request.min_score or 0)
        case "recency" | "collapse_duplicates" | "diversity" as option:
            name = {"collapse_duplicates": "collapse"}.get(option, option)
            assert getattr(request.options, name) is not None
        case "depth":
            assert request.options.compares
        case "top_k":
            assert returned == request.top_k
            assert detail["fused"]["rank"] > request.top_k
            assert request.options.compares or detail["fused"]["score"] <= detail["last_returned"]["fused"]
        case "no_common_word" | "nothing_asked":
            assert request.mode == "lexical"
        case cut:
            raise AssertionError(f"with so few documents none is cut as {cut}")
