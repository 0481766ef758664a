"""Int8 inference on the CPU.

Decoding reads every weight once per token, so a quarter of the bytes is up to four times the speed,
and the CPU's int8 instructions help large batches further. Weights are rounded to 8 bits with one
scale per output channel once; activations with one scale per call as they come (dynamic
quantisation, Jacob et al. 2017, arXiv:1712.05877).
"""

import warnings
from typing import Any

import torch
from torch import nn

from .attention import Attention

# Of the 256 levels of a byte, activations use 128: on CPUs without VNNI, the sum of two products of
# full bytes would overflow the 16 bits that it is given.
ACTIVATION_LEVELS = 128
TO_UNDO = "Load the checkpoint again to get the weights back."


class Int8Product:
    """A product with a fixed int8 weight; copies of a model share it."""

    def __deepcopy__(self, memo: dict[int, Any]) -> "Int8Product":
        return self


class FbgemmProduct(Int8Product):
    """Quantises activations and multiplies in one call: the fastest for the few rows of decoding.

    Args:
        weight: (N, D), fp32.
        bias: (N,) in fp32, or `None`.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None):
        zeros = torch.zeros(len(weight), dtype=torch.long)
        previous = torch.backends.quantized.engine
        torch.backends.quantized.engine = "fbgemm"
        try:
            with warnings.catch_warnings():  # is_available() expects what they announce
                warnings.filterwarnings("ignore", "torch.quantize_per_tensor.* deprecated")
                quantized = torch.quantize_per_channel(
                    weight, row_scales(weight).double(), zeros, 0, torch.qint8
                )
            self.packed = torch.ops.quantized.linear_prepack(quantized, bias)
        finally:
            torch.backends.quantized.engine = previous
        # The operator itself: its wrapper's search for fake tensors costs a tenth of a small model.
        self.multiply = torch.ops.quantized.linear_dynamic._op

    @staticmethod
    def is_available() -> bool:
        """Whether this torch has the library and the quantised types that it takes."""
        return (
            "fbgemm" in torch.backends.quantized.supported_engines
            and hasattr(torch, "quantize_per_channel")
            and hasattr(torch.ops.quantized, "linear_dynamic")
        )

    def __call__(self, input: torch.Tensor) -> torch.Tensor:
        """Return the product (..., N) with an input (..., D)."""
        product: torch.Tensor = self.multiply(input, self.packed, ACTIVATION_LEVELS < 256)
        return product


class OneDNNProduct(Int8Product):
    """The same on plain integer tensors, where torch comes without FBGEMM.

    Args:
        weight: (N, D), fp32.
        bias: (N,) in fp32, or `None`.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None):
        self.scales = row_scales(weight)
        self.zeros = torch.zeros(len(weight), dtype=torch.int32)
        self.bias = bias
        levels = (weight / self.scales[:, None]).round_().to(torch.int8)
        self.packed = torch.ops.onednn.qlinear_prepack(levels, None)

    @staticmethod
    def is_available() -> bool:
        """Whether this torch has the library and runs on a CPU for which it is made."""
        return "onednn" in torch.backends.quantized.supported_engines and hasattr(
            torch.ops.onednn, "qlinear_pointwise"
        )

    def __call__(self, input: torch.Tensor) -> torch.Tensor:
        """Return the product (..., N) with an input (..., D)."""
        low, high = (bound.item() for bound in torch.aminmax(input))
        low, high = min(low, 0.0), max(high, 1e-12)
        scale = (high - low) / (ACTIVATION_LEVELS - 1)
        zero = round(-low / scale)
        levels = (input / scale).add_(zero).round_().clamp_(0, ACTIVATION_LEVELS - 1)
        product: torch.Tensor = torch.ops.onednn.qlinear_pointwise(
            levels.to(torch.uint8), scale, zero, self.packed, self.scales, self.zeros, self.bias,
            1.0, 0, torch.float, "none", [], "",
        )  # fmt: skip
        return product


PRODUCTS = (FbgemmProduct, OneDNNProduct)


class Int8Linear(nn.Module):
    """A linear layer with int8 weights, for inference on the CPU in fp32.

    Args:
        *layers: Layers of the same input, whose outputs are put one behind the other.
    """

    def __init__(self, *layers: nn.Linear):
        super().__init__()
        self.in_features = layers[0].in_features
        self.out_features = sum(layer.out_features for layer in layers)
        parameters = [dict(layer.named_parameters()) for layer in layers]
        weights = [named["weight"].detach() for named in parameters]
        biases = [named["bias"].detach() for named in parameters if "bias" in named]
        product = fastest_product()
        self.product = product(torch.cat(weights), torch.cat(biases) if biases else None)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Transform (..., in_features) into (..., out_features)."""
        return self.product(input)

    def extra_repr(self) -> str:
        """Return the sizes for `print(model)`."""
        return f"in_features={self.in_features}, out_features={self.out_features}"

    def _save_to_state_dict(self, *args: Any, **kwargs: Any) -> None:
        raise ValueError(f"An int8 model cannot be saved. {TO_UNDO}")

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        raise ValueError("Load weights before quantize_int8(), not into an int8 model.")


class Int8Mixin:
    """Adds `quantize_int8` to a `PreTrainedModel`. Put it before that class in the bases."""

    @property
    def is_int8(self) -> bool:
        """Whether `quantize_int8` was called."""
        return any(isinstance(module, Int8Linear) for module in self.modules())

    @torch.no_grad()
    def quantize_int8(self) -> "Int8Mixin":
        """Round the weights of all linear layers, also of the head, to 8 bits, in place.

        For inference on the CPU: the model then generates several times faster, with slightly
        different results, and takes less memory. It cannot be trained or saved any more. Embeddings
        and norms stay in fp32, also an embedding that was tied to the head.

        Returns:
            The model itself, so that `from_pretrained(...).quantize_int8()` is one expression.

        Raises:
            ValueError: If the model is not on the CPU, or this torch has no int8 engine.
        """
        device = next(self.parameters()).device
        if device.type != "cpu":
            raise ValueError(
                f'Int8 inference works on the CPU, but the model is on {device}: call model.to("cpu") '
                "first, or leave int8 out."
            )
        fastest_product()
        if self.is_int8:
            return self
        self.float().eval().requires_grad_(False)
        for module in list(self.modules()):
            if isinstance(module, Attention):
                _fuse_projections(module)
            for name, child in list(module.named_children()):
                if isinstance(child, nn.Linear):
                    setattr(module, name, Int8Linear(child))
        return self

    def save_pretrained(self, *args: Any, **kwargs: Any) -> None:
        """Save the model; an int8 model is refused before anything is written."""
        if self.is_int8:
            raise ValueError(f"An int8 model cannot be saved. {TO_UNDO}")
        super().save_pretrained(*args, **kwargs)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        if self.is_int8:
            moved = fn(torch.zeros(1))
            if moved.device.type != "cpu" or moved.dtype != torch.float:
                raise ValueError(
                    f"An int8 model works on the CPU in fp32: it cannot become {moved.dtype} on "
                    f"{moved.device}. {TO_UNDO}"
                )
        return super()._apply(fn, recurse)

    def train(self, mode: bool = True) -> "Int8Mixin":
        """Set training or evaluation mode; an int8 model cannot be trained."""
        if mode and self.is_int8:
            raise ValueError(f"An int8 model cannot be trained. {TO_UNDO}")
        return super().train(mode)


def _fuse_projections(attention: Attention) -> None:
    """Let one int8 layer compute all projections of one input, unless an adapter wraps one."""
    projections = [getattr(attention, name) for name in attention.fusable]
    if projections and all(isinstance(projection, nn.Linear) for projection in projections):
        attention.fused_proj = Int8Linear(*projections)
        for name in attention.fusable:
            delattr(attention, name)


def fastest_product() -> type[FbgemmProduct] | type[OneDNNProduct]:
    """Return the fastest implementation that there is.

    Raises:
        ValueError: If this build of torch has none.
    """
    for product in PRODUCTS:
        if product.is_available():
            return product
    raise ValueError(
        "Int8 inference needs FBGEMM or oneDNN, which come with torch for x86 CPUs; this torch has "
        f"{', '.join(torch.backends.quantized.supported_engines)}. Leave int8 out."
    )


def row_scales(weight: torch.Tensor) -> torch.Tensor:
    """Return the step of each row of (N, D) at which its largest element becomes 127."""
    return weight.abs().amax(dim=1).clamp(min=1e-12) / 127


__all__ = ["Int8Linear", "Int8Mixin"]
