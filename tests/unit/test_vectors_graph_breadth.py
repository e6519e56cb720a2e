"""A graph is searched as broadly as its own points need, so that it finds what comparing all would."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import qdrant_edge as qdrant
from numpy.typing import NDArray

from rag_service.vectors import graph_process
from rag_service.vectors.base import IndexSpec
from rag_service.vectors.conditions import EVERYTHING, Every, Match
from rag_service.vectors.edge import EdgeVectorStore
from rag_service.vectors.edge_filter import edge_filter
from tests.unit.test_vectors_graph import point

DIMENSIONS = 128
SIZE = 2_000
NARROW = graph_process._BREADTHS[0]
ALL = Every((EVERYTHING,))


def anywhere() -> NDArray[np.float64]:
    return np.random.default_rng(7).normal(size=(SIZE, DIMENSIONS))


def in_neighbourhoods() -> NDArray[np.float64]:
    centres = np.random.default_rng(8).normal(size=(SIZE // 10, DIMENSIONS))
    return np.repeat(centres, 10, axis=0) + 0.3 * anywhere()


@pytest.fixture
def few_edges(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the index were much larger."""
    monkeypatch.setattr(graph_process, "_M", 4)
    monkeypatch.setattr(graph_process, "_EF_CONSTRUCT", 16)


def graph_of(vectors: NDArray[np.float64], folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(graph_process, "_NICE", 0)
    store = EdgeVectorStore(folder / "vectors")
    store.create("docs", IndexSpec(DIMENSIONS))
    unit = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    store.upsert("docs", [point(number, dense=dense) for number, dense in enumerate(unit)])
    store._shard("docs")._copied(folder / "graph")
    store.close()
    graph_process.make(folder / "graph", DIMENSIONS)
    return folder / "graph"


def recall(graph: Path, breadth: int) -> float:
    """Of the ten nearest of new points, mean."""
    edge = qdrant.EdgeShard.load(str(graph))
    asked = np.random.default_rng(9).normal(size=(50, DIMENSIONS)).astype(np.float32)
    near = [list(map(str, graph_process._hits(edge, vector.tolist(), 10))) for vector in asked]
    found = [graph_process.nearest(edge, breadth, vector, 10, ALL) for vector in asked]
    edge.close()
    return float(np.mean([len({*some} & {*others}) / 10 for some, others in zip(near, found, strict=True)]))


@pytest.mark.usefixtures("few_edges")
def test_points_without_neighbourhoods_are_searched_as_broadly_as_they_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = graph_of(anywhere(), tmp_path, monkeypatch)
    breadth = int((graph / "breadth").read_text())
    assert breadth > NARROW
    assert recall(graph, breadth) >= 0.95
    assert recall(graph, NARROW) < 0.9


@pytest.mark.usefixtures("few_edges")
def test_points_in_neighbourhoods_are_searched_narrowly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = graph_of(in_neighbourhoods(), tmp_path, monkeypatch)
    assert int((graph / "breadth").read_text()) == NARROW


@pytest.mark.parametrize(("dear", "compares_all"), [(0, False), (1_000, True)])
def test_who_may_read_a_tenth_has_more_drawn_where_that_is_sooner_done_than_comparing_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dear: int, compares_all: bool
) -> None:
    monkeypatch.setattr(graph_process, "_DEAR", dear)
    edge = qdrant.EdgeShard.load(str(graph_of(in_neighbourhoods(), tmp_path, monkeypatch)))
    tenth = Every((Match("allow", ("group:3",)),))
    hits, compared = graph_process._hits, []

    def watched(*question: Any, breadth: int | None = None) -> Any:
        compared.append(question[3:] == (edge_filter(tenth),))
        return hits(*question, breadth=breadth)

    monkeypatch.setattr(graph_process, "_hits", watched)
    asked = in_neighbourhoods()[::100].astype(np.float32)
    found = [graph_process.nearest(edge, NARROW, vector, 10, tenth) for vector in asked]
    assert any(compared) is compares_all
    near = [hits(edge, vector.tolist(), 10, edge_filter(tenth)) for vector in asked]
    edge.close()
    same = sum(len({*some} & set(map(str, others))) for some, others in zip(found, near, strict=True))
    assert same >= 0.95 * 10 * len(asked)


def test_a_graph_that_gives_less_than_it_is_asked_for_is_not_asked_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph_process, "_DEAR", 0)
    edge = qdrant.EdgeShard.load(str(graph_of(in_neighbourhoods(), tmp_path, monkeypatch)))
    hits = graph_process._hits

    def a_few(shard: qdrant.EdgeShard, near: list[float], limit: int, *allowed: Any, breadth: int | None = None) -> Any:
        return hits(shard, near, limit if breadth is None else 8, *allowed, breadth=breadth)

    monkeypatch.setattr(graph_process, "_hits", a_few)
    vector = in_neighbourhoods()[0].astype(np.float32)
    assert len(graph_process.nearest(edge, NARROW, vector, 10, ALL)) == 10
    edge.close()
