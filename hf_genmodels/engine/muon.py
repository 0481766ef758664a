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
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim.adamw import adamw

from hf_genmodels.config.optim import OptimConfig
from hf_genmodels.errors import UserError

DEFAULT_MUON_LR = 0.02
BATCH_ELEMENTS = 1 << 21  # of matrices orthogonalised at once; more buys no speed and costs memory
_FUSED_DEVICES = ("cpu", "cuda", "mps", "xpu")

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
    # In bfloat16 the Gram form is not safe: rounding makes tiny eigenvalues negative, and these grow.
    wide = x.size(-1) >= _GRAM_ASPECT * x.size(-2) and x.dtype == torch.float32
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


def can_fuse(parameters: Iterable[Tensor]) -> bool:
    """Return whether AdamW's fused kernel takes these parameters.

    Args:
        parameters: Tensors that will be updated.
    """
    return all(p.is_floating_point() and p.device.type in _FUSED_DEVICES for p in parameters)


class MuonAdamW(torch.optim.Optimizer):
    """Muon for the groups of kind ``muon``, AdamW for those of kind ``adamw``, as one optimiser.

    Sharded parameters (DTensor, as FSDP2 makes them) are gathered one at a time for Newton-Schulz, which
    every rank repeats; the result does not depend on the sharding, but use AdamW where that costs too
    much.

    Args:
        groups: Parameter groups with ``params``, ``name``, ``kind``, ``lr`` and ``weight_decay``.
        config: Momentum, betas, Newton-Schulz steps, scale and precision.
    """

    def __init__(self, groups: Sequence[dict[str, Any]], config: OptimConfig) -> None:
        """Make the groups; state is made at the first step."""
        defaults = {
            "name": "hidden",
            "kind": "muon",
            "lr": DEFAULT_MUON_LR,
            "weight_decay": 0.0,
            "beta1": config.beta1,
            "beta2": config.beta2,
            "eps": config.eps,
            "momentum": config.muon_momentum,
            "steps": config.muon_steps,
            "scale": config.muon_scale,
            "precision": config.muon_precision,
        }
        super().__init__(groups, defaults)
        for group in self.param_groups:
            # load_state_dict looks this key up to decide where AdamW's step counters live
            group["fused"] = group["kind"] == "adamw" and can_fuse(group["params"])
            for parameter in group["params"]:
                if group["kind"] == "muon" and parameter.ndim < 2:
                    raise UserError(
                        "Muon updates matrices; give vectors to a group of kind 'adamw'."
                    )

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Update every parameter that has a gradient.

        Args:
            closure: Recomputes and returns the loss; rarely needed.

        Returns:
            The closure's loss, or None.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if not parameters:
                continue
            if group["kind"] == "muon":
                self._muon_step(group, parameters)
            else:
                self._adamw_step(group, parameters)
        return loss

    def _adamw_step(self, group: dict[str, Any], parameters: list[Tensor]) -> None:
        fused = group["fused"]
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state["step"] = torch.zeros((), device=parameter.device if fused else "cpu")
                state["exp_avg"] = torch.zeros_like(parameter)
                state["exp_avg_sq"] = torch.zeros_like(parameter)
        states = [self.state[parameter] for parameter in parameters]
        adamw(
            parameters,
            [p.grad for p in parameters if p.grad is not None],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=fused,
            amsgrad=False,
            beta1=group["beta1"],
            beta2=group["beta2"],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )

    def _muon_step(self, group: dict[str, Any], parameters: list[Tensor]) -> None:
        momentum = group["momentum"]
        for batch in _batches_of_equal_shape(parameters):
            updates = []
            for parameter in batch:
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                gradient: Any = parameter.grad
                average = state["momentum"].lerp_(gradient, 1 - momentum)
                updates.append(gradient.lerp(average, momentum))  # Nesterov
            for parameter, update in zip(batch, _orthogonal_updates(updates, group), strict=True):
                rows, columns = parameter.shape[0], parameter[0].numel()
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(
                    update, alpha=-group["lr"] * update_scale(rows, columns, group["scale"])
                )


def _batches_of_equal_shape(parameters: list[Tensor]) -> list[list[Tensor]]:
    """Group parameters that can share one batched product; sharded ones stay alone."""
    by_shape: dict[Any, list[Tensor]] = {}
    for index, parameter in enumerate(parameters):
        alone = index if isinstance(parameter, DTensor) else -1
        by_shape.setdefault((parameter.shape, parameter.dtype, parameter.device, alone), []).append(
            parameter
        )
    batches = []
    for same in by_shape.values():
        size = max(1, BATCH_ELEMENTS // same[0].numel())
        batches += [same[start : start + size] for start in range(0, len(same), size)]
    return batches


def _orthogonal_updates(updates: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
    """Orthogonalise matrices of one shape; more than two dimensions count as (first, rest)."""
    first = updates[0]
    dtype = working_dtype(first.device, group["precision"])
    if isinstance(first, DTensor):
        matrix = first.full_tensor().flatten(1)[None]
        whole = orthogonalize(matrix, group["steps"], dtype)[0].to(first.dtype).reshape(first.shape)
        return [distribute_tensor(whole, first.device_mesh, first.placements, src_data_rank=None)]
    stacked = orthogonalize(torch.stack(updates).flatten(2), group["steps"], dtype)
    return list(stacked.to(first.dtype).reshape(len(updates), *first.shape).unbind())
