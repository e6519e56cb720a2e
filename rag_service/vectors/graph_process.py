"""Makes and searches the graph of one index, in a process of its own:

    python -m rag_service.vectors.graph_process make FOLDER LIFELINE DIMENSIONS
    python -m rag_service.vectors.graph_process serve FOLDER LIFELINE CONNECTION

FOLDER holds a copy of a shard; LIFELINE and CONNECTION are open descriptors.
"""

from __future__ import annotations

import contextlib
import os
import sys
from math import ceil
from multiprocessing.connection import Connection
from pathlib import Path
from typing import cast

import qdrant_edge as qdrant

from rag_service.flushing import sync
from rag_service.lifeline import die_with_the_service
from rag_service.types import Vector
from rag_service.vectors.conditions import Every
from rag_service.vectors.edge_filter import edge_filter

# Edges per point, candidates while making: Qdrant's own defaults.
_M, _EF_CONSTRUCT = 16, 100
# On its way through the graph a search reads vectors of a byte per number: 0.9 instead of 1.8 ms for 256 of 100,000
# points. What it comes to is compared by the vectors themselves.
_SMALL = qdrant.ScalarQuantizationConfig(qdrant.ScalarType.Int8, quantile=0.99, memory=qdrant.Memory.Pinned)
_BY_SMALL = qdrant.QuantizationSearchParams(rescore=False)
# So many points are looked at on the way through the graph: as few as find the neighbours of a sample.
_BREADTHS = (128, 512, 1_024, 2_048, 4_096)
_SAMPLE, _NEIGHBOURS, _FOUND = 50, 10, 0.98
_BREADTH = "breadth"
_WIDER = 4  # so many times the wanted points are drawn before those that the reader may not see are left out
_MORE = 1.5  # and if too few remain, so many times what would have been enough
_DEAR = 30  # points that are compared in the time in which one is drawn (0.2 and 6 microseconds)
_WIDEST = 2_000
_NICE = 19


def make(folder: Path, dimensions: int) -> None:
    """Turn the copied shard into one with a graph, and return once it is on the disk."""
    os.nice(_NICE)
    graph = qdrant.HnswIndexConfig(_M, _EF_CONSTRUCT, full_scan_threshold=1, max_indexing_threads=1)
    dense = qdrant.EdgeVectorParams(size=dimensions, distance=qdrant.Distance.Cosine, quantization_config=_SMALL)
    config = qdrant.EdgeConfig(
        vectors={"dense": dense},
        hnsw_config=graph,
        optimizers=qdrant.EdgeOptimizersConfig(default_segment_number=1, indexing_threshold=1),
    )
    edge = qdrant.EdgeShard.load(str(folder), config)
    for key, index in edge.info().payload_schema.items():
        # Otherwise a further graph would be made for every frequent value of every field.
        edge.update(qdrant.UpdateOperation.create_field_index(key, _without_graphs(index.data_type)))
    edge.optimize()
    (folder / _BREADTH).write_text(str(breadth_of(edge)), encoding="ascii")
    edge.flush()
    edge.close()
    for path in sorted(folder.rglob("*")):
        sync(path)
    sync(folder)


def serve(folder: Path, connection: Connection) -> None:
    """Answer (vector, limit, where) with chunk ids until the other end closes; first of all, say that it can begin."""
    edge = qdrant.EdgeShard.load(str(folder))
    kept = folder / _BREADTH
    breadth = int(kept.read_text(encoding="ascii")) if kept.exists() else _BREADTHS[0]  # a former version's has none
    connection.send(None)
    with contextlib.suppress(EOFError):
        while True:
            connection.send(nearest(edge, breadth, *connection.recv()))


def breadth_of(edge: qdrant.EdgeShard) -> int:
    """The least breadth that finds nearly all neighbours of a sample of points; the greatest if none does.

    The vectors of real texts have neighbourhoods, and a narrow search finds its way: 128 is enough. Those that lie
    anywhere have none: at 50,000 points recall@10 was 0.77 with a breadth of 456.
    """
    sample, _ = edge.scroll(qdrant.ScrollRequest(limit=_SAMPLE, with_payload=False, with_vector=["dense"]))
    vectors = [cast(dict[str, list[float]], record.vector)["dense"] for record in sample]
    near = [set(_hits(edge, vector, _NEIGHBOURS)) for vector in vectors]
    wanted = _FOUND * sum(map(len, near))
    for breadth in _BREADTHS[:-1]:
        drawn = [_hits(edge, vector, _NEIGHBOURS * _WIDER, breadth=breadth) for vector in vectors]
        if sum(len(hits & set(found)) for hits, found in zip(near, drawn, strict=True)) >= wanted:
            return breadth
    return _BREADTHS[-1]


def nearest(edge: qdrant.EdgeShard, breadth: int, vector: Vector, limit: int, where: Every) -> list[str]:
    """The ids of the `limit` nearest points that satisfy `where`, drawn at least so broadly.

    A filter inside the graph's search cuts off ways that lead on: recall@10 was 0.87 to 0.96 where the reader may see
    3 of 10 points. So more are drawn without it, and it chooses among them. Where too few remain, as many are drawn as
    their share calls for, or every point that satisfies it is compared, whichever is sooner done.
    """
    asked, allowed, wide = vector.tolist(), edge_filter(where), limit * _WIDER
    while wide <= _WIDEST:
        drawn = _hits(edge, asked, wide, breadth=max(wide, breadth))
        chosen = _hits(edge, asked, limit, _among(drawn, allowed)) if drawn else []
        if len(chosen) == limit:
            return list(map(str, chosen))
        share = len(chosen) / max(1, len(drawn))
        if share * share * edge.info().points_count <= _DEAR * _MORE * limit:
            break
        wide = max(2 * wide, ceil(_MORE * limit / share))
    return list(map(str, _hits(edge, asked, limit, allowed)))


def _among(points: list[qdrant.PointId], allowed: qdrant.Filter) -> qdrant.Filter:
    return qdrant.Filter(must=[qdrant.HasIdCondition(set(points)), allowed])


def _hits(
    edge: qdrant.EdgeShard,
    vector: list[float],
    limit: int,
    allowed: qdrant.Filter | None = None,
    *,
    breadth: int | None = None,
) -> list[qdrant.PointId]:
    """Through the graph at this breadth; without one every point is compared."""
    request = qdrant.QueryRequest(
        limit=limit,
        query=qdrant.Query.Nearest(vector, using="dense"),
        filter=allowed,
        params=_params(breadth),
        with_payload=False,
    )
    return [hit.id for hit in edge.query(request)]


def _params(breadth: int | None) -> qdrant.SearchParams:
    if breadth is None:
        return qdrant.SearchParams(exact=True)
    return qdrant.SearchParams(hnsw_ef=breadth, quantization=_BY_SMALL)


def _without_graphs(kind: qdrant.PayloadSchemaType) -> qdrant.KeywordIndexParams | qdrant.FloatIndexParams:
    if kind == qdrant.PayloadSchemaType.Keyword:
        return qdrant.KeywordIndexParams(enable_hnsw=False)
    return qdrant.FloatIndexParams(enable_hnsw=False)


if __name__ == "__main__":
    task, copied, lifeline, last = sys.argv[1:]
    die_with_the_service(int(lifeline))
    if task == "make":
        make(Path(copied), int(last))
    else:
        serve(Path(copied), Connection(int(last)))
