"""Why a hit stands where it stands: legs, words, what options did to it, the token that admitted it, filters.

Nothing here runs unless an explanation was asked for.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from rag_service.access import AccessScope
from rag_service.db import Database, acls
from rag_service.embedding.base import LexicalEncoder
from rag_service.pipelines import Pipelines
from rag_service.retrieval.clauses import clauses
from rag_service.retrieval.course import Course
from rag_service.retrieval.fusion import Fused
from rag_service.retrieval.plan import RetrievalRequest
from rag_service.retrieval.refining import Ranked
from rag_service.types import ConfirmedChunk, IndexVersion, SparseVector
from rag_service.vectors.base import SearchRequest, VectorStore

# Each term is one more search among the hits: these are the terms of almost every question, and bound the cost.
MAX_TERMS = 64
_MOST_WORDS = 8  # spellings shown per term

_WORD = re.compile(r"\w+")
_PART = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+|[^\W\d_a-zA-Z]+")
# Scripts that put no blanks between words are indexed by neighbouring characters.
_UNSPACED = re.compile(
    "[\u0e01-\u0eff\u1000-\u109f\u1780-\u17ff\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3\uf900-\ufaff"
    "\U00020000-\U0003ffff]+"
)


class Explainer:
    """Holds no state of its own; safe to share between threads."""

    def __init__(self, database: Database, vectors: VectorStore, pipelines: Pipelines) -> None:
        self._database = database
        self._vectors = vectors
        self._pipelines = pipelines

    def explain(
        self, hits: Sequence[Ranked], request: RetrievalRequest, course: Course, scope: AccessScope
    ) -> list[dict[str, Any]]:
        """One explanation per hit, in order.

        The contributions of `legs` add up to the fused score; those of `terms`, with `other_terms`, to the lexical
        leg's score, as far as documents stayed the same between the search and its explanation. `moves` is what each
        option did to the hit after that.
        """
        if not hits:
            return []
        with self._database.read() as connection:
            admitted = acls.admitting(connection, {hit.found[1].chunk.document_id for hit in hits}, scope)
        terms = self._terms(hits, course, scope) if "lexical" in course.plan.legs else {}
        places = {fused.candidate.chunk_id: place for place, (fused, _) in enumerate(course.found, start=1)}
        applied = clauses(request.filter)
        return [
            {
                "legs": _legs(fused, course),
                **_shown_terms(fused, terms.get(found.chunk.id, [])),
                "fused_rank": places[found.chunk.id],
                "moves": dict(hit.moves),
                "admitted_by": admitted.get(found.chunk.document_id, []),
                "filter": applied,
            }
            for hit in hits
            for fused, found in [hit.found]
        ]

    def _terms(self, hits: Sequence[Ranked], course: Course, scope: AccessScope) -> dict[str, list[dict[str, Any]]]:
        """By chunk id: the terms it shares with the question, the heaviest first."""
        found: dict[str, list[dict[str, Any]]] = {}
        for query in course.queries:
            own = [hit.found[1] for hit in hits if hit.found[1].index_version == query.version.id]
            if own and query.lexical is not None:
                found |= self._matched(own, query.version, query.lexical, course.question.text, scope)
        return {
            chunk_id: sorted(terms, key=lambda term: (-float(term["contribution"]), term["query_words"]))
            for chunk_id, terms in found.items()
        }

    def _matched(
        self,
        hits: Sequence[ConfirmedChunk],
        index: IndexVersion,
        lexical: SparseVector,
        query: str,
        scope: AccessScope,
    ) -> dict[str, list[dict[str, Any]]]:
        """Each term is asked alone, among the hits: its score there is its contribution, with the store's own IDF."""
        weights = {int(term): float(weight) for term, weight in zip(lexical.indices, lexical.values, strict=True)}
        chunker = self._pipelines.chunker(index)
        texts = {hit.chunk.id: chunker.counted(chunker.fitting_title(hit.title), hit.chunk.content) for hit in hits}
        encoder = self._pipelines.lexical(index)
        # A question may ask for many forms of a word, of which passages hold few.
        held = {int(term) for passage in encoder.encode(list(texts.values()), "document") for term in passage.indices}
        spoken = spellings([query, *texts.values()], encoder, held.intersection(weights))
        asked_words = {term: _within(query, words) for term, words in spoken.items()}
        among = frozenset(texts)
        matched: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for term in sorted(held.intersection(weights), key=lambda term: (-weights[term], term))[:MAX_TERMS]:
            alone = SparseVector([term], [weights[term]])
            wanted = SearchRequest(dense=None, lexical=alone, narrowing=None, limit=len(among), chunk_ids=among)
            for candidate in self._vectors.search(index.id, wanted, scope):
                if candidate.lexical:
                    shown = {
                        "query_words": asked_words.get(term, []),
                        "chunk_words": _within(texts[candidate.chunk_id], spoken.get(term, [])),
                        "query_weight": weights[term],
                        "contribution": candidate.lexical,
                    }
                    matched[candidate.chunk_id].append(shown)
        return matched


def spellings(texts: Sequence[str], encoder: LexicalEncoder, wanted: AbstractSet[int]) -> dict[int, list[str]]:
    """The words of `texts` that stand for each of the `wanted` terms, by asking the encoder about each word alone.

    A word that is several terms at once (an identifier, a run of Chinese) names one of them only where no word does so
    by itself. Terms that no single word makes are left out.
    """
    words = list(dict.fromkeys(word for text in texts for word in _words(text)))
    named: dict[int, tuple[int, list[str]]] = {}
    parts = [len(vector.indices) for vector in encoder.encode(words, "document")]
    # As a question, a word alone stands for its forms in every language that it may be of.
    for word, size, vector in zip(words, parts, encoder.encode(words, "query"), strict=True):
        for term in wanted & set(map(int, vector.indices)):
            fewest, known = named.get(term, (size, []))
            if size < fewest:
                known = []
            if size <= fewest:
                named[term] = (size, [*known, word])
    return {term: known for term, (_, known) in named.items()}


def _words(text: str) -> Iterator[str]:
    for word in _WORD.findall(text):
        yield word
        if not word.isalpha() or not (word.islower() or word.istitle()):
            yield from _PART.findall(word)
        for run in _UNSPACED.findall(word) if not word.isascii() else ():
            yield from run
            yield from (run[place : place + 2] for place in range(len(run) - 1))
    if not text.isascii():
        # Vowel signs end a word of `re` but not one of every analyser.
        yield from text.split()


def _within(text: str, words: Iterable[str]) -> list[str]:
    present = set(_words(text))
    return [word for word in words if word in present][:_MOST_WORDS]


def _legs(fused: Fused, course: Course) -> dict[str, dict[str, Any]]:
    """Which leg contributed what."""
    candidate, spec = fused.candidate, course.fusion
    dense_weight, lexical_weight = spec.weights if spec else (1.0, 1.0)
    legs = {
        "dense": (candidate.dense, candidate.dense_rank, dense_weight, fused.dense),
        "lexical": (candidate.lexical, candidate.lexical_rank, lexical_weight, fused.lexical),
    }
    names = ("score", "rank", "weight", "contribution")
    return {leg: dict(zip(names, legs[leg], strict=True)) for leg in course.plan.legs}


def _shown_terms(fused: Fused, terms: list[dict[str, Any]]) -> dict[str, Any]:
    named: float = sum(float(term["contribution"]) for term in terms)
    beyond = (fused.candidate.lexical or 0.0) - named
    return {"terms": terms, "other_terms": beyond if abs(beyond) > 1e-4 * max(1.0, named) else 0.0}
