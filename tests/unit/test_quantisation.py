"""Weights of a byte: what is lost is made up for where it can be, estimated, and kept within bounds."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn import Linear, Module

from rag_service.embedding import quantisation
from rag_service.embedding.compiled import GROUP
from rag_service.embedding.quantisation import ByteMatrix, Run, quantised

WIDE = 2 * GROUP


class Encoder(Module):
    """Two ways from input to vector, of which the one through `loud` decides."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.shared = Linear(WIDE, WIDE)
        self.loud = Linear(WIDE, WIDE)
        self.quiet = Linear(WIDE, WIDE)
        self.twice = Linear(WIDE, WIDE)
        self.unused = Linear(WIDE, WIDE)
        self.narrow = Linear(WIDE + 1, WIDE)

    def forward(self, inputs: Tensor) -> Tensor:
        self.unused(inputs)
        hidden = self.twice(self.twice(inputs)).tanh() + self.narrow(torch.nn.functional.pad(inputs, (0, 1)))
        vectors = 10 * self.loud(self.shared(hidden)) + 0.1 * self.quiet(hidden)
        return torch.nn.functional.normalize(vectors.mean(1), dim=1)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder().eval()


@pytest.fixture(scope="module")
def runs(encoder: Encoder) -> list[Run]:
    return [partial(encoder, inputs(texts=texts, seed=texts)) for texts in (3, 5)]


def inputs(texts: int, seed: int) -> Tensor:
    """Shape (texts, 7, WIDE): places that move together, and one that is always large."""
    torch.manual_seed(seed)
    mixed = torch.randn(texts, 7, 8) @ torch.randn(8, WIDE) + 0.3 * torch.randn(texts, 7, WIDE)
    mixed[..., 5] += 40
    return mixed


def lost(encoder: Encoder, matrices: dict[str, ByteMatrix], run: Run) -> Tensor:
    """What the cosine of each text loses when the layers compute in bytes."""
    layers = dict(encoder.named_modules())
    with torch.no_grad():
        before = run()
        hooks = [
            layers[name].register_forward_hook(lambda layer, given, _, matrix=matrix: matrix(given[0]) + layer.bias)
            for name, matrix in matrices.items()
        ]
        after = run()
    for hook in hooks:
        hook.remove()
    return 1 - (before * after).sum(1)


def roundings(layer: Linear, rows: Tensor, *, damping: float) -> ByteMatrix:
    products = (rows.T @ rows).detach()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quantisation, "_DAMPING", damping)
        return quantisation._matrices({"layer": layer}, rows.abs().amax(0), products)["layer"]


def off(matrix: ByteMatrix, layer: Linear, rows: Tensor) -> float:
    exact = torch.nn.functional.linear(rows, layer.weight)
    by_bytes = rows / matrix.divisors @ (matrix.values * matrix.scales).flatten(1).T
    return float(((by_bytes - exact) ** 2).mean().sqrt() / exact.std())


@torch.no_grad()
def test_what_rounding_does_to_outputs_is_made_up_for_by_the_weights_to_come() -> None:
    torch.manual_seed(3)
    layer, (rows, others) = Linear(WIDE, 2 * WIDE), inputs(100, 1).flatten(0, 1).chunk(2)
    plain = roundings(layer, rows, damping=1e9)  # as if inputs had nothing to do with each other
    assert off(plain, layer, others) < 0.01
    assert off(roundings(layer, rows, damping=0.01), layer, others) < 0.6 * off(plain, layer, others)


@torch.no_grad()
def test_an_input_that_is_always_large_does_not_spoil_its_group(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(3)
    layer, rows = Linear(WIDE, 2 * WIDE), inputs(50, 1).flatten(0, 1)

    def wrong() -> float:
        exact = torch.nn.functional.linear(rows, layer.weight)
        return float((roundings(layer, rows, damping=0.01)(rows) - exact).std() / exact.std())

    divided = wrong()
    monkeypatch.setattr(quantisation, "_divisors", lambda _, largest: torch.ones_like(largest))
    assert divided < 0.6 * wrong()


def test_the_loss_of_all_together_is_near_the_estimate(
    encoder: Encoder, runs: Sequence[Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantisation, "_MOST_LOST", 1.0)
    matrices = quantised(encoder, runs)
    layers = {name: layer for name, layer in encoder.named_modules() if isinstance(layer, Linear) and name in matrices}
    for run in runs:
        estimated = quantisation._lost(layers, matrices, run).sum(0).mean()
        assert 0.4 < float(lost(encoder, matrices, run).mean() / estimated) < 2.5


def test_layers_stay_exact_until_no_text_loses_more_than_it_may(
    encoder: Encoder, runs: Sequence[Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantisation, "_MOST_LOST", 1.0)
    everything = quantised(encoder, runs)
    most = max(float(lost(encoder, everything, run).max()) for run in runs)
    monkeypatch.setattr(quantisation, "_MOST_LOST", most / 10)
    chosen = quantised(encoder, runs)
    assert set(chosen) == {"quiet"}
    assert max(float(lost(encoder, chosen, run).max()) for run in runs) < most / 10
    monkeypatch.setattr(quantisation, "_MOST_LOST", 0.0)
    assert quantised(encoder, runs) == {}


def test_layers_that_run_twice_lead_nowhere_or_do_not_fit_are_left_alone(
    encoder: Encoder, runs: Sequence[Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantisation, "_MOST_LOST", 1.0)
    before = {name: parameter.clone() for name, parameter in encoder.named_parameters()}
    assert set(quantised(encoder, runs)) == {"shared", "loud", "quiet"}
    assert all(torch.equal(before[name], parameter) for name, parameter in encoder.named_parameters())


def test_a_model_too_small_to_round_stays_as_it_is() -> None:
    small = Linear(GROUP // 2, GROUP // 2)
    assert quantised(small, [partial(small, torch.ones(2, GROUP // 2))]) == {}


def test_layers_that_read_one_tensor_divide_it_alike(
    encoder: Encoder, runs: Sequence[Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantisation, "_MOST_LOST", 1.0)
    matrices = quantised(encoder, runs)
    assert torch.equal(matrices["shared"].divisors, matrices["quiet"].divisors)
    assert (matrices["shared"].divisors != 1).any()
    # As many outputs as inputs: dividing those would cost as much as it gains.
    assert (matrices["loud"].divisors == 1).all()
