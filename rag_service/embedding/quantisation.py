"""Weights of a byte for those matrices of a model that stand it, chosen and rounded on texts that show what they lose.

Torch is needed: this is part of making a compiled graph, in a process of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import Linear, Module

from rag_service.embedding.compiled import GROUP

_LARGEST = 127
# What the roundings may take from the cosine of any text that they are estimated on.
_MOST_LOST = 0.0005
_DIRECTIONS = 8
# As in GPTQ: of the mean of the diagonal, and of inputs whose errors are handed on together.
_DAMPING = 0.01
_BLOCK = 128

Run = Callable[[], Tensor]
Layers = Mapping[str, Linear]
See = Callable[[str, Tensor, Tensor], None]


@dataclass(frozen=True, slots=True)
class ByteMatrix:
    """What is multiplied instead of a layer's weights, once each of the inputs is divided by its one of `divisors`.

    `values` int8 of shape (outputs, groups, GROUP); each group is multiplied by its one of `scales` (..., 1).
    """

    values: Tensor
    scales: Tensor
    divisors: Tensor

    def __call__(self, inputs: Tensor) -> Tensor:
        """The layer's outputs without its bias, from inputs rounded as the graph does when they come."""
        groups = _grouped(inputs / self.divisors)
        scales = _scales(groups)
        rounded = (torch.round(groups / scales) * scales).flatten(-2)
        return torch.nn.functional.linear(rounded, (self.values * self.scales).flatten(1))


def quantised(model: Module, runs: Sequence[Run]) -> dict[str, ByteMatrix]:
    """Layers of `model` by name with their matrices in bytes. The model is left as it is.

    Each of `runs` computes unit vectors of some texts with the model, shape (texts, dimensions).
    """
    named = model.named_modules()
    groups = _sharing({name: one for name, one in named if isinstance(one, Linear) and _fits(one)}, runs[0])
    layers = {name: layer for group in groups for name, layer in group.items()}
    if not layers:
        return {}
    with torch.no_grad():
        made = [_matrices(group, *inputs) for group, inputs in zip(groups, _seen(groups, runs), strict=True)]
    matrices = {name: matrix for group in made for name, matrix in group.items()}
    lost = torch.cat([_lost(layers, matrices, run) for run in runs], dim=1)
    sizes = torch.tensor([layer.weight.numel() for layer in layers.values()])
    kept = torch.ones(len(layers), dtype=torch.bool)
    while kept.any() and (total := lost[kept].sum(0)).max() > _MOST_LOST:
        kept[(lost[:, total.argmax()] / sizes).masked_fill(~kept, -1).argmax()] = False
    return {name: matrices[name] for name, keep in zip(layers, kept.tolist(), strict=True) if keep}


@contextmanager
def _watched(layers: Layers, see: See) -> Iterator[None]:
    """Meanwhile `see` is called with name, input and output of every layer that is run."""

    def hook(name: str) -> Callable[[Module, tuple[Tensor, ...], Tensor], None]:
        return lambda _, given, output: see(name, given[0].detach(), output)

    handles = [layer.register_forward_hook(hook(name)) for name, layer in layers.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _sharing(layers: Layers, run: Run) -> list[Layers]:
    """The layers that are run once, those that read one tensor together."""
    readers: dict[tuple[int, ...], tuple[Tensor, list[str]]] = {}

    def see(name: str, given: Tensor, _: Tensor) -> None:
        # Kept, so that no later tensor gets its place in memory.
        readers.setdefault((given.data_ptr(), *given.shape), (given, []))[1].append(name)

    with torch.no_grad(), _watched(layers, see):
        run()
    times = Counter(name for _, names in readers.values() for name in names)
    groups = ({name: layers[name] for name in names if times[name] == 1} for _, names in readers.values())
    return [group for group in groups if group]


def _seen(groups: Sequence[Layers], runs: Sequence[Run]) -> list[tuple[Tensor, Tensor]]:
    """Of what each group reads in all runs: the largest of each place, and the sums of their products."""
    layers = dict(next(iter(group.items())) for group in groups)
    places = {name: layer.in_features for name, layer in layers.items()}
    found = {name: (torch.zeros(width), torch.zeros(width, width)) for name, width in places.items()}

    def see(name: str, given: Tensor, _: Tensor) -> None:
        rows = given.flatten(0, -2)
        largest, products = found[name]
        found[name] = torch.maximum(largest, rows.abs().amax(0)), products.addmm_(rows.T, rows)

    with _watched(layers, see):
        for run in runs:
            run()
    return list(found.values())


def _matrices(layers: Layers, largest: Tensor, products: Tensor) -> dict[str, ByteMatrix]:
    """Of layers with one input."""
    divisors = _divisors([layer.weight for layer in layers.values()], largest)
    divided = products / divisors / divisors[:, None]
    return {name: _rounded(layer.weight * divisors, divided, divisors) for name, layer in layers.items()}


def _divisors(weights: Sequence[Tensor], largest: Tensor) -> Tensor:
    """What makes inputs and weights equally hard to round: places where inputs are always large spoil their group.

    SmoothQuant (Xiao et al. 2022, arXiv:2211.10438, equation 4, alpha 0.5), in powers of two, which lose nothing. Where
    there are fewer outputs than inputs, dividing would cost more than it gains.
    """
    if sum(map(len, weights)) <= len(largest):
        return torch.ones_like(largest)
    heaviest = torch.cat(list(weights)).abs().amax(0)
    halves = (largest / heaviest).clamp(min=torch.finfo(torch.float32).tiny).log2() / 2
    return torch.exp2((halves - halves.median()).round())


def _fits(layer: Linear) -> bool:
    return layer.in_features % GROUP == 0


def _grouped(matrix: Tensor) -> Tensor:
    return matrix.reshape(*matrix.shape[:-1], -1, GROUP)


def _scales(groups: Tensor) -> Tensor:
    return (groups.abs().amax(-1, keepdim=True) / _LARGEST).clamp(min=torch.finfo(torch.float32).tiny)


def _rounded(weights: Tensor, products: Tensor, divisors: Tensor) -> ByteMatrix:
    """Rounds input by input, and lets the inputs to come make up for what that does to the outputs.

    GPTQ (Frantar et al. 2022, arXiv:2210.17323, algorithm 1): `products` are sums of inputs times inputs.
    """
    left, scales = weights.double(), _scales(_grouped(weights)).double()
    damped = products.double() + _DAMPING * products.double().diag().mean() * torch.eye(len(products))
    inverse = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(damped)), upper=True)
    values = torch.zeros_like(left)
    for begin in range(0, left.shape[1], _BLOCK):
        end = min(begin + _BLOCK, left.shape[1])
        errors = torch.zeros_like(left[:, begin:end])
        for place in range(begin, end):
            scale = scales[:, place // GROUP, 0]
            values[:, place] = torch.round(left[:, place] / scale).clamp(-_LARGEST, _LARGEST)
            error = (left[:, place] - values[:, place] * scale) / inverse[place, place]
            left[:, place:end] -= error[:, None] * inverse[place, place:end]
            errors[:, place - begin] = error
        left[:, end:] -= errors @ inverse[begin:end, end:]
    return ByteMatrix(_grouped(values).to(torch.int8), scales.float(), divisors)


def _lost(layers: Layers, matrices: Mapping[str, ByteMatrix], run: Run) -> Tensor:
    """What each matrix alone takes from the cosine of each text, shape (layers, texts): half the square of the way that
    the vector goes, by its slope along random directions. Infinite for a layer that vectors do not depend on.
    """
    outputs: dict[str, Tensor] = {}
    errors: dict[str, Tensor] = {}

    def see(name: str, given: Tensor, output: Tensor) -> None:
        outputs[name] = output
        errors[name] = matrices[name](given) - torch.nn.functional.linear(given, layers[name].weight.detach())

    with _watched(layers, see):
        vectors = run()
    squares = torch.zeros(len(layers), len(vectors))
    chance = torch.Generator().manual_seed(1)
    for _ in range(_DIRECTIONS):
        along = (vectors * torch.randn(vectors.shape, generator=chance)).sum()
        slopes = torch.autograd.grad(along, [outputs[name] for name in layers], retain_graph=True, allow_unused=True)
        for place, (name, slope) in enumerate(zip(layers, slopes, strict=True)):
            squares[place] += torch.inf if slope is None else (slope * errors[name]).flatten(1).sum(1) ** 2
    return squares / _DIRECTIONS / 2
