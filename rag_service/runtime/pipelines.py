"""The model, chunker and analyser of each index version: what its pipeline names, and for the rest the settings'."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from pydantic import ValidationError

from rag_service.chunking.base import Chunker
from rag_service.chunking.structure import StructureChunker
from rag_service.embedding.base import Embedder
from rag_service.embedding.hashing import HashingEmbedder
from rag_service.errors import ConfigError
from rag_service.pipelines import Pipelines
from rag_service.runtime.variants import lexical_of, make_embedder
from rag_service.settings import Settings
from rag_service.types import IndexVersion

# Models besides the one of the settings that are held in memory: the active and the next of one collection, and room.
_HELD = 4
_SETTINGS = {
    "embedder": "embedder",
    "model": "embedding_model",
    "url": "embedding_url",
    "dimensions": "embedding_dimensions",
    "window": "embedding_window",
    "dtype": "embedding_dtype",
    "runtime": "embedding_runtime",
}


class Models:
    """Embedders by what names them; each is made when it is first needed, and the least used let go."""

    def __init__(self, settings: Settings, default: Embedder) -> None:
        self._settings = settings
        self._default = default
        self._made: OrderedDict[str, Embedder] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, spec: Mapping[str, Any] | None) -> Embedder:
        """The embedder that a pipeline's `embedding` names. Raises ConfigError for what no settings could be."""
        if not spec:
            return self._default
        name = json.dumps(spec, sort_keys=True)
        with self._lock:
            if name not in self._made:
                self._made[name] = self._make(spec)
                if len(self._made) > _HELD:
                    self._made.popitem(last=False)
            self._made.move_to_end(name)
            return self._made[name]

    def _make(self, spec: Mapping[str, Any]) -> Embedder:
        wanted = self._with(spec)
        if wanted.embedder == "hashing":
            return HashingEmbedder(int(spec.get("dimensions", 64)), int(spec.get("window", 254)))
        return make_embedder(wanted)

    def _with(self, spec: Mapping[str, Any]) -> Settings:
        unknown = spec.keys() - _SETTINGS.keys()
        if unknown:
            raise ConfigError(f"An embedding has no {sorted(unknown)[0]!r}. It has: {', '.join(_SETTINGS)}.")
        changed = {_SETTINGS[name]: value for name, value in spec.items()}
        try:
            wanted = Settings.model_validate({**self._settings.model_dump(), **changed})
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            raise ConfigError(f"This embedding cannot be: {first['loc'][0]}: {first['msg']}.") from None
        if wanted.embedder == "http" and not wanted.embedding_url:
            raise ConfigError("An http embedding needs a url, the base URL of an embeddings API.")
        if not _same_place(self._settings.embedding_url, wanted.embedding_url):
            # The key is of the API that the settings name, and of no other.
            return wanted.model_copy(update={"embedding_api_key": None})
        return wanted


def _same_place(named: str | None, other: str | None) -> bool:
    """Whether a key that was set for `named` may be shown to `other`; one set without an address is for any."""
    if named is None or other is None:
        return True
    return urlsplit(named)[:2] == urlsplit(other)[:2]


def make_pipelines(settings: Settings, models: Models) -> Pipelines:
    def embedder(index: IndexVersion) -> Embedder:
        return models.of(index.pipeline.get("embedding"))

    return Pipelines(embedder, _chunkers(settings, embedder), lexical_of)


def _chunkers(settings: Settings, embedder: Callable[[IndexVersion], Embedder]) -> Callable[[IndexVersion], Chunker]:
    def chunker(index: IndexVersion) -> Chunker:
        return make_chunker(settings, embedder(index), index.pipeline.get("chunking", {}))

    return chunker


def make_chunker(settings: Settings, embedder: Embedder, spec: Mapping[str, Any]) -> StructureChunker:
    """Of `tokens` per chunk, as many as the model reads at most; `context` "none" leaves out title and headings."""
    tokens = min(int(spec.get("tokens", settings.chunk_tokens)), embedder.window)
    return StructureChunker(embedder.token_spans, tokens, context=spec.get("context", "headings") != "none")
