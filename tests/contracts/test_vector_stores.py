"""What every vector store does, the embedded one and the server one alike."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import Any
from uuid import NAMESPACE_OID, uuid5

import numpy as np
import pytest

from rag_service.access import PUBLIC, AccessScope, AccessTokens
from rag_service.errors import Conflict, FatalError, InvalidRequest, NotFound
from rag_service.types import Compare, SparseVector
from rag_service.vectors.base import Candidate, IndexSpec, SearchRequest, VectorStore
from tests.contracts import vector_variants
from tests.contracts.vector_variants import ANYONE, OPEN, SPEC, Variant, document_of, found, point, unit

pytestmark = vector_variants.QUIET
variant, store, index = vector_variants.variant, vector_variants.store, vector_variants.index


def by_document(candidates: Sequence[Candidate]) -> dict[str, Candidate]:
    assert len({document_of(candidate) for candidate in candidates}) == len(candidates)
    return {document_of(candidate): candidate for candidate in candidates}


class TestIndexes:
    def test_an_index_made_twice_keeps_its_points(self, store: VectorStore, index: str) -> None:
        store.upsert(index, [point("a")])
        store.create(index, SPEC)
        assert found(store, index) == ["a"]

    def test_an_index_of_other_dimensions_is_a_conflict(self, store: VectorStore, index: str) -> None:
        with pytest.raises(Conflict, match="other dimensions"):
            store.create(index, IndexSpec(dimensions=5))

    def test_a_dropped_index_is_gone_and_may_be_dropped_again(self, store: VectorStore) -> None:
        store.create("short-lived", SPEC)
        store.upsert("short-lived", [point("a")])
        store.drop("short-lived")
        store.drop("short-lived")
        with pytest.raises(NotFound):
            found(store, "short-lived")

    def test_an_index_made_anew_is_empty(self, store: VectorStore, index: str) -> None:
        store.upsert(index, [point("a")])
        store.drop(index)
        store.create(index, SPEC)
        assert found(store, index) == []

    @pytest.mark.parametrize(
        "use",
        [
            lambda store: found(store, "unknown"),
            lambda store: store.upsert("unknown", [point("a")]),
            lambda store: store.delete("unknown", "a"),
            lambda store: store.set_lexical("unknown", "a", {}),
            lambda store: store.update("unknown", "a", access=OPEN),
            lambda store: list(store.stored("unknown")),
        ],
        ids=["search", "upsert", "delete", "set_lexical", "update", "stored"],
    )
    def test_an_unknown_index_is_not_found(self, store: VectorStore, use: Callable[[VectorStore], Any]) -> None:
        with pytest.raises(NotFound):
            use(store)

    @pytest.mark.parametrize("name", ["../escape", "a/b", "", ".hidden", "a" * 129, "a\x00b", "naïve", "a\n"])
    def test_a_name_that_could_leave_its_folder_is_refused(self, store: VectorStore, name: str) -> None:
        with pytest.raises(InvalidRequest):
            store.create(name, SPEC)
        with pytest.raises(InvalidRequest):
            store.drop(name)

    def test_indexes_do_not_see_each_other(self, store: VectorStore, index: str) -> None:
        store.create("neighbour", SPEC)
        store.upsert("neighbour", [point("a")])
        assert found(store, index) == []
        store.drop("neighbour")


class TestWriting:
    def test_a_point_written_again_replaces_itself(self, store: VectorStore, index: str) -> None:
        store.upsert(index, [point("a", fields={"colour": "red"})])
        store.upsert(index, [point("a", version=2, dense=unit(0, 1, 0, 0), fields={"size": 1})])
        (stored,) = store.stored(index, vectors=True)
        assert stored.dense is not None
        assert (stored.version, stored.dense.tolist()) == (2, [0, 1, 0, 0])
        assert found(store, index, Compare("colour", "exists", False)) == ["a"]

    def test_a_point_is_read_back_with_all_that_a_copy_needs(self, store: VectorStore, index: str) -> None:
        access = AccessTokens(("manage", "user:ada"), ("group:guests",))
        written = point("a", lexical=SparseVector((9, 3), (0.25, 1.5)), dense=unit(3, 4, 0, 0), access=access)
        store.upsert(index, [written])
        (bare,) = store.stored(index)
        assert (bare.team, bare.access, bare.dense, bare.lexical) == ("acme", access, None, None)
        (stored,) = store.stored(index, vectors=True)
        assert stored.dense is not None
        assert stored.lexical is not None
        assert stored.dense.tolist() == written.dense.tolist()
        assert dict(zip(stored.lexical.indices, stored.lexical.values, strict=True)) == {9: 0.25, 3: 1.5}

    def test_many_points_at_once(self, store: VectorStore, index: str) -> None:
        store.upsert(index, [point(str(number)) for number in range(700)])
        assert len({stored.chunk_id for stored in store.stored(index)}) == 700

    def test_no_points_at_all(self, store: VectorStore, index: str) -> None:
        store.upsert(index, [])
        assert list(store.stored(index)) == []

    @pytest.mark.parametrize("dense", [unit(1, 0, 0), np.full(4, np.nan, np.float32)], ids=["short", "not a number"])
    def test_a_vector_that_cannot_be_held_is_fatal(self, store: VectorStore, index: str, dense: Any) -> None:
        with pytest.raises(FatalError):
            store.upsert(index, [point("good"), point("bad", dense=dense)])
        assert "bad" not in found(store, index)

    def test_a_document_is_deleted_alone(self, store: VectorStore, index: str) -> None:
        store.upsert(index, [point("a1", document_id="a"), point("a2", document_id="a"), point("b")])
        store.delete(index, "a")
        store.delete(index, "never there")
        assert found(store, index) == ["b"]

    def test_only_versions_below_are_deleted(self, store: VectorStore, index: str) -> None:
        versions = [point(f"a{version}", document_id="a", version=version) for version in (1, 2, 3)]
        store.upsert(index, [*versions, point("b", version=1)])
        store.delete(index, "a", older_than=3)
        assert [(stored.document_id, stored.version) for stored in store.stored(index, "a")] == [("a", 3)]
        assert found(store, index) == ["a", "b"]

    def test_one_version_is_deleted_alone(self, store: VectorStore, index: str) -> None:
        versions = [point(f"a{version}", document_id="a", version=version) for version in (1, 2, 3)]
        store.upsert(index, [*versions, point("b", version=2)])
        store.delete(index, "a", only=2)
        assert sorted((stored.document_id, stored.version) for stored in store.stored(index)) == [
            ("a", 1),
            ("a", 3),
            ("b", 2),
        ]

    def test_chunks_are_deleted_and_read_back_by_name(self, store: VectorStore, index: str) -> None:
        a, b, c = (point(f"a{place}", document_id="a") for place in range(3))
        other = point("b")
        store.upsert(index, [a, b, c, other])
        read = store.stored(index, chunk_ids=frozenset({a.chunk_id, other.chunk_id}), vectors=True)
        assert {stored.chunk_id for stored in read} == {a.chunk_id, other.chunk_id}
        assert [one.chunk_id for one in store.stored(index, "a", chunk_ids=frozenset({a.chunk_id}))] == [a.chunk_id]
        store.delete(index, "a", only=1, chunk_ids=frozenset({a.chunk_id, other.chunk_id}))
        assert {stored.chunk_id for stored in store.stored(index)} == {b.chunk_id, c.chunk_id, other.chunk_id}

    def test_access_changes_in_place(self, store: VectorStore, index: str) -> None:
        dense = unit(1, 2, 3, 4)
        store.upsert(index, [point("a", dense=dense, fields={"colour": "red"}), point("b")])
        store.update(index, "a", access=AccessTokens(allow=("manage", "user:ann"), deny=(PUBLIC,)))
        assert found(store, index) == ["b"]
        ann = AccessScope("acme", frozenset({"user:ann"}))
        assert found(store, index, Compare("colour", "eq", "red"), ann) == ["a"]
        (stored,) = store.stored(index, "a", vectors=True)
        assert stored.dense is not None
        np.testing.assert_allclose(stored.dense, dense, atol=1e-6)
        store.update(index, "a", access=OPEN)
        assert found(store, index) == ["a", "b"]

    def test_fields_are_replaced_in_place_and_as_a_whole(self, store: VectorStore, index: str) -> None:
        store.upsert(index, [point("a", fields={"colour": "red", "year": 1999}), point("b", fields={"colour": "red"})])
        store.update(index, "a", fields={"size": 4, "day": "2026-01-31"})
        assert found(store, index, Compare("colour", "eq", "red")) == ["b"]
        assert found(store, index, Compare("year", "gt", 0)) == []
        assert found(store, index, Compare("size", "gte", 4)) == ["a"]
        assert found(store, index, Compare("day", "lt", "2026-02-01")) == ["a"]

    def test_an_update_of_nothing_changes_nothing(self, store: VectorStore, index: str) -> None:
        store.upsert(index, [point("a")])
        store.update(index, "a")
        store.update(index, "unknown", access=OPEN, fields={"size": 1})
        assert found(store, index) == ["a"]

    def test_lexical_vectors_are_replaced_and_all_else_stays(self, store: VectorStore, index: str) -> None:
        hidden = AccessTokens(allow=("user:ann",), deny=())
        store.upsert(index, [point("a", fields={"n": 1}), point("b", access=hidden), point("c")])
        ids = {name: point(name).chunk_id for name in "abc"}
        for name in "ab":
            store.set_lexical(index, name, {ids[name]: SparseVector((7, 9), (2.0, 0.5))})
        for term, expected in ((7, ["a"]), (1, ["c"])):
            request = SearchRequest(None, SparseVector((term,), (1.0,)), None, 10)
            assert [document_of(hit) for hit in store.search(index, request, ANYONE)] == expected
        assert found(store, index, Compare("n", "eq", 1)) == ["a"]
        assert found(store, index) == ["a", "c"]
        (kept,) = store.stored(index, "a", vectors=True)
        assert kept.dense is not None and np.allclose(kept.dense, unit(1, 0, 0, 0))

    def test_lexical_vectors_of_points_that_are_not_there_make_none(self, store: VectorStore, index: str) -> None:
        store.upsert(index, [point("a"), point("b")])
        made = SparseVector((7,), (1.0,))
        store.set_lexical(index, "a", {point("a").chunk_id: made, point("b").chunk_id: made, point("x").chunk_id: made})
        store.set_lexical(index, "gone", {point("gone").chunk_id: made})
        assert found(store, index) == ["a", "b"]
        request = SearchRequest(None, SparseVector((7,), (1.0,)), None, 10)
        assert [document_of(hit) for hit in store.search(index, request, ANYONE)] == ["a"]

    def test_a_field_that_is_no_value_is_refused(self, store: VectorStore, index: str) -> None:
        with pytest.raises(InvalidRequest, match="colour"):
            store.upsert(index, [point("a", fields={"colour": object()})])


class TestReadingBack:
    def test_everything_needed_to_reuse_a_vector_comes_back(self, store: VectorStore, index: str) -> None:
        store.upsert(index, [point("a", version=7, dense=unit(1, 2, 3, 4)), point("b")])
        (stored,) = store.stored(index, "a", vectors=True)
        assert (stored.chunk_id, stored.document_id, stored.version) == (str(uuid5(NAMESPACE_OID, "a")), "a", 7)
        assert stored.text_hash == "hash of a"
        assert stored.dense is not None
        assert stored.dense.dtype == np.float32
        np.testing.assert_allclose(stored.dense, unit(1, 2, 3, 4), atol=1e-6)

    def test_vectors_come_only_when_asked_for(self, store: VectorStore, index: str) -> None:
        store.upsert(index, [point("a")])
        assert [stored.dense for stored in store.stored(index)] == [None]

    def test_a_vector_is_stored_at_unit_length(self, store: VectorStore, index: str) -> None:
        store.upsert(index, [point("a", dense=3 * unit(1, 2, 3, 4))])
        (stored,) = store.stored(index, vectors=True)
        assert stored.dense is not None
        assert np.linalg.norm(stored.dense) == pytest.approx(1, abs=1e-6)

    def test_points_are_counted_whatever_their_version(self, store: VectorStore, index: str) -> None:
        assert store.count(index) == 0
        store.upsert(index, [point("a"), point("b")])
        assert store.count(index) == 2
        with pytest.raises(NotFound):
            store.count("idx_unknown")

    def test_what_an_index_takes_on_disk_is_told_where_it_is_known(self, store: VectorStore, index: str) -> None:
        store.upsert(index, [point("a")])
        taken = store.disk_bytes(index)
        assert taken is None or taken > 0
        store.drop(index)
        assert store.disk_bytes(index) in (None, 0)

    def test_pages_are_read_as_they_are_needed(self, store: VectorStore, index: str) -> None:
        store.upsert(index, [point(str(number)) for number in range(600)])
        listing = store.stored(index)
        seen = {next(listing).chunk_id for _ in range(10)}
        assert len(seen | {stored.chunk_id for stored in listing}) == 600


class TestLegs:
    @pytest.fixture
    def library(self, store: VectorStore, index: str) -> str:
        """Three documents about different things: `both` suits either leg, the others one leg each."""
        store.upsert(
            index,
            [
                point("both", dense=unit(9, 1, 0, 0), lexical=SparseVector((1, 2), (1.0, 1.0))),
                point("meaning", dense=unit(1, 0, 0, 0), lexical=SparseVector((8,), (1.0,))),
                point("words", dense=unit(0, 0, 1, 0), lexical=SparseVector((1, 2), (2.0, 2.0))),
                point("neither", dense=unit(-1, 0, 0, 0), lexical=SparseVector((9,), (1.0,))),
            ],
        )
        return index

    QUERY = SparseVector((1, 2), (1.0, 1.0))

    def test_both_legs_rank_and_score(self, store: VectorStore, library: str) -> None:
        request = SearchRequest(unit(1, 0, 0, 0), self.QUERY, None, limit=10)
        hits = by_document(store.search(library, request, ANYONE))
        assert [hits[name].dense_rank for name in ("meaning", "both", "words", "neither")] == [1, 2, 3, 4]
        assert [hits[name].lexical_rank for name in ("words", "both", "meaning", "neither")] == [1, 2, None, None]
        assert hits["meaning"].dense == pytest.approx(1)
        assert hits["neither"].dense == pytest.approx(-1)
        # Two of four documents have each term: idf = ln(1 + (4 - 2 + 0.5) / (2 + 0.5)) = ln 2.
        assert hits["both"].lexical == pytest.approx(2 * np.log(2), rel=1e-5)
        assert hits["words"].lexical == pytest.approx(4 * np.log(2), rel=1e-5)
        assert hits["meaning"].lexical == 0

    def test_a_leg_scores_what_only_the_other_drew(self, store: VectorStore, library: str) -> None:
        full = by_document(store.search(library, SearchRequest(unit(1, 0, 0, 0), self.QUERY, None, 10), ANYONE))
        hits = by_document(store.search(library, SearchRequest(unit(1, 0, 0, 0), self.QUERY, None, 1), ANYONE))
        assert {name: (hit.dense_rank, hit.lexical_rank) for name, hit in hits.items()} == {
            "meaning": (1, None),
            "words": (None, 1),
        }
        for name, hit in hits.items():
            assert hit.dense == pytest.approx(full[name].dense, abs=1e-6)
            assert hit.lexical == pytest.approx(full[name].lexical)

    def test_a_leg_that_was_not_asked_has_no_score(self, store: VectorStore, library: str) -> None:
        for hit in store.search(library, SearchRequest(unit(1, 0, 0, 0), None, None, 10), ANYONE):
            assert (hit.lexical, hit.lexical_rank) == (None, None)
        hits = store.search(library, SearchRequest(None, self.QUERY, None, 10), ANYONE)
        assert [(document_of(hit), hit.dense, hit.dense_rank) for hit in hits] == [
            ("words", None, None),
            ("both", None, None),
        ]

    def test_words_that_nobody_uses_score_nothing(self, store: VectorStore, library: str) -> None:
        for unused in (SparseVector((77,), (1.0,)), SparseVector((), ())):
            assert store.search(library, SearchRequest(None, unused, None, 10), ANYONE) == []
            hits = store.search(library, SearchRequest(unit(1, 0, 0, 0), unused, None, 10), ANYONE)
            assert [(hit.lexical, hit.lexical_rank) for hit in hits] == [(0, None)] * 4

    def test_equal_scores_are_ordered_by_chunk_id(self, store: VectorStore, index: str) -> None:
        store.upsert(index, [point(str(number)) for number in range(20)])
        hits = store.search(index, SearchRequest(unit(1, 0, 0, 0), SparseVector((1,), (1.0,)), None, 20), ANYONE)
        assert [hit.chunk_id for hit in hits] == sorted(hit.chunk_id for hit in hits)
        assert [hit.dense_rank for hit in hits] == [hit.lexical_rank for hit in hits] == list(range(1, 21))

    def test_a_search_for_nothing_is_refused(self, store: VectorStore, index: str) -> None:
        with pytest.raises(InvalidRequest):
            store.search(index, SearchRequest(None, None, None, 10), ANYONE)
        with pytest.raises(InvalidRequest):
            store.search(index, SearchRequest(unit(1, 0, 0, 0), None, None, 0), ANYONE)

    def test_every_leg_sees_only_what_the_scope_may_read(self, store: VectorStore, library: str) -> None:
        store.upsert(
            library,
            [
                point("foreign", team="other"),
                point("hidden", access=AccessTokens(("manage",), ())),
                point("denied", access=AccessTokens((PUBLIC,), ("user:ann",))),
            ],
        )
        ann = AccessScope("acme", frozenset({PUBLIC, "user:ann"}))
        for dense in (unit(1, 0, 0, 0), None):
            for lexical in (SparseVector((1, 8, 9), (1.0, 1.0, 1.0)), None):
                if dense is not None or lexical is not None:
                    hits = by_document(store.search(library, SearchRequest(dense, lexical, None, 10), ann))
                    assert hits.keys() == {"both", "meaning", "words", "neither"}

    @pytest.mark.parametrize("groups", [1, 2, 254, 255, 256, 1_000])
    def test_a_reader_of_however_many_groups_finds_what_one_of_them_may_read(
        self, store: VectorStore, index: str, groups: int
    ) -> None:
        store.upsert(
            index,
            [
                point(name, lexical=SparseVector((7,), (1.0,)), access=AccessTokens((f"group:{group}",), denied))
                for name, group, denied in (
                    ("first", 0, ()),
                    ("last", groups - 1, ()),
                    ("of others", groups, ()),
                    ("denied", 0, ("group:0",)),
                )
            ]
            + [point("open", lexical=SparseVector((7,), (1.0,)))],
        )
        reader = AccessScope("acme", frozenset({PUBLIC, *(f"group:{number}" for number in range(groups))}))
        request = SearchRequest(unit(1, 0, 0, 0), SparseVector((7,), (1.0,)), None, 10)
        drawn = by_document(store.search(index, request, reader))
        assert drawn.keys() == {"first", "last", "open"}
        # All of the three that the reader may read have the term.
        idf = np.log(1 + 0.5 / 3.5)
        assert {round(candidate.lexical or 0.0, 5) for candidate in drawn.values()} == {round(float(idf), 5)}

    def test_a_narrowing_never_moves_a_lexical_score(self, store: VectorStore, library: str) -> None:
        store.update(library, "both", fields={"colour": "red"})
        narrowing = Compare("colour", "eq", "red")
        (hit,) = store.search(library, SearchRequest(None, self.QUERY, narrowing, 10), ANYONE)
        assert hit.lexical == pytest.approx(2 * np.log(2), rel=1e-5)


@pytest.fixture
def as_served() -> Iterator[None]:
    """Threads take turns as often as in the service: with the usual 5 ms, who waits for three busy ones waits long."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(0.0005)
    yield
    sys.setswitchinterval(usual)


class TestThreads:
    @pytest.fixture(autouse=True)
    def _threaded(self, variant: Variant) -> None:
        if not variant.threads:
            pytest.skip("the client's in-process engine is not made for threads")

    def test_readers_never_see_half_a_write(self, store: VectorStore, index: str) -> None:
        done = threading.Event()

        def read() -> int:
            reads = 0
            while not done.is_set():
                hits = store.search(
                    index, SearchRequest(unit(1, 0, 0, 0), SparseVector((1,), (1.0,)), None, 50), ANYONE
                )
                assert all(hit.dense is not None and hit.lexical is not None for hit in hits)
                reads += 1
            return reads

        def write(name: str) -> None:
            for version in range(1, 11):
                chunks = [
                    point(f"{name}/{version}/{n}", document_id=name, version=version, fields={"year": 2000 + n})
                    for n in range(5)
                ]
                store.upsert(index, chunks)
                store.update(index, name, access=OPEN, fields={"year": version})
                store.delete(index, name, older_than=version)

        with ThreadPoolExecutor(6) as pool:
            readers = [pool.submit(read) for _ in range(2)]
            writers = [pool.submit(write, f"writer {number}") for number in range(4)]
            try:
                for writer in writers:
                    writer.result()
            finally:
                done.set()
            assert all(reader.result() > 0 for reader in readers)
        assert sorted((stored.document_id, stored.version) for stored in store.stored(index)) == [
            (f"writer {number}", 10) for number in range(4) for _ in range(5)
        ]

    @pytest.mark.usefixtures("as_served")
    def test_an_index_dropped_under_its_users_is_not_found_by_them(self, store: VectorStore) -> None:
        def use(work: Callable[[], Any]) -> None:
            deadline = time.monotonic() + 60
            with suppress(NotFound):
                while time.monotonic() < deadline:
                    work()
                pytest.fail("the index was never dropped")

        for _ in range(5):
            store.create("doomed", SPEC)
            store.upsert("doomed", [point(str(number)) for number in range(300)])
            works: list[Callable[[], Any]] = [
                lambda: found(store, "doomed"),
                lambda: store.upsert("doomed", [point("more")]),
                lambda: list(store.stored("doomed")),
            ]
            with ThreadPoolExecutor(3) as pool:
                users = [pool.submit(use, work) for work in works]
                store.drop("doomed")
                for user in users:
                    user.result()


class TestAmongChunks:
    """A search among some chunks scores them as a search among all does."""

    BOTH = SearchRequest(unit(1, 0, 0, 0), SparseVector((1,), (1.0,)), None, limit=10)

    @pytest.fixture(autouse=True)
    def _points(self, store: VectorStore, index: str) -> None:
        store.upsert(
            index,
            [
                point("a", dense=unit(1, 0, 0, 0)),
                point("b", dense=unit(1, 1, 0, 0), lexical=SparseVector((1, 2), (3.0, 1.0))),
                point("c", dense=unit(0, 1, 0, 0), lexical=SparseVector((2,), (1.0,))),
                point("secret", access=AccessTokens(allow=("manage",), deny=())),
            ],
        )

    def test_only_these_are_found_with_the_scores_they_have_among_all(self, store: VectorStore, index: str) -> None:
        among_all = by_document(store.search(index, self.BOTH, ANYONE))
        chosen = frozenset({point("b").chunk_id, point("c").chunk_id})
        among_two = by_document(store.search(index, replace(self.BOTH, chunk_ids=chosen), ANYONE))
        assert among_two.keys() == {"b", "c"}
        for name, candidate in among_two.items():
            assert candidate.dense == pytest.approx(among_all[name].dense)
            assert candidate.lexical == pytest.approx(among_all[name].lexical)

    def test_naming_a_chunk_gives_no_right_to_it(self, store: VectorStore, index: str) -> None:
        chosen = frozenset({point("secret").chunk_id, point("a").chunk_id})
        found_there = by_document(store.search(index, replace(self.BOTH, chunk_ids=chosen), ANYONE))
        assert found_there.keys() == {"a"}

    def test_among_none_is_refused_not_taken_for_all(self, store: VectorStore, index: str) -> None:
        with pytest.raises(ValueError, match="empty condition"):
            store.search(index, replace(self.BOTH, chunk_ids=frozenset()), ANYONE)
