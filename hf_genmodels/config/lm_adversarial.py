"""Options of `genmodels train lm-adversarial`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hf_genmodels.config.optim import ScheduleConfig
from hf_genmodels.config.parser import model_config_of, options_of
from hf_genmodels.config.run import (
    ExampleBatchConfig,
    SampleConfig,
    TextDataConfig,
    at_least,
    check_choice,
)
from hf_genmodels.errors import UserError
from hf_genmodels.models.configuration_text_discriminator import GenTextDiscriminatorConfig

METHODS = ("gumbel", "reinforce")
LOSSES = ("relativistic", "non_saturating", "least_squares", "hinge")
# The generator decides these, or the method does.
NOT_OPTIONS = (
    *("vocab_size", "attention", "max_position_embeddings"),
    *("bos_token_id", "eos_token_id", "pad_token_id"),
)
DiscriminatorOptions: Any = options_of(
    GenTextDiscriminatorConfig, "DiscriminatorOptions", without=NOT_OPTIONS
)


@dataclass
class AdversarialConfig:
    """What generator and discriminator write, see and minimise."""

    method: str = "gumbel"
    """gumbel: gradients through straight-through Gumbel-softmax samples (RelGAN, Nie et al. 2019);
    reinforce: a reward for each token, with a baseline (SeqGAN, Yu et al. 2017)."""

    loss: str | None = None
    """relativistic, non_saturating, least_squares or hinge; relativistic with gumbel, non_saturating with
    reinforce by default."""

    prompt_tokens: int = 16
    """First tokens of a window, from which the generator goes on."""

    sample_tokens: int = 32
    """Tokens that it writes, and that are compared with as many real ones."""

    temperature: float = 1.0
    """Divides the logits when texts are written."""

    relaxation_start: float = 1.0
    """gumbel: temperature of the softmax that gradients go through, at the first step."""

    relaxation_end: float = 0.5
    """gumbel: the same at the last step; in between it changes by the same factor every step."""

    discount: float = 0.9
    """reinforce: weight of a token's next reward beside its own."""

    discriminator_steps: int = 1
    """Updates of the discriminator, each on texts of its own, for one of the generator."""

    discriminator_first: int = 0
    """Steps at the beginning in which only the discriminator learns."""

    adversarial_weight: float = 1.0
    """Weight of what the discriminator says in what the generator minimises."""

    mle_weight: float = 1.0
    """Weight of the cross-entropy of real text."""

    kl_weight: float = 0.1
    """Weight of the divergence from the starting checkpoint, which keeps the generator near it."""

    leash: float = 1.0
    """Divergence from the starting checkpoint, in nats per token, above which the run is unhealthy."""

    stop_if_unhealthy: bool = True
    """End the run when the discriminator has won for long, the entropy has collapsed or the leash is
    overstretched."""

    eval_texts: int = 128
    """Texts that are written at every validation and compared with real ones."""

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            UserError: If a value cannot work.
        """
        check_choice("adversarial.method", self.method, METHODS)
        if self.loss is not None:
            check_choice("adversarial.loss", self.loss, LOSSES)
        if self.method == "reinforce" and self.loss == "relativistic":
            raise UserError(
                "--adversarial.loss relativistic compares whole texts, but reinforce rewards tokens. "
                f"Choose from: {', '.join(LOSSES[1:])}."
            )
        for name, least in (
            *(("prompt_tokens", 1), ("sample_tokens", 1), ("discriminator_steps", 1)),
            *(("discriminator_first", 0), ("eval_texts", 2)),
            *((f"{name}_weight", 0) for name in ("adversarial", "mle", "kl")),
        ):
            at_least(f"adversarial.{name}", getattr(self, name), least)
        for name in ("temperature", "relaxation_start", "relaxation_end", "leash"):
            if getattr(self, name) <= 0:
                raise UserError(
                    f"--adversarial.{name} is {getattr(self, name)}. It must be positive."
                )
        if not 0 <= self.discount <= 1:
            raise UserError(f"--adversarial.discount is {self.discount}. It must lie in [0, 1].")

    @property
    def kind(self) -> Any:
        """The adversarial loss that was chosen, or that of the method."""
        return self.loss or ("relativistic" if self.method == "gumbel" else "non_saturating")

    def relaxation(self, step: int, max_steps: int) -> float:
        """Return the temperature of the relaxed samples in a step, on a geometric path."""
        share = min(step / max(max_steps - 1, 1), 1.0)
        return self.relaxation_start ** (1 - share) * self.relaxation_end**share


@dataclass
class AdversarialOptimConfig:
    """How both networks are updated, with AdamW (Loshchilov and Hutter 2019)."""

    generator_lr: float = 3e-5
    """Learning rate of the generator."""

    discriminator_lr: float = 3e-4
    """Learning rate of the discriminator."""

    beta1: float = 0.5
    """Decay of the running mean of gradients."""

    beta2: float = 0.99
    """Decay of the running mean of squared gradients."""

    weight_decay: float = 0.01
    """Decoupled decay of matrices, times the learning rate; norms, biases and embeddings have none."""

    max_grad_norm: float = 1.0
    """Gradients of each network are clipped to this norm; 0 turns clipping off."""

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            UserError: If a value cannot work.
        """
        for name in ("generator_lr", "discriminator_lr"):
            if not 0 < getattr(self, name) <= 1:
                raise UserError(f"--optim.{name} is {getattr(self, name)}. It must lie in (0, 1].")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"--optim.{name} is {getattr(self, name)}. It must lie in [0, 1).")
        at_least("optim.weight_decay", self.weight_decay, 0)
        at_least("optim.max_grad_norm", self.max_grad_norm, 0)


@dataclass
class TrainLMAdversarialConfig(TextDataConfig, ExampleBatchConfig):
    """Go on with a trained language model against a discriminator of its texts."""

    model_name_or_path: str | None = None
    """Folder or hub id of the trained gen_gpt model to start from, and to be kept near."""

    discriminator: DiscriminatorOptions = field(default_factory=DiscriminatorOptions)
    """The discriminator, which is always new; see GenTextDiscriminatorConfig."""

    adversarial: AdversarialConfig = field(default_factory=AdversarialConfig)
    """What both networks write, see and minimise."""

    optim: AdversarialOptimConfig = field(default_factory=AdversarialOptimConfig)
    """The optimiser of both networks."""

    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    """The learning rate over the run."""

    sample: SampleConfig = field(default_factory=SampleConfig)
    """Texts that are generated at every validation."""

    def __post_init__(self) -> None:
        """Check everything that can be checked without looking at data.

        Raises:
            UserError: If a value cannot work.
        """
        ExampleBatchConfig.__post_init__(self)
        TextDataConfig.__post_init__(self)
        if not self.model_name_or_path:
            raise UserError(
                "--model_name_or_path is missing: adversarial training goes on with a trained language "
                "model. Train one with genmodels train lm, and give its folder."
            )
        if self.tokenizer_name:
            raise UserError("--tokenizer_name: the model's own tokenizer is used. Leave it out.")
        if self.streaming and self.num_workers:
            raise UserError("--num_workers does not go with --streaming: leave one of them out.")
        self._check_batches()
        self._check_run()
        self.discriminator_config(vocab_size=self.tokenizer_vocab_size)

    def _check_batches(self) -> None:
        """Check that texts fit into windows, and that there are enough of them."""
        needed = self.adversarial.prompt_tokens + self.adversarial.sample_tokens
        if needed > self.block_size:
            raise UserError(
                f"--adversarial.prompt_tokens and --adversarial.sample_tokens are {needed} tokens "
                f"together, more than --block_size {self.block_size}."
            )
        if self.adversarial.method == "reinforce" and self.per_device_train_batch_size < 2:
            raise UserError(
                "reinforce compares the texts of a batch with each other: give "
                "--per_device_train_batch_size 2 or more."
            )

    def _check_run(self) -> None:
        """Refuse what does not go with texts that are written while training."""
        if self.mixed_precision == "fp16":
            raise UserError("--mixed_precision fp16 is not for this. Choose bf16, no or auto.")
        for name in ("compile", "gradient_checkpointing"):
            if getattr(self, name):
                raise UserError(
                    f"--{name} does not go with adversarial training, where texts are written with a "
                    "cache. Leave it out."
                )

    def discriminator_config(self, vocab_size: int, **token_ids: Any) -> GenTextDiscriminatorConfig:
        """Return the configuration of the discriminator.

        For gumbel it sees a text as a whole; for reinforce each verdict is one on a beginning.

        Args:
            vocab_size: Number of tokens of the generator's vocabulary.
            **token_ids: `bos_token_id`, `eos_token_id`, `pad_token_id`.

        Raises:
            UserError: If the sizes do not fit together.
        """
        return model_config_of(
            GenTextDiscriminatorConfig,
            self.discriminator,
            "discriminator",
            vocab_size=vocab_size,
            attention="bidirectional" if self.adversarial.method == "gumbel" else "causal",
            max_position_embeddings=self.block_size,
            **token_ids,
        )

    @property
    def best_metric(self) -> str:
        """Name of the validation result that decides which weights are best."""
        return "n-gram divergence"

    @property
    def examples_per_step(self) -> int:
        """Windows in one step of both networks, over all processes."""
        return self.global_batch_size * self.adversarial.discriminator_steps

    @property
    def tokens_per_step(self) -> int:
        """Tokens of real text that the generator predicts in one step, over all processes."""
        return self.global_batch_size * (self.block_size - 1)
