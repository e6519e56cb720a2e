"""Turns a sentence-transformers model into a compiled graph and compares the two. Run as a process of its own:

    python -m rag_service.embedding.conversion MODEL_FOLDER GRAPH.xml float32|bfloat16|int8

It ends with a message and an exit code other than 0, and leaves no graph, when the vectors differ.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from rag_service.embedding.batching import Tokens, padded
from rag_service.embedding.compiled import computing_options
from rag_service.embedding.processors import NumberFormat
from rag_service.embedding.quantisation import ByteMatrix, quantised

# The converter reports its use to its maker unless this module is missing.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # how Python spells "cannot be imported"

import openvino  # noqa: E402 - after the line above
from openvino import opset13 as op  # noqa: E402

_LEAST_COSINE = 0.999
# Words of the texts that are compared, several of each length, and of the lists of texts that matrices are rounded on.
_LENGTHS = (1, 2, 3, 5, 9, 17, 33, 65, 129, 257, 512)
_OF_EACH = 2
_ROUNDED_ON = (12 * (1,), 12 * (4,), 12 * (16,), 6 * (64,), 3 * (200,))
_UNKNOWN = 0.5  # of the words of a foreign text
_MARKS = "#\u2581\u0120"  # what vocabularies write before or instead of blanks


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


class _Texts:
    """Random texts as tokens, the same every time for one `seed`.

    Words of the model's vocabulary, and such as languages have that it does not know: spelled, or unknown altogether.
    """

    def __init__(self, library: SentenceTransformer, seed: int) -> None:
        self._tokenizer = library.tokenizer
        self._words = sorted(self._tokenizer.get_vocab())
        letters = {word.strip(_MARKS) for word in self._words if len(word.strip(_MARKS)) == 1}
        self._letters = sorted(letters) or self._words
        self._chance = random.Random(seed)  # noqa: S311 - nothing secret
        self._longest = int(library.get_max_seq_length() or 512)
        self.padding = int(self._tokenizer.pad_token_id or 0)

    def known(self, lengths: Sequence[int]) -> list[Tokens]:
        return [self._tokens(self._chance.choices(self._words, k=length)) for length in lengths]

    def foreign(self, lengths: Sequence[int]) -> list[Tokens]:
        return [self._tokens([self._foreign() for _ in range(length)]) for length in lengths]

    def _foreign(self) -> str:
        unknown: str | None = self._tokenizer.unk_token
        if unknown is not None and self._chance.random() < _UNKNOWN:
            return unknown
        return "".join(self._chance.choices(self._letters, k=self._chance.randint(1, 8)))

    def _tokens(self, words: Sequence[str]) -> Tokens:
        text = " ".join(words[: self._longest])
        tokens: list[int] = self._tokenizer(text, truncation=True, max_length=self._longest)["input_ids"]
        return tokens


def convert(folder: Path, graph: Path, number_format: NumberFormat) -> None:
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
    matrices = quantised(model, _runs(model, _Texts(library, 2))) if number_format == "int8" else {}
    with torch.inference_mode():
        converted = openvino.convert_model(
            model, example_input=(example, example), input=[("input_ids", shape), ("attention_mask", shape)]
        )
        _put(matrices, converted)
        openvino.save_model(converted, str(graph), compress_to_fp16=False)
        worst = _worst_cosine(model, graph, number_format, _Texts(library, 1))
    if not worst >= _LEAST_COSINE:  # also where it is no number at all
        raise SystemExit(f"The compiled vectors differ from the model's: cosine {worst:.4f}, least {_LEAST_COSINE}.")


def _runs(model: _Whole, texts: _Texts) -> list[partial[torch.Tensor]]:
    lists = [made(lengths) for lengths in _ROUNDED_ON for made in (texts.known, texts.foreign)]
    batches = [padded(tokens, texts.padding) for tokens in lists]
    return [partial(model, torch.from_numpy(ids), torch.from_numpy(mask)) for ids, mask in batches]


def _put(matrices: Mapping[str, ByteMatrix], graph: openvino.Model) -> None:
    """Have `graph` multiply by `matrices`, given by the names of the model's layers."""
    divided: dict[tuple[str, bytes], openvino.Node] = {}
    left = dict(matrices)
    for product in graph.get_ordered_ops():
        name = product.get_friendly_name().removeprefix("__module.").removesuffix("/aten::linear/MatMul")
        if product.get_type_name() != "MatMul" or name not in left:
            continue
        matrix = left.pop(name)
        inputs, weights = product.input_values()
        product.input(1).replace_source_output(_weights(matrix, weights.get_shape()).output(0))
        factors = 1 / matrix.divisors.numpy()
        if (factors == 1).all():
            continue
        key = inputs.get_node().get_friendly_name(), factors.tobytes()
        if key not in divided:  # layers that read one tensor divide it once
            divided[key] = op.multiply(inputs, op.constant(factors))
        product.input(0).replace_source_output(divided[key].output(0))
    if left:
        raise SystemExit(f"The graph has no matrices of these names: {', '.join(left)}.")


def _weights(matrix: ByteMatrix, shape: openvino.Shape) -> openvino.Node:
    scaled = op.multiply(op.convert(op.constant(matrix.values.numpy()), "f32"), op.constant(matrix.scales.numpy()))
    return op.reshape(scaled, op.constant(np.array(shape)), special_zero=False)


def _worst_cosine(model: _Whole, graph: Path, number_format: NumberFormat, texts: _Texts) -> float:
    """The lowest cosine over random texts of all lengths, alone and beside longer ones."""
    compiled = openvino.Core().compile_model(str(graph), "CPU", computing_options(number_format))
    samples = [made(_LENGTHS) for _ in range(_OF_EACH) for made in (texts.known, texts.foreign)]
    batches = [batch for tokens in samples for batch in [*([one] for one in tokens), tokens, tokens[:5]]]
    return float(np.min([_cosine(model, compiled, batch, texts.padding) for batch in batches]))


def _cosine(model: _Whole, compiled: openvino.CompiledModel, tokens: Sequence[Tokens], padding: int) -> float:
    ids, mask = padded(tokens, padding)
    expected: NDArray[np.float32] = model(torch.from_numpy(ids), torch.from_numpy(mask)).numpy()
    got: NDArray[np.float32] = compiled([ids, mask])[0]
    return float((expected * got).sum(axis=1).min())


if __name__ == "__main__":
    source, target, wanted = sys.argv[1:]
    convert(Path(source), Path(target), {one: one for one in get_args(NumberFormat)}[wanted])
