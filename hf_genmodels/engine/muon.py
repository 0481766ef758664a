"""Muon: momentum whose update is replaced by the nearest semi-orthogonal matrix.

Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"
(https://kellerjordan.github.io/posts/muon/). The orthogonal factor is found by Newton-Schulz steps with
the coefficients of Amsel et al. 2025, "The Polar Express" (arXiv:2505.16932), which are closer to it
than Jordan's at the same cost. Two things make it cheap on small machines: matrices of equal shape go
through one batched product, and a matrix at least twice as wide as high is iterated through its small
Gram matrix (Zhang et al. 2026, "Gram Newton-Schulz", https://dao-lab.ai/blog/2026/gram-newton-schulz).

Letters: N matrices in a batch, R rows, C columns, R <= C inside the iteration.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Optimal odd quintics for singular values in [1e-3, 1], one triple a step (Amsel et al. 2025).
_POLAR_EXPRESS = (
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
    (3.3184196573706015, -2.488488024314874, 0.51004894012372),
    (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
)
_CONVERGED = (1.875, -1.25, 0.375)
_SAFETY = 1.01  # rounding in bfloat16 may push singular values past 1, where the quintics grow
_GRAM_ASPECT = 2  # columns / rows from which the Gram form is cheaper
_GRAM_RESTARTS = (
    2,
    5,
    7,
    9,
)  # steps at which it is rebuilt: rounding makes negative eigenvalues grow


def working_dtype(device: torch.device | str, precision: str = "auto") -> torch.dtype:
    """Return the dtype in which Newton-Schulz runs.

    Args:
        device: Where the matrices live.
        precision: ``"float32"``, ``"bfloat16"``, or ``"auto"``: bfloat16 on accelerators and on CPUs
            with bfloat16 units, float32 on other CPUs, where bfloat16 is emulated and many times slower.

    Returns:
        ``torch.float32`` or ``torch.bfloat16``.
    """
    if precision != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16}[precision]
    if torch.device(device).type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(False) else torch.float32
    if torch.device(device).type == "cpu":
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        return torch.bfloat16 if native else torch.float32
    return torch.float32


def newton_schulz_coefficients(steps: int) -> list[tuple[float, float, float]]:
    """Return the quintic's coefficients (a, b, c) for each step.

    Fewer than five steps leave out the first ones, which only serve the smallest singular values; more
    than five repeat the classical quintic at the end.

    Args:
        steps: How many steps, at least 1.
    """
    chosen = list(_POLAR_EXPRESS[max(0, 5 - steps) :])
    shrunk = [(a / _SAFETY, b / _SAFETY**3, c / _SAFETY**5) for a, b, c in chosen[:-1]]
    return shrunk + chosen[-1:] + [_CONVERGED] * (steps - 5)


def orthogonalize(matrices: Tensor, steps: int = 5, dtype: torch.dtype | None = None) -> Tensor:
    """Replace each matrix by (nearly) the nearest semi-orthogonal one, U V^T of its SVD U S V^T.

    Args:
        matrices: (N, rows, columns), any floating dtype.
        steps: Newton-Schulz steps. With 5, singular values above a thousandth of the Schatten-4 norm end
            within 13 % of 1.
        dtype: Working precision, by default the input's.

    Returns:
        (N, rows, columns) in the working precision.
    """
    tall = matrices.size(-2) > matrices.size(-1)
    x = matrices.mT if tall else matrices  # (N, R, C)
    x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp(min=1e-30)
    x = x.to(dtype or matrices.dtype)
    gram = x @ x.mT  # (N, R, R)
    # The Schatten-4 norm bounds the spectral norm and is nearer to it than the Frobenius norm.
    squared = torch.linalg.matrix_norm(gram.float(), keepdim=True).clamp(min=1e-30) * _SAFETY**2
    x, gram = x * squared.rsqrt().to(x.dtype), gram * squared.reciprocal().to(x.dtype)
    coefficients = newton_schulz_coefficients(steps)
    wide = x.size(-1) >= _GRAM_ASPECT * x.size(-2)
    x = _gram_steps(x, gram, coefficients) if wide else _plain_steps(x, gram, coefficients)
    return x.mT if tall else x


def _plain_steps(x: Tensor, gram: Tensor, coefficients: list[tuple[float, float, float]]) -> Tensor:
    for step, (a, b, c) in enumerate(coefficients):
        gram = x @ x.mT if step else gram
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


def _gram_steps(x: Tensor, gram: Tensor, coefficients: list[tuple[float, float, float]]) -> Tensor:
    """Take the same steps in the R x R space; the wide matrix is touched only at restarts."""
    product: Tensor | None = None  # of the polynomials since the last restart, (N, R, R)
    last = len(coefficients) - 1
    for step, (a, b, c) in enumerate(coefficients):
        if step in _GRAM_RESTARTS and product is not None:
            x, product = product @ x, None
            gram = x @ x.mT
        factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal(dim1=-2, dim2=-1).add_(a)
        product = factor if product is None else factor @ product
        if step != last and step + 1 not in _GRAM_RESTARTS:
            gram = factor @ (gram @ factor)
    return x if product is None else product @ x


def update_scale(rows: int, columns: int, form: str) -> float:
    """Return the factor by which the learning rate of one matrix is multiplied.

    Args:
        rows: Output features.
        columns: Input features.
        form: ``"spectral"``, sqrt(max(1, rows / columns)) (Jordan et al. 2024), or ``"rms"``,
            0.2 sqrt(max(rows, columns)), which makes the update as large as AdamW's so that AdamW's
            learning rates hold (Liu et al. 2025, arXiv:2502.16982).
    """
    if form == "rms":
        return 0.2 * math.sqrt(max(rows, columns))
    return math.sqrt(max(1.0, rows / columns))
