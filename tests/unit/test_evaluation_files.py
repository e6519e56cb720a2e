"""Query sets as files: whatever a set can hold comes back from every form as it was."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_service.errors import InvalidRequest, RagError
from rag_service.evaluation.beir import read_beir, write_beir
from rag_service.evaluation.files import Format, read_file, write_file
from rag_service.types import Expected, LabelledQuery, Person

COLLECTIONS = Path(__file__).parents[3] / "shared" / "data" / "collections"
HEADING = "query-id\tcorpus-id\tscore\n"

# Whatever UTF-8 and a database can hold: tabs, quotes, line ends and commas among it.
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12)
names = texts.filter(str.strip)
expected = st.one_of(
    st.builds(Expected, grade=st.integers(1, 3), external_id=texts.filter(lambda name: not name.startswith("doc_"))),
    st.builds(Expected, grade=st.integers(1, 3), document_id=texts.map(lambda name: f"doc_{name}")),
)
labels = st.one_of(
    st.fixed_dictionaries(
        {
            "expected": st.lists(
                expected, min_size=1, max_size=4, unique_by=lambda one: one.document_id or one.external_id
            ).map(tuple)
        }
    ),
    st.just({"expect_nothing": True}),
)
people = st.builds(Person, user=st.none() | texts, groups=st.lists(texts, max_size=3).map(tuple))
filters = st.dictionaries(texts, st.one_of(texts, st.integers(), st.booleans(), st.lists(texts)), max_size=3)


@st.composite
def query_sets(draw: st.DrawFn) -> list[LabelledQuery]:
    ids = draw(st.lists(texts, max_size=5, unique=True))
    return [
        LabelledQuery(
            id=name,
            query=draw(names),
            as_user=draw(st.none() | people),
            filter=draw(st.none() | filters),
            min_score=draw(st.none() | st.floats(-1, 2)),
            **draw(labels),
        )
        for name in ids
    ]


@pytest.mark.parametrize("form", ["zip", "tar.gz", "csv"])
@settings(max_examples=40, deadline=None)
@given(queries=query_sets())
def test_what_is_written_can_be_read_again_without_loss(form: Format, queries: list[LabelledQuery]) -> None:
    assert read_file(write_file(queries, form)) == queries


def test_the_same_queries_give_the_same_bytes() -> None:
    queries = [LabelledQuery(id="a", query="q", expect_nothing=True)]
    assert write_file(queries, "zip") == write_file(queries, "zip")


def test_a_folder_is_what_other_tools_of_beir_read() -> None:
    query = LabelledQuery(id="1", query="leave?", expected=(Expected(2, external_id="hr/leave"),))
    assert write_beir([query]) == {
        "queries.jsonl": '{"_id": "1", "text": "leave?", "metadata": {}}\n',
        "qrels/test.tsv": f"{HEADING}1\thr/leave\t2\n",
    }


@pytest.mark.parametrize(
    ("line", "qrels", "said"),
    [
        ("no json", HEADING, "queries.jsonl, line 1"),
        ("[" * 100_000, HEADING, "queries.jsonl, line 1"),
        ('{"_id": 1, "text": "a"}', HEADING, "queries.jsonl, line 1"),
        ('{"_id": "1"}', HEADING, "queries.jsonl, line 1"),
        ('{"_id": "1", "text": "a"}', f"{HEADING}1\ta\n", "qrels/test.tsv"),
        ('{"_id": "1", "text": "a"}', f"{HEADING}1\ta\tmuch\n", "qrels/test.tsv"),
        ('{"_id": "1", "text": "a"}', f"{HEADING}1\ta\tinf\n", "qrels/test.tsv"),
        ('{"_id": "1", "text": " "}', f"{HEADING}1\ta\t1\n", "is empty"),
        ('{"_id": "1", "text": "a", "metadata": {"as_user": "ada"}}', f"{HEADING}1\ta\t1\n", "as_user must be"),
        ('{"_id": "1", "text": "a", "metadata": {"as_user": {"groups": [1]}}}', f"{HEADING}1\ta\t1\n", "as_user"),
        ('{"_id": "1", "text": "a", "metadata": {"min_score": true}}', f"{HEADING}1\ta\t1\n", "min_score must be"),
        ('{"_id": "1", "text": "a", "metadata": {"filter": []}}', f"{HEADING}1\ta\t1\n", "filter must be"),
        ('{"_id": "1", "text": "a", "metadata": {"expect_nothing": true}}', f"{HEADING}1\ta\t1\n", "names documents"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_what_is_wrong_is_named_with_its_place(line: str, qrels: str, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        read_beir({"queries.jsonl": f"{line}\n", "qrels/test.tsv": qrels})


def test_metadata_of_others_is_passed_over() -> None:
    line = '{"_id": "1", "text": "a", "metadata": {"policy": "x", "document_ids": "none of ours"}}'
    (query,) = read_beir({"queries.jsonl": line, "qrels.tsv": f"{HEADING}1\td\t1\n"})
    assert query == LabelledQuery(id="1", query="a", expected=(Expected(1, external_id="d"),))


@pytest.mark.parametrize("form", ["zip", "tar.gz", "csv"])
def test_questions_of_a_table_without_ids_stay_apart_in_every_form(form: Format) -> None:
    table = "id,query,external_id\n,leave?,a\n,soup?,b\n,leave?,c\nq2,bus?,d\n"
    queries = read_file(write_file(read_file(table.encode()), form))
    told = {query.query: [one.external_id for one in query.expected] for query in queries}
    assert told == {"leave?": ["a", "c"], "soup?": ["b"], "bus?": ["d"]}
    assert [query.id for query in queries] == ["q1", "q2-2", "q2"]


@pytest.mark.parametrize("name", ["scifact_train", "cranfield", "xquad_zh"])
def test_published_collections_are_read_whole(name: str) -> None:
    folder = COLLECTIONS / name
    if not folder.is_dir():
        pytest.skip("the judged collections are not beside this project")
    files = {file: (folder / file).read_text(encoding="utf-8") for file in ("queries.jsonl", "qrels.tsv")}
    queries = read_beir(files)
    rows: list[Any] = [line.split("\t") for line in files["qrels.tsv"].splitlines()[1:]]
    relevant = {(query, document) for query, document, grade in rows if float(grade) > 0}
    assert {(query.id, one.external_id) for query in queries for one in query.expected} == relevant
    assert read_file(write_file(queries, "csv")) == read_file(write_file(queries, "tar.gz")) == queries


WHOLE = [
    LabelledQuery(id=str(n), query=f"question {n}", expected=(Expected(1, external_id=f"d{n}"),)) for n in range(20)
]


@pytest.mark.parametrize("form", ["zip", "tar.gz", "csv"])
@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_damaged_file_is_refused_in_words_whatever_is_damaged(form: Format, data: st.DataObject) -> None:
    content = bytearray(write_file(WHOLE, form))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place : place + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=8))
    read_or_refused(bytes(content))


@settings(max_examples=200, deadline=None)
@given(
    start=st.sampled_from([b"", b"PK", b"PK\x03\x04", b"PK\x05\x06", b"\x1f\x8b", b"\x1f\x8b\x08"]), rest=st.binary()
)
def test_any_bytes_are_read_or_refused_in_words(start: bytes, rest: bytes) -> None:
    read_or_refused(start + rest)


@settings(max_examples=200, deadline=None)
@given(tar=st.binary(min_size=1, max_size=1_600))
def test_any_bytes_in_a_gzip_are_read_or_refused_in_words(tar: bytes) -> None:
    read_or_refused(gzip.compress(tar))


def read_or_refused(content: bytes) -> None:
    try:
        queries = read_file(content)
    except RagError as refused:
        assert refused.status in (413, 422)
    else:
        assert all(query.is_labelled for query in queries)
