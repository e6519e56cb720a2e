"""Embeddings from a sentence-transformers model on the CPU, without a network."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from rag_service.embedding.base import TextKind
from rag_service.embedding.batching import Batcher, Tokens
from rag_service.embedding.compiled import STEP, STEP_OF_USUAL, USUAL, CompiledNetwork, compiled_folder
from rag_service.embedding.model_folder import ModelFolder, find_model
from rag_service.embedding.processors import NumberFormat, available_cores, granted_cores, usual_formats, yielding
from rag_service.embedding.scripts import known_scripts, share_known
from rag_service.errors import ConfigError
from rag_service.types import EmbedderIdentity

_SURROGATE = re.compile("[\ud800-\udfff]")
_BYTE_BLANK = "\u0120"  # how byte-level vocabularies write a blank
_SLICES = 8  # documents' slices at a time, at most: what is written by as many threads keeps no more of them busy
# Tokens of one slice, padding included: what a query may have to wait for. The graph loses a tenth of its rate with
# slices of four long texts; torch, whose step costs 10 ms whatever it holds, needs more in one.
_SLICE_TOKENS: Mapping[str, Mapping[NumberFormat, int]] = {
    "openvino": {"int8": 1024, "bfloat16": 1024, "float32": 512},
    "torch": {"bfloat16": 1536, "float32": 512},
}

Runtime: TypeAlias = Literal["openvino", "torch"]


class Network(Protocol):
    """The layers of a model as one function."""

    dimensions: int

    def forward(self, texts: Sequence[Tokens]) -> NDArray[np.float32]:
        """Unit vectors of n texts given as token ids with special tokens, shape (n, dimensions)."""
        ...


class LocalEmbedder:
    """A model by folder, by package or by name. Only `embed`, `computation` and `warm_up` load it; tokens need
    its tokenizer alone.

    `dtype` auto takes the fastest that the CPU computes in and that keeps the model's vectors (cosine to float32 above
    0.999): int8, then bfloat16, and float32 elsewhere. Only a compiled model computes in int8; where there is none,
    the next is taken. `threads` None leaves their number to the runtime, within what a container is granted.
    `runtime` auto compiles the model once into `cache`, and takes torch where there is no cache or that fails.
    Everything but the constructor raises ConfigError when the model cannot be had or read.
    """

    def __init__(
        self,
        model: str,
        dtype: Literal["auto", NumberFormat] = "auto",
        runtime: Literal["auto", "openvino", "torch"] = "auto",
        *,
        cache: Path | None = None,
        threads: int | None = None,
    ) -> None:
        self._name = model
        self._dtype = dtype
        self._wanted = runtime
        self._cache = cache
        self._threads = threads
        self._loading = threading.RLock()

    @property
    def identity(self) -> EmbedderIdentity:
        with self._loading:
            return self._identity

    @property
    def computation(self) -> str:
        with self._loading:
            return f"{self._runtime} {self._number_format}"

    @property
    def window(self) -> int:
        with self._loading:
            return self._window

    def token_spans(self, text: str) -> Sequence[tuple[int, int]]:
        with self._loading:
            tokenizer = self._tokenizer
        # Of the two ways to encode, only the one for batches lets other threads run meanwhile.
        spans: list[tuple[int, int]] = tokenizer.encode_batch([_encodable(text)], add_special_tokens=False)[0].offsets
        return spans

    def legible(self, text: str) -> float:
        with self._loading:
            scripts = self._scripts
        return share_known(text, scripts)

    def embed(self, texts: Sequence[str], kind: TextKind) -> NDArray[np.float32]:
        with self._loading:
            folder, batcher, tokenizer = self._folder, self._batchers[kind], self._cutting_tokenizer
        if not texts:
            return np.empty((0, self.identity.dimensions), dtype=np.float32)
        prompt = folder.prompts[kind]
        encodings = tokenizer.encode_batch_fast([prompt + _encodable(text) for text in texts])
        return np.stack(batcher.embed([encoding.ids for encoding in encodings], kind))

    def warm_up(self) -> None:
        """Load the model and run it once in every usual shape, so that no caller waits for the code of one."""
        for tokens in range(STEP_OF_USUAL, USUAL + 1, STEP_OF_USUAL):
            self.embed(["warm " * (tokens - 2)], "query")  # and two special tokens
        self.legible("warm")
        self.embed(["warm up " * self.window], "document")

    @cached_property
    def _folder(self) -> ModelFolder:
        # Its thread pool gains nothing beside torch's own, and complains in every child process that is forked.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        return ModelFolder(find_model(self._name))

    @cached_property
    def _identity(self) -> EmbedderIdentity:
        digest = self._folder.digest
        return EmbedderIdentity(self._name, digest, self._folder.dimensions or self._network.dimensions)

    @cached_property
    def _window(self) -> int:
        special: int = self._tokenizer.num_special_tokens_to_add(False)
        prompts = [len(self.token_spans(prompt)) for prompt in self._folder.prompts.values()]
        return self._folder.max_tokens - special - max(prompts)

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        return self._folder.tokenizer()

    @cached_property
    def _scripts(self) -> frozenset[str]:
        entries: dict[str, int] = self._tokenizer.get_vocab()
        if any(entry.startswith(_BYTE_BLANK) for entry in entries):
            # This vocabulary is written in bytes, each shown as some other character.
            return known_scripts(self._tokenizer.decode_batch([[number] for number in entries.values()]))
        return known_scripts(entries)

    @cached_property
    def _cutting_tokenizer(self) -> Tokenizer:
        tokenizer = self._folder.tokenizer()
        tokenizer.enable_truncation(self._folder.max_tokens)
        return tokenizer

    @cached_property
    def _batchers(self) -> Mapping[TextKind, Batcher]:
        forward, slice_tokens = self._network.forward, _SLICE_TOKENS[self._runtime][self._number_format]
        if self._graph is None:
            # Torch keeps a team of threads and buffers for every thread that calls it: one that computes for all keeps
            # memory flat however many threads serve.
            alone = Batcher(forward, slice_tokens, executor=ThreadPoolExecutor(1, "embedder"))
            return {"query": alone, "document": alone}
        slices = min(self._computing or available_cores(), _SLICES)
        lanes = slices + 1  # one more waits, so that none of the model's threads waits for us
        graph = self._graph
        # Beside documents whose threads let it go first, a question is computed in half the time.
        beside = self._network if slices == 1 else yielding(lambda: self._compiled(graph, slices))
        return {
            "query": Batcher(forward, slice_tokens),
            "document": Batcher(beside.forward, slice_tokens, lanes, ThreadPoolExecutor(lanes, "embedder"), step=STEP),
        }

    @cached_property
    def _network(self) -> Network:
        if self._graph is not None:
            return self._compiled(self._graph)
        import torch  # takes seconds, and cutting texts or reading settings needs none of it

        from rag_service.embedding.network import TorchNetwork

        if self._computing is not None:
            torch.set_num_threads(self._computing)
        dtype = torch.bfloat16 if self._number_format == "bfloat16" else torch.float32
        return TorchNetwork(self._folder.path, dtype, self._folder.padding)

    def _compiled(self, graph: Path, slices: int = 1) -> CompiledNetwork:
        padding, max_tokens = self._folder.padding, self._folder.max_tokens
        return CompiledNetwork(graph, self._number_format, padding, max_tokens, threads=self._computing, slices=slices)

    @property
    def _computing(self) -> int | None:
        """How many threads may compute, None: as many as the runtime thinks right."""
        return self._threads or granted_cores()

    @property
    def _runtime(self) -> Runtime:
        return "torch" if self._graph is None else "openvino"

    @property
    def _number_format(self) -> NumberFormat:
        return self._computed[0]

    @property
    def _graph(self) -> Path | None:
        """The compiled model, or None to compute in torch."""
        return self._computed[1]

    @cached_property
    def _computed(self) -> tuple[NumberFormat, Path | None]:
        formats = self._formats
        if self._wanted == "torch" or (self._wanted == "auto" and self._cache is None):
            return formats[-1], None
        if self._cache is None:
            raise ConfigError("The openvino runtime needs a folder to keep compiled models in.")
        for dtype in formats:
            graph = compiled_folder(self._folder.path, self._folder.digest, dtype, self._cache)
            if graph is not None:
                return dtype, graph
        if self._wanted == "openvino":
            raise ConfigError(
                f"The embedding model {self._name!r} cannot be compiled; {self._cache} says why. "
                "Set RAG_EMBEDDING_RUNTIME to auto or torch."
            )
        return formats[-1], None

    @property
    def _formats(self) -> tuple[NumberFormat, ...]:
        """What to compute in, the first that can be had; torch takes the last."""
        if self._dtype == "auto":
            return usual_formats()
        return ("int8", usual_formats()[-1]) if self._dtype == "int8" else (self._dtype,)


def _encodable(text: str) -> str:
    """Lone surrogates, which no tokenizer accepts, replaced one for one, so that offsets stay true."""
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)
