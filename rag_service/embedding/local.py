"""Embeddings from a sentence-transformers model in this process, on the CPU, without a network."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from rag_service.embedding.base import TextKind
from rag_service.embedding.batching import Batcher, Tokens
from rag_service.embedding.model_folder import ModelFolder, find_model
from rag_service.types import EmbedderIdentity

if TYPE_CHECKING:
    from rag_service.embedding.network import Network

_SURROGATE = re.compile("[\ud800-\udfff]")
_CPU_FLAGS = Path("/proc/cpuinfo")
# Tokens of one slice, padding included: 60 to 100 ms of two cores for MiniLM, the longest that a query has to wait.
_SLICE_TOKENS = {"bfloat16": 1536, "float32": 512}


class LocalEmbedder:
    """A model by folder, by package or by name. Only `embed` and `warm_up` load it; tokens need its tokenizer alone.

    `dtype` auto takes bfloat16 where the CPU computes in it (3.6 times the speed, cosine to float32 above 0.999),
    and float32 elsewhere, where bfloat16 would be slower. `threads` is set for all of torch; None leaves it.
    Everything but the constructor raises ConfigError when the model cannot be had or read.
    """

    def __init__(
        self, model: str, dtype: Literal["auto", "float32", "bfloat16"] = "auto", threads: int | None = None
    ) -> None:
        self._name = model
        self._dtype = dtype
        self._threads = threads
        self._loading = threading.RLock()

    @property
    def identity(self) -> EmbedderIdentity:
        with self._loading:
            return self._identity

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

    def embed(self, texts: Sequence[str], kind: TextKind) -> NDArray[np.float32]:
        with self._loading:
            folder, batcher, tokenizer = self._folder, self._batcher, self._cutting_tokenizer
        if not texts:
            return np.empty((0, self.identity.dimensions), dtype=np.float32)
        prompt = folder.prompts[kind]
        encodings = tokenizer.encode_batch_fast([prompt + _encodable(text) for text in texts])
        return np.stack(batcher.embed([encoding.ids for encoding in encodings], kind))

    def warm_up(self) -> None:
        """Load the model and run it once in either shape, so that the first caller does not wait for it."""
        self.embed(["warm"], "query")
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
    def _cutting_tokenizer(self) -> Tokenizer:
        tokenizer = self._folder.tokenizer()
        tokenizer.enable_truncation(self._folder.max_tokens)
        return tokenizer

    @cached_property
    def _batcher(self) -> Batcher:
        return Batcher(self._forward, _SLICE_TOKENS[self._chosen_dtype])

    def _forward(self, slices: Sequence[Tokens]) -> NDArray[np.float32]:
        # Torch keeps a team of threads and buffers for every thread that calls it: one that computes for all keeps
        # memory flat however many threads serve.
        return self._computing.submit(self._network.forward, slices).result()

    @cached_property
    def _computing(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(max_workers=1, thread_name_prefix="embedder")

    @cached_property
    def _network(self) -> Network:
        import torch  # takes seconds, and cutting texts or reading settings needs none of it

        from rag_service.embedding.network import Network

        if self._threads is not None:
            torch.set_num_threads(self._threads)
        return Network(self._folder.path, torch.bfloat16 if self._chosen_dtype == "bfloat16" else torch.float32)

    @cached_property
    def _chosen_dtype(self) -> Literal["float32", "bfloat16"]:
        if self._dtype != "auto":
            return self._dtype
        return "bfloat16" if has_fast_bfloat16(_CPU_FLAGS) else "float32"


def has_fast_bfloat16(cpu_flags: Path) -> bool:
    """True when the CPU multiplies bfloat16 in hardware, by the flags that Linux lists; False on other systems."""
    if not cpu_flags.is_file():
        return False
    flags = cpu_flags.read_text(encoding="utf-8", errors="replace").split()
    return "avx512_bf16" in flags or "amx_bf16" in flags


def _encodable(text: str) -> str:
    """Lone surrogates, which no tokenizer accepts, replaced one for one, so that offsets stay true."""
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)
