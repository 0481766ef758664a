"""Options of `genmodels train lm`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hf_genmodels.config.fine_tuning import FineTuningConfig
from hf_genmodels.config.optim import OptimConfig, ScheduleConfig
from hf_genmodels.config.parser import model_config_of, options_of
from hf_genmodels.config.pixels import PixelOptions
from hf_genmodels.config.run import ExampleBatchConfig, SampleConfig, TextDataConfig
from hf_genmodels.errors import UserError
from hf_genmodels.models.configuration_gpt import GenGPTConfig

# The tokenizer decides these, or the trainer does.
PICTURE_FIELDS = (
    "image_sizes",
    "image_token_ids",
    "caption_token_id",
    "palette_token_id",
    "palette_size",
)
NOT_OPTIONS = (
    "vocab_size",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "use_cache",
    *PICTURE_FIELDS,
)
GPTOptions: Any = options_of(
    GenGPTConfig, "GPTOptions", without=NOT_OPTIONS, optional=("max_position_embeddings",)
)


@dataclass
class TrainLMConfig(TextDataConfig, FineTuningConfig, ExampleBatchConfig):
    """Train a GPT-2-style language model from scratch, or go on from a trained one.

    Of texts, or with an image_size in `pixels` of pictures.
    """

    model: GPTOptions = field(default_factory=GPTOptions)
    """The new model; see GenGPTConfig."""

    optim: OptimConfig = field(default_factory=OptimConfig)
    """The optimiser."""

    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    """The learning rate over the run."""

    sample: SampleConfig = field(default_factory=SampleConfig)
    """Texts or pictures that are generated at every validation."""

    pixels: PixelOptions = field(default_factory=PixelOptions)
    """Pictures instead of texts."""

    def __post_init__(self) -> None:
        """Check everything that can be checked without looking at data.

        Raises:
            UserError: If a value cannot work.
        """
        FineTuningConfig.__post_init__(self)
        TextDataConfig.__post_init__(self)
        if self.draws:
            self._check_pixels()
        if self.streaming and self.num_workers:
            raise UserError(
                f"--num_workers is {self.num_workers}, but a stream is read by the training process "
                "itself, so that it can go on exactly: leave out --num_workers or --streaming."
            )
        if self.model.max_position_embeddings is None:
            self.model.max_position_embeddings = self.block_size
        if not self.model_name_or_path:
            self.new_model_config(vocab_size=self.expected_vocab_size)
        positions = self.model.max_position_embeddings
        if not self.model_name_or_path and positions < self.block_size:
            raise UserError(
                f"--block_size {self.block_size} is longer than the model's "
                f"--model.max_position_embeddings {positions}."
            )

    @property
    def draws(self) -> bool:
        """Whether the data are images."""
        return self.pixels.image_size is not None

    @property
    def expected_vocab_size(self) -> int:
        """Most tokens of a tokenizer that is trained, those of pictures included."""
        return self.tokenizer_vocab_size + (self.pixels.num_tokens if self.draws else 0)

    def _check_pixels(self) -> None:
        """Fit the window to the pictures, and look at what the images share with texts."""
        if self.streaming:
            raise UserError("--streaming reads texts, and --pixels.image_size asks for images.")
        if self.tokenizer_name:
            raise UserError(
                f"--tokenizer_name {self.tokenizer_name} cuts texts, and --pixels.image_size asks for a "
                "tokenizer of prompts and colours, which is trained. Leave it out."
            )
        if self.lora.r:
            raise UserError("--lora.r does not adapt rows and columns of pixels. Leave it out.")
        self.block_size = self.pixels.longest_document
        self.pixels.image_data(self)

    def new_model_config(self, vocab_size: int, **token_ids: Any) -> GenGPTConfig:
        """Return the configuration of the new model.

        Args:
            vocab_size: Number of tokens of the tokenizer.
            **token_ids: `bos_token_id`, `eos_token_id`, `pad_token_id`, and the fields of pictures.

        Raises:
            UserError: If the sizes do not fit together.
        """
        ids = {"bos_token_id": None, "eos_token_id": None, **token_ids}
        return model_config_of(GenGPTConfig, self.model, "model", vocab_size=vocab_size, **ids)
