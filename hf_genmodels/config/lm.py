"""Options of `genmodels train lm`."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from hf_genmodels.config.optim import OptimConfig, ScheduleConfig
from hf_genmodels.config.parser import options_of
from hf_genmodels.config.run import RunConfig, SampleConfig, TextDataConfig
from hf_genmodels.errors import UserError
from hf_genmodels.models.configuration_gpt import GenGPTConfig

# The tokenizer decides these, or the trainer does.
NOT_OPTIONS = ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id", "use_cache")
GPTOptions: Any = options_of(
    GenGPTConfig, "GPTOptions", without=NOT_OPTIONS, optional=("max_position_embeddings",)
)


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
class TrainLMConfig(TextDataConfig, RunConfig):
    """Train a GPT-2-style language model from scratch, or go on from a trained one."""

    model_name_or_path: str | None = None
    """Folder or hub id of a trained model (ours or GPT-2) to fine-tune; else a new one is made."""

    freeze: list[str] = field(default_factory=list)
    """Patterns of parameter names that stay as they are, such as model.embed_tokens.*"""

    model: GPTOptions = field(default_factory=GPTOptions)
    """The new model; see GenGPTConfig."""

    optim: OptimConfig = field(default_factory=OptimConfig)
    """The optimiser."""

    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    """The learning rate over the run."""

    lora: LoraOptions = field(default_factory=LoraOptions)
    """Low-rank adapters instead of all weights."""

    sample: SampleConfig = field(default_factory=SampleConfig)
    """Texts that are generated at every validation."""

    def __post_init__(self) -> None:
        """Check everything that can be checked without looking at data.

        Raises:
            UserError: If a value cannot work.
        """
        RunConfig.__post_init__(self)
        TextDataConfig.__post_init__(self)
        if self.streaming and self.num_workers:
            raise UserError(
                f"--num_workers is {self.num_workers}, but a stream is read by the training process "
                "itself, so that it can go on exactly: leave out --num_workers or --streaming."
            )
        if self.lora.r and not self.model_name_or_path:
            raise UserError("--lora.r adapts a trained model: give --model_name_or_path too.")
        if self.model.max_position_embeddings is None:
            self.model.max_position_embeddings = self.block_size
        if not self.model_name_or_path:
            self.new_model_config(vocab_size=self.tokenizer_vocab_size)
        positions = self.model.max_position_embeddings
        if not self.model_name_or_path and positions < self.block_size:
            raise UserError(
                f"--block_size {self.block_size} is longer than the model's "
                f"--model.max_position_embeddings {positions}."
            )

    def new_model_config(self, vocab_size: int, **token_ids: Any) -> GenGPTConfig:
        """Return the configuration of the new model.

        Args:
            vocab_size: Number of tokens of the tokenizer.
            **token_ids: `bos_token_id`, `eos_token_id`, `pad_token_id`.

        Raises:
            UserError: If the sizes do not fit together.
        """
        # Not dataclasses.asdict: its copies of a dataclass that was made at run time lack checks.
        options = {f.name: getattr(self.model, f.name) for f in fields(self.model)}
        ids = {"bos_token_id": None, "eos_token_id": None, **token_ids}
        try:
            return GenGPTConfig(vocab_size=vocab_size, **ids, **options)
        except Exception as error:
            cause = str(error.__cause__ or error)
            raise UserError(f"The section `model` cannot work: {cause}") from None
