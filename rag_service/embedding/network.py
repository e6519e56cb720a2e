"""The forward pass of a sentence-transformers model on the CPU. Importing this module imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from transformers.utils import logging as transformers_logging

from rag_service.embedding.batching import Tokens, padded
from rag_service.errors import ConfigError


class TorchNetwork:
    """The model's own layers, called directly: for one short query the library's `encode` costs as much again."""

    def __init__(self, folder: Path, dtype: torch.dtype, padding: int) -> None:
        transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # published without a type
        try:
            model = SentenceTransformer(
                str(folder), device="cpu", local_files_only=True, model_kwargs={"torch_dtype": dtype}
            )
        except (OSError, ValueError, KeyError) as error:
            raise ConfigError(
                f"The model in {folder} cannot be loaded. Point RAG_EMBEDDING_MODEL at a sentence-transformers model."
            ) from error
        self.dimensions = int(model.get_embedding_dimension() or 0)
        model.eval()
        self._encoder, *self._head = list(model)
        for layer in self._head:
            layer.float()
        self._padding = padding

    def forward(self, texts: Sequence[Tokens]) -> NDArray[np.float32]:
        """Unit vectors of n texts given as token ids with special tokens, shape (n, dimensions)."""
        ids, mask = map(torch.from_numpy, padded(texts, self._padding))
        with torch.inference_mode():
            features = self._encoder({"input_ids": ids, "attention_mask": mask})
            # Averaging in bfloat16 would lose what its products kept.
            features["token_embeddings"] = features["token_embeddings"].float()
            for layer in self._head:
                features = layer(features)
            unit = torch.nn.functional.normalize(features["sentence_embedding"].float(), dim=1)
        vectors: NDArray[np.float32] = unit.numpy()
        return vectors
