"""Options of the optimiser and of the learning-rate schedule."""

from __future__ import annotations

from dataclasses import dataclass

from hf_genmodels.errors import UserError, suggest

OPTIMIZERS = ("adamw", "muon")
SCHEDULES = ("wsd", "cosine", "linear", "inverse_sqrt", "constant")
MUON_SCALES = ("spectral", "rms")
MUON_PRECISIONS = ("auto", "float32", "bfloat16")


@dataclass
class OptimConfig:
    """How the weights are updated."""

    name: str = "adamw"
    """adamw for every parameter, or muon: Muon for the hidden matrices and AdamW for the rest."""

    lr: float | None = None
    """Learning rate of the AdamW groups; by default it follows from the model's size."""

    muon_lr: float | None = None
    """Learning rate of the matrices that Muon updates; 0.02 by default (scale spectral)."""

    embedding_lr: float | None = None
    """Learning rate of untied embeddings; lr by default, and 0.1 with muon."""

    head_lr: float | None = None
    """Learning rate of the output head and of embeddings tied to it; lr by default."""

    weight_decay: float = 0.1
    """Decoupled decay of matrices under AdamW, times the learning rate; norms and biases have none."""

    muon_weight_decay: float = 0.01
    """Decoupled decay of matrices under Muon, times the (higher) learning rate of Muon."""

    decay_embeddings: bool = False
    """Whether embeddings decay too; a head tied to them counts as a matrix and always does."""

    beta1: float = 0.9
    """Decay of AdamW's running mean of gradients."""

    beta2: float = 0.95
    """Decay of AdamW's running mean of squared gradients."""

    eps: float = 1e-8
    """Term that keeps AdamW's division finite."""

    muon_momentum: float = 0.95
    """Nesterov momentum of Muon."""

    muon_steps: int = 5
    """Newton-Schulz steps of Muon, 3 to 10; 4 are 20 % cheaper and a little less exact."""

    muon_scale: str = "spectral"
    """spectral: updates times sqrt(max(1, rows / columns)); rms: times 0.2 sqrt(max(rows, columns))."""

    muon_precision: str = "auto"
    """Precision of Newton-Schulz: auto, float32 or bfloat16; auto is bfloat16 where it is fast."""

    max_grad_norm: float = 1.0
    """Gradients are clipped to this norm; 0 turns clipping off."""

    max_grad_value: float | None = None
    """Each element of the gradients is clipped to this absolute value, after the norm."""

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            UserError: If a value cannot work.
        """
        _one_of("optim.name", self.name, OPTIMIZERS)
        _one_of("optim.muon_scale", self.muon_scale, MUON_SCALES)
        _one_of("optim.muon_precision", self.muon_precision, MUON_PRECISIONS)
        for field in ("lr", "muon_lr", "embedding_lr", "head_lr"):
            value = getattr(self, field)
            if value is not None:
                _within(f"optim.{field}", value, 0.0, 10.0)
        for field in ("weight_decay", "muon_weight_decay"):
            _within(f"optim.{field}", getattr(self, field), 0.0, 10.0)
        for field in ("beta1", "beta2", "muon_momentum"):
            _within(f"optim.{field}", getattr(self, field), 0.0, 1.0, below=True)
        _within("optim.eps", self.eps, 0.0, 1.0)
        _within("optim.muon_steps", self.muon_steps, 3, 10)
        _within("optim.max_grad_norm", self.max_grad_norm, 0.0, float("inf"))
        if self.max_grad_value is not None:
            _within("optim.max_grad_value", self.max_grad_value, 1e-12, float("inf"))


@dataclass
class ScheduleConfig:
    """How the learning rate changes over the run, as a factor of its peak."""

    name: str = "wsd"
    """wsd (constant, then a linear decay at the end), cosine, linear, inverse_sqrt or constant."""

    warmup_steps: int | None = None
    """Steps of linear warm-up, the first of them non-zero; 2 % of the run by default."""

    decay_fraction: float = 0.2
    """Part of the run, at its end, in which wsd decays."""

    min_lr_ratio: float = 0.0
    """Factor that the decay reaches at the end of the run."""

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            UserError: If a value cannot work.
        """
        _one_of("schedule.name", self.name, SCHEDULES)
        if self.warmup_steps is not None:
            _within("schedule.warmup_steps", self.warmup_steps, 0, float("inf"))
        _within("schedule.decay_fraction", self.decay_fraction, 0.0, 1.0)
        _within("schedule.min_lr_ratio", self.min_lr_ratio, 0.0, 1.0)


def _one_of(flag: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        hint = suggest(str(value), allowed)
        raise UserError(f"--{flag} is {value!r}. {hint}Allowed: {', '.join(allowed)}.")


def _within(flag: str, value: float, low: float, high: float, *, below: bool = False) -> None:
    inside = low <= value < high if below else low <= value <= high
    if not inside:
        bracket = ")" if below else "]"
        raise UserError(f"--{flag} is {value}. It must lie in [{low:g}, {high:g}{bracket}.")
