"""Exponential moving average of the weights (Polyak & Juditsky 1992; Karras et al. 2024, arXiv:2312.02696)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from hf_genmodels.errors import UserError

_COUNT = "num_updates"
_PREFIX = "average."


class EMA:
    """A second set of weights that follows the first slowly.

    Trainable floating-point parameters are averaged, each tied one once; saved buffers, such as running
    statistics, are copied. Frozen parameters are left out, for they never differ. The decay warms up as
    ``min(decay, (1 + n) / (10 + n))`` after n updates, so that the initial weights are soon forgotten.

    Args:
        model: The model itself, not wrapped for distributed training.
        decay: Weight of the old average at each update, in [0, 1).

    Raises:
        UserError: If the decay is out of range.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        """Start from a copy of the model's weights."""
        if not 0.0 <= decay < 1.0:
            raise UserError(f"--ema_decay is {decay}. It must lie in [0, 1), for example 0.999.")
        self.decay = decay
        self.num_updates = 0
        self._shadow = {name: t.detach().clone() for name, t in _followed(model).items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards the model; call it after each optimiser step.

        Args:
            model: The model given at the start.
        """
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        self.num_updates += 1
        for name, source in self._pairs(model).items():
            if isinstance(source, nn.Parameter):
                self._shadow[name].lerp_(source.detach(), 1 - decay)
            else:
                self._shadow[name].copy_(source)

    @contextmanager
    def applied_to(self, model: nn.Module) -> Iterator[nn.Module]:
        """Give the model the averaged weights inside a ``with`` block, and its own ones back after it.

        The weights are copied in place, so wrappers and tied weights stay intact. They come back to the bit,
        also when the block raises. What a sharded model has gathered of its weights for the last forward
        pass is let go both times, so that the next one sees the change.

        Args:
            model: The model given at the start.

        Yields:
            The same model.
        """
        targets = self._pairs(model)
        own = {name: target.detach().clone() for name, target in targets.items()}
        try:
            _copy(self._shadow, targets)
            yield model
        finally:
            _copy(own, self._pairs(model))

    def state_dict(self) -> dict[str, Tensor]:
        """Return the averages and the number of updates, as tensors only.

        The averages of sharded weights are gathered, so that all processes must call it.
        """
        state = {_PREFIX + name: _whole(t).contiguous() for name, t in self._shadow.items()}
        return {**state, _COUNT: torch.tensor(self.num_updates)}

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return name and shape of each tensor that `load_state_dict` takes."""
        shapes = {_PREFIX + name: tuple(tensor.shape) for name, tensor in self._shadow.items()}
        return {**shapes, _COUNT: ()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state_dict` returned.

        Args:
            state: Averages and number of updates of a model of the same shape.

        Raises:
            UserError: If names or shapes differ from this model's.
        """
        given = {name: tuple(tensor.shape) for name, tensor in state.items()}
        expected = self.shapes()
        if given != expected:
            differing = sorted(set(given.items()) ^ set(expected.items()))[:3]
            raise UserError(
                f"The saved average of the weights belongs to another model; it differs in {differing}."
            )
        self.num_updates = int(state[_COUNT])
        _copy({name: state[_PREFIX + name] for name in self._shadow}, self._shadow)

    def set_to(self, weights: Mapping[str, Tensor]) -> None:
        """Replace the averages.

        Args:
            weights: A tensor for each name that is averaged; others are left out.
        """
        _copy({name: weights[name] for name in self._shadow}, self._shadow)

    def _pairs(self, model: nn.Module) -> dict[str, Tensor]:
        followed = _followed(model)
        if followed.keys() != self._shadow.keys():
            differing = sorted(followed.keys() ^ self._shadow.keys())[:3]
            raise ValueError(
                f"The average follows other parameters than this model has, for example {differing}. "
                "Give the unwrapped model, and freeze parameters before the average is made."
            )
        return followed


def _followed(model: nn.Module) -> dict[str, Tensor]:
    """Return the tensors that an average follows: trainable parameters, then saved buffers."""
    saved = model.state_dict().keys()  # a sharded model lets go here of what it has gathered
    parameters = {
        n: p for n, p in model.named_parameters() if p.requires_grad and p.is_floating_point()
    }
    return {**parameters, **{n: b for n, b in model.named_buffers() if n in saved}}


@torch.no_grad()
def _copy(sources: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> None:
    for name, target in targets.items():
        source = sources[name]
        if isinstance(target, DTensor) and not isinstance(source, DTensor):
            source = distribute_tensor(
                source.to(target.device),
                target.device_mesh,
                target.placements,
                src_data_rank=None,
            )
        target.copy_(source)


def _whole(tensor: Tensor) -> Tensor:
    """Return a sharded tensor as a whole, on the CPU; another one as it is."""
    return tensor.full_tensor().cpu() if isinstance(tensor, DTensor) else tensor


def averaged(ema: EMA | None, model: nn.Module) -> AbstractContextManager[object]:
    """Return a context in which the model has its averaged weights, if there are any."""
    return nullcontext() if ema is None else ema.applied_to(model)
