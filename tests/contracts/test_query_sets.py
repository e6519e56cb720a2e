"""Query sets, questions really asked, and whose they are, the same on every database."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from rag_service.access import AccessTokens
from rag_service.db import Database, collections, documents, queries, query_sets, teams
from rag_service.db.queries import Trace
from rag_service.errors import Conflict, InvalidRequest, NotFound
from rag_service.types import Collection, Expected, LabelledQuery, Person, new_id, utc_now
from tests.contracts.sql_variants import VARIANTS, migrated

TEAM = "red"
FULL = LabelledQuery(
    id="full",
    query="Wie lange dauert Elternzeit? \u2014 \U0001f600",
    expected=(Expected(3, document_id="doc_a"), Expected(1, external_id="hr/leave")),
    as_user=Person("ada", ("staff",)),
    filter={"year": {"$gte": 2024}, "tags": {"$in": ["a", 1, True]}},
    min_score=0.25,
)
NOTHING = LabelledQuery(id="nothing", query="?", expect_nothing=True, as_user=Person())


@pytest.fixture(scope="module", params=VARIANTS)
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    with migrated(request.param, tmp_path_factory.mktemp("sql")) as database:
        with database.transaction() as transaction:
            teams.create(transaction.connection, TEAM, TEAM)
        yield database


@pytest.fixture
def about(database: Database) -> Collection:
    """A collection of its own for each test."""
    with database.transaction() as transaction:
        return collections.create(transaction.connection, TEAM, new_id("c"), description="", language="auto")


@pytest.fixture
def golden(database: Database, about: Collection) -> query_sets.QuerySet:
    with database.transaction() as transaction:
        return query_sets.create(transaction.connection, TEAM, about.id, new_id("golden"))


def stored(database: Database, query_set: query_sets.QuerySet) -> list[LabelledQuery]:
    with database.read() as connection:
        return query_sets.queries_of(connection, query_set)


def test_queries_come_back_as_they_went_in(database: Database, golden: query_sets.QuerySet) -> None:
    with database.transaction() as transaction:
        assert query_sets.add_queries(transaction.connection, golden, [FULL, NOTHING]).query_count == 2
    assert stored(database, golden) == [FULL, NOTHING]


def test_a_refused_addition_leaves_everything_as_it_was(database: Database, golden: query_sets.QuerySet) -> None:
    with database.transaction() as transaction:
        query_sets.add_queries(transaction.connection, golden, [FULL])
    with pytest.raises(InvalidRequest), database.transaction() as transaction:
        query_sets.add_queries(transaction.connection, golden, [NOTHING, NOTHING], replace=True)
    assert stored(database, golden) == [FULL]


def test_a_name_is_taken_once_per_team_and_the_transaction_goes_on(
    database: Database, golden: query_sets.QuerySet
) -> None:
    with database.transaction() as transaction:
        with pytest.raises(Conflict):
            query_sets.create(transaction.connection, TEAM, golden.collection_id, golden.name)
        other = query_sets.create(transaction.connection, TEAM, golden.collection_id, new_id("other"))
        with pytest.raises(Conflict):
            query_sets.change(transaction.connection, other, name=golden.name)
        made = query_sets.change(transaction.connection, other, description="still here")
    with database.read() as connection:
        assert query_sets.get(connection, TEAM, made.id).description == "still here"
        with pytest.raises(NotFound):
            query_sets.get(connection, "blue", golden.id)


def test_writers_at_once_lose_nothing(database: Database, golden: query_sets.QuerySet) -> None:
    errors: list[Exception] = []
    together = threading.Barrier(4)

    def add(writer: int) -> None:
        together.wait()
        for number in range(10):
            query = LabelledQuery(id=f"{writer}-{number}", query="q", expect_nothing=True)
            try:
                with database.transaction() as transaction:
                    query_sets.add_queries(transaction.connection, golden, [query])
            except (InvalidRequest, NotFound) as error:
                errors.append(error)

    writers = [threading.Thread(target=add, args=(writer,)) for writer in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert errors == []
    assert len({query.id for query in stored(database, golden)}) == 40
    with database.read() as connection:
        assert query_sets.get(connection, TEAM, golden.id).query_count == 40


def test_a_set_that_goes_meanwhile_is_not_written_to(database: Database, golden: query_sets.QuerySet) -> None:
    with database.transaction() as transaction:
        query_sets.remove(transaction.connection, golden)
    with pytest.raises(NotFound), database.transaction() as transaction:
        query_sets.add_queries(transaction.connection, golden, [FULL])
    assert stored(database, golden) == []


def test_sets_go_with_their_collection_and_no_other(
    database: Database, about: Collection, golden: query_sets.QuerySet
) -> None:
    with database.transaction() as transaction:
        connection = transaction.connection
        query_sets.add_queries(connection, golden, [FULL])
        elsewhere = collections.create(connection, TEAM, new_id("c"), description="", language="auto")
        kept = query_sets.create(connection, TEAM, elsewhere.id, new_id("kept"))
        query_sets.add_queries(connection, kept, [NOTHING])
        query_sets.remove_of_collection(connection, about.id)
    assert (stored(database, golden), stored(database, kept)) == ([], [NOTHING])
    with database.read() as connection:
        assert query_sets.page(connection, TEAM, collection_id=about.id, limit=10, after=None).data == []


def test_documents_that_are_there_are_told_from_those_that_are_not(database: Database, about: Collection) -> None:
    ids = [f"{about.id}-{n}" for n in range(600)]
    values = {
        "team_id": TEAM,
        "collection_id": about.id,
        "metadata": {},
        "content_hash": "h",
        "blob_key": "k",
        "size_bytes": 1,
    }
    with database.transaction() as transaction:
        for name in (ids[0], ids[1], ids[599]):
            row = {**values, "external_id": name}
            assert documents.add(transaction.connection, name, row, AccessTokens(("public",), ()))
        documents.mark_deleted(transaction.connection, document_id=ids[1])
    with database.read() as connection:
        assert query_sets.present(connection, about.id, ids) == {ids[0], ids[599]}
        assert query_sets.present(connection, "col_other", ids) == set()
        assert query_sets.present(connection, about.id, []) == set()


def trace(about: Collection, query: str | None, **more: Any) -> Trace:
    values: dict[str, Any] = {
        "id": new_id("q"),
        "team_id": TEAM,
        "key_id": None,
        "key_name": "admin",
        "as_user": None,
        "query": query,
        "request": {"collections": [about.name]},
        "plan": {},
        "hits": [],
        "usage": {},
        "degraded": [],
        "at": utc_now(),
    }
    return Trace(**{**values, **more})


def test_questions_are_taken_from_traces_with_the_rights_of_their_askers(database: Database, about: Collection) -> None:
    rights: dict[str, Any] = {"expires_at": None, "team_id": TEAM, "name": "k"}
    with database.transaction() as transaction:
        connection = transaction.connection
        eve = teams.add_key(connection, new_id("s"), scopes=["query"], user="eve", groups=["hr"], **rights)
        app = teams.add_key(connection, new_id("s"), scopes=["query"], user=None, groups=None, **rights)
        boss = teams.add_key(connection, new_id("s"), scopes=["manage"], user=None, groups=None, **rights)
        traces = [
            trace(about, "by eve", key_id=eve.id),
            trace(about, "by an application", key_id=app.id),
            trace(about, "by a manager", key_id=boss.id),
            trace(about, "by a key that is gone", key_id="key_gone"),
            trace(about, "by the admin key", request={"collections": [about.id], "filter": {"a": 1}}),
            trace(about, "for ada", key_id=boss.id, as_user={"user": "ada", "groups": None}),
            trace(about, None),
            trace(about, "of another collection", request={}),
            trace(about, "of another team", team_id="blue"),
            trace(about, "by eve", key_id=eve.id),
        ]
        queries.add_all(connection, traces)
    with database.read() as connection:
        found = queries.recently_asked(connection, TEAM, about, limit=100)
        assert len(queries.recently_asked(connection, TEAM, about, limit=2)) == 2
        people = queries.askers(connection, TEAM)
    assert {one.query: one.as_user for one in found} == {
        "by eve": Person("eve", ("hr",)),
        "by an application": Person(),
        "by a manager": None,
        "by a key that is gone": Person(),
        "by the admin key": None,
        "for ada": Person("ada"),
    }
    assert [one.query for one in found].count("by eve") == 1
    assert {one.query: one.filter for one in found}["by the admin key"] == {"a": 1}
    expected = {eve.id: Person("eve", ("hr",)), app.id: Person(), boss.id: None, "": None}
    assert {name: people[name] for name in expected} == expected
