"""Turns a sentence-transformers model into a compiled graph and compares the two. Run as a process of its own:

    python -m rag_service.embedding.conversion MODEL_FOLDER GRAPH.xml f32|bf16

It ends with a message and an exit code other than 0, and leaves no graph, when the vectors differ.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from rag_service.embedding.batching import padded

# The converter reports its use to its maker unless this module is missing.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # how Python spells "cannot be imported"

import openvino  # noqa: E402 - after the line above

_LEAST_COSINE = 0.999
_LENGTHS = (1, 2, 3, 5, 9, 17, 33, 65, 129, 257, 512)


class _Whole(torch.nn.Module):
    """All layers of the model as one function of token ids and mask."""

    def __init__(self, model: SentenceTransformer) -> None:
        super().__init__()
        self._layers = torch.nn.ModuleList(model)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        features = {"input_ids": input_ids, "attention_mask": attention_mask}
        for layer in self._layers:
            features = layer(features)
        return torch.nn.functional.normalize(features["sentence_embedding"], dim=1)


def convert(folder: Path, graph: Path, precision: str) -> None:
    """Write the graph of the model in `folder`. Raises SystemExit when its vectors are not the model's."""
    library = SentenceTransformer(
        str(folder),
        device="cpu",
        local_files_only=True,
        model_kwargs={"attn_implementation": "eager", "torch_dtype": torch.float32},
    )
    model = _Whole(library).eval()
    example = torch.ones(2, 7, dtype=torch.long)
    shape = openvino.PartialShape([-1, -1])
    with torch.inference_mode():
        converted = openvino.convert_model(
            model, example_input=(example, example), input=[("input_ids", shape), ("attention_mask", shape)]
        )
        openvino.save_model(converted, str(graph), compress_to_fp16=False)
        worst = _worst_cosine(model, graph, precision, library)
    if worst < _LEAST_COSINE:
        raise SystemExit(f"The compiled vectors differ from the model's: cosine {worst:.4f}, least {_LEAST_COSINE}.")


def _worst_cosine(model: _Whole, graph: Path, precision: str, library: SentenceTransformer) -> float:
    """The lowest cosine over random texts of all lengths, alone and beside longer ones."""
    compiled = openvino.Core().compile_model(str(graph), "CPU", {"INFERENCE_PRECISION_HINT": precision})
    tokenizer = library.tokenizer
    padding = int(tokenizer.pad_token_id or 0)
    limit = int(library.get_max_seq_length() or 512)
    chance = random.Random(1)  # noqa: S311 - texts that are the same every time
    words = sorted(tokenizer.get_vocab())
    texts = [" ".join(chance.choices(words, k=min(length, limit))) for length in _LENGTHS]
    tokens = [tokenizer(text, truncation=True, max_length=limit)["input_ids"] for text in texts]
    return min(_cosine(model, compiled, batch, padding) for batch in [*([one] for one in tokens), tokens, tokens[:5]])


def _cosine(model: _Whole, compiled: openvino.CompiledModel, tokens: list[list[int]], padding: int) -> float:
    ids, mask = padded(tokens, padding)
    expected: NDArray[np.float32] = model(torch.from_numpy(ids), torch.from_numpy(mask)).numpy()
    got: NDArray[np.float32] = compiled([ids, mask])[0]
    return float((expected * got).sum(axis=1).min())


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
