"""The fast linear layer is `torch.nn.Linear` in everything but speed."""

from __future__ import annotations

import copy
import time

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hf_genmodels.models.linear import Linear, linear

SHAPES = [(1, 7, 5), (3, 1, 1), (200, 64, 65), (500, 16, 128)]


def operands(rows: int, width: int, outputs: int) -> list[torch.Tensor]:
    shapes = ((2, rows, width), (outputs, width), (outputs,))
    return [torch.randn(shape, requires_grad=True) for shape in shapes]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("with_bias", [True, False])
def test_output_and_gradients_are_those_of_torch(
    shape: tuple[int, int, int], with_bias: bool
) -> None:
    inputs = operands(*shape)[: 3 if with_bias else 2]
    expected, output = F.linear(*inputs), linear(*inputs)
    torch.testing.assert_close(output, expected, atol=1e-5, rtol=1e-5)
    direction = torch.randn_like(output)
    for ours, theirs in zip(
        torch.autograd.grad(output, inputs, direction),
        torch.autograd.grad(expected, inputs, direction),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("shape", [(4, 8, 6), (200, 64, 65)])
def test_gradients_can_be_differentiated_again(shape: tuple[int, int, int]) -> None:
    inputs = operands(*shape)

    def second(function) -> tuple[torch.Tensor, ...]:
        grads = torch.autograd.grad(function(*inputs).tanh().sum(), inputs[:2], create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in grads), inputs)

    for ours, theirs in zip(second(linear), second(F.linear), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("frozen", [0, 1, 2])
def test_frozen_operands_get_no_gradient(frozen: int) -> None:
    inputs = operands(200, 64, 65)
    inputs[frozen].requires_grad_(False)
    linear(*inputs).sum().backward()
    assert [operand.grad is None for operand in inputs] == [i == frozen for i in range(3)]


def test_no_graph_is_kept_without_grad() -> None:
    with torch.no_grad():
        assert linear(*operands(200, 64, 65)).grad_fn is None


def test_a_changed_weight_shows_at_once() -> None:
    layer, states = Linear(8, 8, bias=False), torch.randn(2, 8)
    with torch.inference_mode():
        layer(states)
        layer.weight.data.copy_(torch.eye(8))
        torch.testing.assert_close(layer(states), states)


def test_it_takes_empty_batches_other_types_and_strided_weights() -> None:
    assert linear(torch.zeros(0, 8), torch.zeros(3, 8)).shape == (0, 3)
    assert (
        linear(torch.zeros(2, 8).bfloat16(), torch.zeros(3, 8).bfloat16()).dtype == torch.bfloat16
    )
    assert linear(torch.zeros(2, 8).double(), torch.zeros(3, 8).double()).dtype == torch.float64
    states, weight = torch.randn(5, 8)[:, ::2], torch.randn(4, 3).T
    torch.testing.assert_close(linear(states, weight), states @ weight.T)


def test_gaps_between_the_rows_of_a_weight_do_not_make_it_slow() -> None:
    states = torch.randn(96, 256)
    wide = torch.randn(256, 512)

    def seconds(weight: torch.Tensor) -> float:
        times = []
        for _ in range(4):
            start = time.process_time()
            linear(states, weight)
            times.append(time.process_time() - start)
        return min(times)

    for strided in (wide[:, :256], wide[:, :256].T, wide[:, ::2]):
        assert seconds(strided) < 0.005 + 20 * seconds(strided.contiguous())


def test_it_obeys_autocast() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert Linear(8, 8)(torch.randn(2, 8)).dtype == torch.bfloat16


def test_it_compiles_without_graph_breaks_and_exports() -> None:
    layer, states = Linear(8, 6), torch.randn(2, 8)
    compiled = torch.compile(layer, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(states), layer(states))
    exported = torch.export.export(layer, (states,)).module()
    torch.testing.assert_close(exported(states), layer(states))


def test_it_is_a_linear_layer_to_everyone_else() -> None:
    layer = Linear(8, 6)
    plain = nn.Linear(8, 6)
    plain.load_state_dict(layer.state_dict())
    states = torch.randn(2, 8)
    torch.testing.assert_close(copy.deepcopy(layer)(states), plain(states))
    assert isinstance(layer, nn.Linear)


def test_operands_that_do_not_fit_raise() -> None:
    with pytest.raises(RuntimeError):
        linear(torch.zeros(2, 7), torch.zeros(3, 8))
