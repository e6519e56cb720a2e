"""Query sets made from what people said of answers and did with them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from rag_service.types import Expected, LabelledQuery, Person

EXPECTED, LIKED, USED = 3, 2, 1  # grades
_USES = frozenset({"copied", "clicked"})


class Judgement(Protocol):
    """What somebody said of an answer or of one of its documents ("": of the answer as a whole).

    `query` None: its text was not kept. `as_user`: {"user", "groups"} for whom it was asked; None: as the key itself,
    which is that of `key_id` where the same key asked and judged.
    """

    @property
    def query(self) -> str | None: ...
    @property
    def as_user(self) -> Mapping[str, Any] | None: ...
    @property
    def key_id(self) -> str: ...
    @property
    def document_id(self) -> str: ...
    @property
    def rating(self) -> str | None: ...
    @property
    def signals(self) -> Sequence[str]: ...
    @property
    def expected_document_id(self) -> str | None: ...


@dataclass(slots=True)
class _Votes:
    """Of one document, for one question."""

    missed: int = 0
    likes: int = 0
    uses: int = 0

    def grade(self, min_likes: int, signals: bool) -> int | None:
        """None where nothing says that it answers, or as many say that it does not."""
        if self.missed:
            return EXPECTED
        if self.likes >= min_likes:
            return LIKED
        return USED if signals and self.uses and self.likes >= 0 else None


@dataclass(slots=True)
class _Question:
    query: str
    asker: Person | None
    documents: dict[str, _Votes] = field(default_factory=dict)

    def about(self, document_id: str) -> _Votes:
        return self.documents.setdefault(document_id, _Votes())


def from_judgements(
    judgements: Iterable[Judgement],
    askers: Mapping[str, Person | None],
    *,
    min_likes: int = 1,
    signals: bool = False,
) -> list[LabelledQuery]:
    """A query for each question and asker of whom some document is known that answers, in the order first judged.

    A document that somebody expected instead has grade 3; one with at least `min_likes` more likes than dislikes, 2;
    with `signals`, one that was copied or clicked and is not disliked on balance, 1. `askers` says as whom the key of
    an id asks; a key that is not among them is taken for nobody in particular.
    """
    questions: dict[tuple[str, Person | None], _Question] = {}
    for said in judgements:
        if said.query is None or not said.query.strip():
            continue
        asker = _asker(said, askers)
        _count(questions.setdefault((said.query, asker), _Question(said.query, asker)), said)
    made = [_labelled(question, min_likes, signals) for question in questions.values()]
    return [query for query in made if query.is_labelled]


def only_of(queries: Iterable[LabelledQuery], present: Collection[str]) -> list[LabelledQuery]:
    """The queries with those expected documents only that are `present`, without queries that then expect none."""
    kept = []
    for query in queries:
        expected = tuple(one for one in query.expected if one.document_id in present)
        if expected:
            kept.append(LabelledQuery(id=query.id, query=query.query, expected=expected, as_user=query.as_user))
    return kept


def _count(question: _Question, said: Judgement) -> None:
    if said.document_id:
        votes = question.about(said.document_id)
        votes.likes += (said.rating == "like") - (said.rating == "dislike")
        votes.uses += not _USES.isdisjoint(said.signals)
    if said.expected_document_id:
        question.about(said.expected_document_id).missed += 1


def _asker(said: Judgement, askers: Mapping[str, Person | None]) -> Person | None:
    if said.as_user is not None:
        return Person.of(said.as_user)
    return askers.get(said.key_id, Person())


def _labelled(question: _Question, min_likes: int, signals: bool) -> LabelledQuery:
    grades = {name: votes.grade(min_likes, signals) for name, votes in question.documents.items()}
    expected = tuple(Expected(grade, document_id=name) for name, grade in grades.items() if grade is not None)
    return LabelledQuery(id="", query=question.query, expected=expected, as_user=question.asker)
