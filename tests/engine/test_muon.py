"""The orthogonalisation inside Muon against singular value decompositions."""

import pytest
import torch

from hf_genmodels.engine.muon import (
    newton_schulz_coefficients,
    orthogonalize,
    update_scale,
    working_dtype,
)

SHAPES = [(32, 32), (64, 32), (32, 64), (24, 96), (96, 24), (33, 50)]


def with_singular_values(rows, columns, values, count=3):
    generator = torch.Generator().manual_seed(0)
    left, _ = torch.linalg.qr(torch.randn(count, rows, len(values), generator=generator))
    right, _ = torch.linalg.qr(torch.randn(count, columns, len(values), generator=generator))
    return left @ torch.diag(torch.as_tensor(values)) @ right.mT


@pytest.mark.parametrize("shape", SHAPES)
def test_many_steps_in_double_precision_give_the_polar_factor_of_the_svd(shape):
    matrices = with_singular_values(*shape, torch.logspace(0, -2, min(shape)).tolist()).double()
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    torch.testing.assert_close(orthogonalize(matrices, steps=10), left @ right, atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_five_steps_bring_singular_values_near_one(shape, dtype):
    matrices = with_singular_values(*shape, torch.logspace(0, -2, min(shape)).tolist())
    values = torch.linalg.svdvals(orthogonalize(matrices, steps=5, dtype=dtype).float())
    assert values.min() > 0.85
    assert values.max() < 1.15


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("steps", [3, 4, 5, 6, 10])
def test_rank_deficient_matrices_stay_bounded_in_bfloat16(shape, steps):
    matrices = with_singular_values(*shape, [1.0, 0.1, 0.01])
    values = torch.linalg.svdvals(orthogonalize(matrices, steps, torch.bfloat16).float())
    assert values.isfinite().all()
    assert values.max() < 1.25


@pytest.mark.parametrize("shape", SHAPES)
def test_the_scale_of_the_input_does_not_matter(shape):
    matrices = torch.randn(2, *shape, generator=torch.Generator().manual_seed(1))
    expected = orthogonalize(matrices)
    for scale in (1e-12, 1e12):
        torch.testing.assert_close(orthogonalize(matrices * scale), expected, atol=1e-4, rtol=1e-3)


def test_a_matrix_does_not_depend_on_the_others_in_its_batch():
    matrices = torch.randn(4, 16, 64, generator=torch.Generator().manual_seed(2))
    together = orthogonalize(matrices)
    alone = torch.cat([orthogonalize(matrix[None]) for matrix in matrices])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_zero_stays_zero(dtype):
    assert (orthogonalize(torch.zeros(1, 8, 24), dtype=dtype) == 0).all()


@pytest.mark.parametrize("steps", range(3, 11))
def test_the_composed_polynomial_maps_the_promised_interval_near_one(steps):
    values = torch.logspace(-3 + max(0, 5 - steps) * 0.95, 0, 4001, dtype=torch.float64)
    for a, b, c in newton_schulz_coefficients(steps):
        values = a * values + b * values**3 + c * values**5
    assert values.min() > 0.85
    assert values.max() < 1.15
    assert len(newton_schulz_coefficients(steps)) == steps


def test_update_scales_follow_the_two_papers():
    assert update_scale(1024, 256, "spectral") == 2.0
    assert update_scale(256, 1024, "spectral") == 1.0
    assert update_scale(256, 1024, "rms") == pytest.approx(0.2 * 32)


def test_precision_can_be_forced_and_auto_is_one_of_the_two():
    assert working_dtype("cpu", "float32") is torch.float32
    assert working_dtype("cpu", "bfloat16") is torch.bfloat16
    assert working_dtype("cpu") in (torch.float32, torch.bfloat16)
