"""Options of training that begins with a trained model."""

# No postponed annotations: jsonargparse looks names up in the module of a subclass.
from dataclasses import dataclass, field

from hf_genmodels.config.run import RunConfig
from hf_genmodels.errors import UserError


@dataclass
class LoraOptions:
    """Low-rank adapters (Hu et al. 2021, arXiv:2106.09685), through the peft library."""

    r: int = 0
    """Rank of the adapters; 0 trains the weights themselves."""

    alpha: int = 16
    """Scale of the adapters, times 1 / r."""

    dropout: float = 0.0
    """Dropout before the adapters."""

    target_modules: list[str] = field(
        default_factory=lambda: ["q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj"]
    )
    """Linear layers that get an adapter."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            UserError: If a value cannot work.
        """
        if self.r < 0 or self.alpha <= 0 or not 0 <= self.dropout < 1:
            raise UserError(
                f"--lora.r is {self.r}, --lora.alpha {self.alpha}, --lora.dropout {self.dropout}; "
                "allowed are r >= 0, alpha > 0 and a dropout in [0, 1)."
            )


@dataclass
class FineTuningConfig(RunConfig):
    """A run that may begin with a trained model."""

    model_name_or_path: str | None = None
    """Folder or hub id of a trained model to fine-tune; else a new one is made."""

    freeze: list[str] = field(default_factory=list)
    """Patterns of parameter names that stay as they are, such as model.embed_tokens.*"""

    lora: LoraOptions = field(default_factory=LoraOptions)
    """Low-rank adapters instead of all weights."""

    def __post_init__(self) -> None:
        """Check what depends on each other.

        Raises:
            UserError: If a value cannot work.
        """
        super().__post_init__()
        if self.lora.r and not self.model_name_or_path:
            raise UserError("--lora.r adapts a trained model: give --model_name_or_path too.")
