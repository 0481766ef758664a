"""Options that mean the same in every training script: the run, its text data, its samples."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hf_genmodels.config.hub import HubConfig
from hf_genmodels.errors import UserError, suggest

CONFIG_NAME = "config.yaml"
PARTIAL_CONFIG = f".{CONFIG_NAME}.partial"
# Names of data that come with this package begin so.
SAMPLE = "sample:"
PRECISIONS = ("auto", "no", "bf16", "fp16")
PUBLISH = ("best", "last")
DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?")


@dataclass
class RunConfig(HubConfig):
    """One training run: its folder, its length, what it writes and when."""

    output_dir: str | None = None
    """Folder that the run writes: the published model, checkpoints, metrics and a report."""

    resume: str | None = None
    """Folder of an earlier run that goes on where its newest complete checkpoint stands."""

    seed: int = 42
    """Seed of the weights, of the order of the data and of dropout."""

    max_steps: int = 1000
    """Optimizer steps of the whole run."""

    max_time: str | None = None
    """Longest time of this process, such as 90s, 30m or 1h30m; then it saves and stops."""

    gradient_accumulation_steps: int = 1
    """Forward passes whose gradients make one optimizer step."""

    mixed_precision: str = "auto"
    """auto, no, bf16 or fp16; auto is bf16 where the hardware computes it faster than fp32."""

    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""

    compile: bool = False
    """Compile the model with torch.compile; needs a C++ compiler and a minute at the start."""

    ema_decay: float | None = None
    """Decay of an exponential moving average of the weights, which is then what is published."""

    num_workers: int = 0
    """Processes that prepare batches beside each training process."""

    log_every: int = 10
    """Steps between lines of metrics."""

    eval_every: int | None = None
    """Steps between validations; a tenth of max_steps by default."""

    save_every: int | None = None
    """Steps between checkpoints; as eval_every by default. The last step is always saved."""

    keep_checkpoints: int = 2
    """Newest checkpoints that are kept."""

    publish: str = "best"
    """Weights that stand in the output folder: best (lowest validation loss) or last."""

    early_stopping_patience: int | None = None
    """Validations without a lower loss after which the run ends."""

    report_to: list[str] = field(default_factory=list)
    """Trackers of accelerate, such as tensorboard or wandb; metrics.jsonl is always written."""

    dry_run: bool = False
    """Print the configuration, size, memory and estimated time; write nothing."""

    num_processes: int = 1
    """Processes that train together on this machine; they are started from here."""

    max_restarts: int = 0
    """How often a run whose process died is started again from its newest checkpoint."""

    license: str | None = None
    """Licence of the trained model, for its card, such as apache-2.0 or cc-by-4.0."""

    def __post_init__(self) -> None:
        """Check every value and fill the defaults that depend on others.

        Raises:
            UserError: If a value cannot work.
        """
        # Processes that were started already count, whoever started them.
        self.num_processes = int(os.environ.get("WORLD_SIZE", self.num_processes))
        for name in ("max_steps", "gradient_accumulation_steps"):
            at_least(name, getattr(self, name), 1)
        for name in ("log_every", "keep_checkpoints", "num_processes"):
            at_least(name, getattr(self, name), 1)
        for name in ("num_workers", "max_restarts"):
            at_least(name, getattr(self, name), 0)
        if self.eval_every is None:
            self.eval_every = max(1, self.max_steps // 10)
        if self.save_every is None:
            self.save_every = self.eval_every
        for name in ("eval_every", "save_every", "early_stopping_patience"):
            if getattr(self, name) is not None:
                at_least(name, getattr(self, name), 1)
        check_choice("mixed_precision", self.mixed_precision, PRECISIONS)
        check_choice("publish", self.publish, PUBLISH)
        if self.ema_decay is not None and not 0 <= self.ema_decay < 1:
            raise UserError(f"--ema_decay is {self.ema_decay}. It must lie in [0, 1).")
        if self.max_time is not None:
            seconds_of(self.max_time)
        self.check_hub()

    @property
    def unit(self) -> str:
        """What the run counts."""
        return "tokens"

    @property
    def best_metric(self) -> str:
        """Name of the validation result that decides which weights are best."""
        return "loss"

    @property
    def batches_per_step(self) -> int:
        """Forward passes in one optimizer step, over all processes."""
        return self.gradient_accumulation_steps * self.num_processes


@dataclass
class ExampleBatchConfig(RunConfig):
    """A run whose batches have a fixed number of examples."""

    per_device_train_batch_size: int = 8
    """Examples in one forward pass on one process."""

    per_device_eval_batch_size: int | None = None
    """Examples in one forward pass of validation; as in training by default."""

    def __post_init__(self) -> None:
        """Check every value and fill the defaults that depend on others.

        Raises:
            UserError: If a value cannot work.
        """
        super().__post_init__()
        at_least("per_device_train_batch_size", self.per_device_train_batch_size, 1)
        if self.per_device_eval_batch_size is None:
            self.per_device_eval_batch_size = self.per_device_train_batch_size
        at_least("per_device_eval_batch_size", self.per_device_eval_batch_size, 1)

    @property
    def global_batch_size(self) -> int:
        """Examples in one optimizer step, over all processes."""
        return self.per_device_train_batch_size * self.batches_per_step

    @property
    def examples_per_step(self) -> int:
        """Examples that a step takes from the order of the data, over all processes."""
        return self.global_batch_size


@dataclass
class TextDataConfig:
    """Where the text comes from and how it is cut."""

    dataset_name: str | None = None
    """Dataset of a hub; or give files."""

    dataset_config_name: str | None = None
    """Configuration of the hub dataset."""

    train_file: list[str] = field(default_factory=list)
    """Files to train on: text, jsonl, csv or parquet; patterns such as books/*.txt are allowed."""

    validation_file: list[str] = field(default_factory=list)
    """Files to validate on, in the same format."""

    validation_split_percentage: float = 5.0
    """Without validation files or split, this part of the training text is held out, in per cent."""

    text_column: str | None = None
    """Column that holds the text, or the prompts of images; by default `text`, or the only column of strings."""

    sample_by: str = "document"
    """What is one document of a text file: document (the file), paragraph or line."""

    streaming: bool = False
    """Read the training data while training, without storing tokens first."""

    shuffle_buffer: int = 0
    """Documents of a stream that are shuffled at a time; 0 keeps their order."""

    block_size: int = 256
    """Tokens in a window, the context of the model while training; of pictures it is found by their size."""

    max_eval_windows: int | None = 512
    """Windows of the validation text, or validation images, that are scored; null for all of them."""

    tokenizer_name: str | None = None
    """Folder or hub id of a tokenizer; by default the model's own, or one trained on the text."""

    tokenizer_vocab_size: int = 8192
    """Vocabulary of a tokenizer that is trained here."""

    cache_dir: str | None = None
    """Where tokenised text is kept for later runs; ~/.cache/hf_genmodels/tokens by default."""

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            UserError: If a value cannot work.
        """
        drop_samples(self)
        if bool(self.dataset_name) == bool(self.train_file):
            given = "both" if self.dataset_name else "none"
            raise UserError(
                f"Give either --train_file FILE or --dataset_name NAME, not {given}."
                + (" Files of your own come with --train_file." if given == "none" else "")
            )
        if self.validation_file and self.dataset_name:
            raise UserError(
                "--validation_file goes with --train_file; a hub dataset validates on its own "
                "split `validation` or `test`."
            )
        if not 0 < self.validation_split_percentage < 100:
            raise UserError(
                f"--validation_split_percentage is {self.validation_split_percentage}. "
                "It must lie between 0 and 100."
            )
        check_choice("sample_by", self.sample_by, ("document", "paragraph", "line"))
        at_least("block_size", self.block_size, 8)
        at_least("shuffle_buffer", self.shuffle_buffer, 0)
        at_least("tokenizer_vocab_size", self.tokenizer_vocab_size, 259)
        if self.max_eval_windows is not None:
            at_least("max_eval_windows", self.max_eval_windows, 1)


@dataclass
class SampleConfig:
    """Texts that are generated at every validation, kept in report/."""

    prompts: list[str] = field(default_factory=lambda: [""])
    """Beginnings to continue; an empty one starts a new document."""

    max_new_tokens: int = 80
    """Tokens of each sample; 0 turns samples off."""

    temperature: float = 0.8
    """Divides the logits: below 1 is safer, above 1 is wilder."""

    top_p: float = 0.95
    """Smallest set of tokens with this probability that is drawn from."""

    top_k: int = 50
    """Most likely tokens that are drawn from; 0 for all."""

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            UserError: If a value cannot work.
        """
        at_least("sample.max_new_tokens", self.max_new_tokens, 0)
        at_least("sample.top_k", self.top_k, 0)
        if self.temperature <= 0:
            raise UserError(f"--sample.temperature is {self.temperature}. It must be positive.")
        if not 0 < self.top_p <= 1:
            raise UserError(f"--sample.top_p is {self.top_p}. It must lie in (0, 1].")


def drop_samples(data: Any, *others: object) -> None:
    """Leave bundled data of a preset out where the user gave data of another kind.

    Args:
        data: Options with `dataset_name`, `train_file` and `validation_file`.
        *others: Further options that name training data.
    """
    given = data.dataset_name or any(others)
    if given and all(name.startswith(SAMPLE) for name in data.train_file):
        data.train_file = []
    if not any(name.startswith(SAMPLE) for name in data.train_file):
        data.validation_file = [n for n in data.validation_file if not n.startswith(SAMPLE)]


def file_names(*lists: Sequence[str]) -> str:
    """Return what files are called in words: without this machine's folders, bundled data with theirs."""
    names = [name for files in lists for name in files]
    return ", ".join(
        name.removeprefix(SAMPLE) if name.startswith(SAMPLE) else Path(name).name for name in names
    )


def seconds_of(duration: str) -> float:
    """Return the seconds of a duration such as `90`, `90s`, `30m` or `1h30m`.

    Raises:
        UserError: If the text is not a duration.
    """
    match = DURATION.fullmatch(str(duration).strip())
    if not match or not any(match.groups()):
        raise UserError(f"{duration!r} is not a duration. Write for example 90s, 30m or 1h30m.")
    hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + seconds


def check_choice(flag: str, value: str, allowed: tuple[str, ...]) -> None:
    """Raise a UserError if a value is not among those allowed."""
    if value not in allowed:
        hint = suggest(str(value), allowed)
        raise UserError(f"--{flag} is {value!r}. {hint}Allowed: {', '.join(allowed)}.")


def check_new_folder(folder: str, lock_name: str) -> None:
    """Check that an output folder is new, empty, or holds nothing but a lock.

    Raises:
        UserError: If it holds another run or other files, or is a file.
    """
    path = Path(folder)
    if path.is_file():
        raise UserError(f"--output_dir {folder} is a file. Name a folder.")
    if not path.is_dir():
        return
    if (path / CONFIG_NAME).is_file():
        raise UserError(
            f"--output_dir {folder} holds another run. Go on with it: --resume {folder}. "
            "Or name a new folder."
        )
    others = sorted(p.name for p in path.iterdir() if p.name not in (lock_name, PARTIAL_CONFIG))
    if others:
        raise UserError(
            f"--output_dir {folder} is not empty ({', '.join(others[:3])}"
            f"{', ...' if len(others) > 3 else ''}). Name a new folder."
        )


def at_least(flag: str, value: float, least: float) -> None:
    """Raise a UserError if a value is too small."""
    if value < least:
        raise UserError(f"--{flag} is {value}. It must be at least {least}.")
