"""How a Qdrant server keeps one index: what its collection is made of, and by which keys it is filtered."""

from __future__ import annotations

from typing import Any

from qdrant_client import models

from rag_service.vectors.base import Storage
from rag_service.vectors.payload import KEYWORD_KEYS

# One value per document, or one for the whole index: links in the graph along these would never be walked.
_WITHOUT_GRAPH = ("team", "document_id")
# An index belongs to one collection and so to one team: no key splits it further, so none of them `is_tenant`.
INDEXES: dict[str, models.PayloadSchemaParams] = {
    **{
        key: models.KeywordIndexParams(
            type=models.KeywordIndexType.KEYWORD, enable_hnsw=False if key in _WITHOUT_GRAPH else None
        )
        for key in KEYWORD_KEYS
    },
    **{
        key: models.IntegerIndexParams(
            type=models.IntegerIndexType.INTEGER, lookup=False, range=True, enable_hnsw=False
        )
        for key in ("version", "revision")
    },
}

# An approximate search looks at so many neighbours at least; more than any leg draws by default.
_SEARCH_BREADTH = 128
# With quantised vectors twice as many are drawn and scored again by the originals, so scores are exact.
SEARCH = models.SearchParams(
    hnsw_ef=_SEARCH_BREADTH,
    quantization=models.QuantizationSearchParams(rescore=True, oversampling=2.0),
)


def creation(dimensions: int, storage: Storage) -> dict[str, Any]:
    """The arguments of `create_collection`. A write counts when a majority of the replicas has it."""
    return {
        "vectors_config": {
            "dense": models.VectorParams(
                size=dimensions, distance=models.Distance.COSINE, on_disk=storage.on_disk or None
            )
        },
        "sparse_vectors_config": {
            "lexical": models.SparseVectorParams(
                modifier=models.Modifier.IDF,
                index=models.SparseIndexParams(on_disk=True) if storage.on_disk else None,
            )
        },
        "shard_number": storage.shards,
        "replication_factor": storage.replicas,
        "write_consistency_factor": storage.replicas // 2 + 1,
        "on_disk_payload": True,
        "hnsw_config": models.HnswConfigDiff(on_disk=True) if storage.on_disk else None,
        "quantization_config": _quantisation(storage),
    }


def _quantisation(storage: Storage) -> models.QuantizationConfig | None:
    # The small copies stay in memory: they are what makes vectors on disk fast to search.
    match storage.quantisation:
        case "int8":
            int8 = models.ScalarQuantizationConfig(type=models.ScalarType.INT8, quantile=0.99, always_ram=True)
            return models.ScalarQuantization(scalar=int8)
        case "binary":
            return models.BinaryQuantization(binary=models.BinaryQuantizationConfig(always_ram=True))
        case _:
            return None
