"""Options of the pairs that a sequence-to-sequence model is trained on."""

# No postponed annotations: jsonargparse looks names up in the module of a subclass.
from dataclasses import dataclass, field
from typing import Literal

from hf_genmodels.config.run import at_least, drop_samples, file_names
from hf_genmodels.errors import UserError

Overlong = Literal["drop", "truncate"]


@dataclass
class PairDataConfig:
    """Where the pairs come from and how they are batched."""

    dataset_name: str | None = None
    """Dataset of a hub; or give files."""

    dataset_config_name: str | None = None
    """Configuration of the hub dataset."""

    train_file: list[str] = field(default_factory=list)
    """Tables to train on: jsonl, csv or parquet; patterns such as pairs/*.jsonl are allowed."""

    validation_file: list[str] = field(default_factory=list)
    """Tables to validate on, in the same format."""

    train_source_file: list[str] = field(default_factory=list)
    """Text files of sources; line i belongs to line i of --train_target_file."""

    train_target_file: list[str] = field(default_factory=list)
    """Text files of targets."""

    validation_source_file: list[str] = field(default_factory=list)
    """Text files of sources to validate on."""

    validation_target_file: list[str] = field(default_factory=list)
    """Text files of targets to validate on."""

    validation_split_percentage: float = 5.0
    """Without validation pairs, this part at the end of the training pairs is held out, in per cent."""

    source_column: str | None = None
    """Column of the sources; `source` by default."""

    target_column: str | None = None
    """Column of the targets; `target` by default."""

    source_lang: str | None = None
    """Language of the sources in a column `translation` of {language: text}."""

    target_lang: str | None = None
    """Language of the targets."""

    text_column: str | None = None
    """Column of whole texts instead of pairs: the model learns to continue their beginnings."""

    split_at: float = 0.5
    """Part of a whole text that is its beginning; it is cut at the nearest line or sentence end."""

    group_column: str | None = None
    """Column that says which texts belong together, such as author; for contrastive losses."""

    max_source_length: int = 128
    """Longest source in tokens."""

    max_target_length: int = 128
    """Longest target in tokens."""

    overlong: Overlong = "drop"
    """What happens to longer pairs: drop or truncate. Both are counted and reported."""

    batch_tokens: int = 2048
    """Budget of a batch of one process: pairs times the tokens of the longest side."""

    eval_batch_tokens: int | None = None
    """Budget of a batch in validation; as in training by default."""

    max_eval_pairs: int | None = 2000
    """Validation pairs whose loss is measured; null for all of them."""

    tokenizer_name: str | None = None
    """Folder or hub id of a tokenizer; by default the model's own, or one trained on the pairs."""

    target_tokenizer_name: str | None = None
    """Tokenizer of the targets, if it is another one."""

    separate_vocabularies: bool = False
    """Train a tokenizer for each side instead of a joint one."""

    tokenizer_vocab_size: int = 8000
    """Vocabulary of a tokenizer that is trained here."""

    tokenizer_max_token_length: int | None = None
    """Greatest length in bytes of a token that is trained here; 3 keeps Chinese characters apart."""

    cache_dir: str | None = None
    """Where tokenised pairs are kept for later runs; ~/.cache/hf_genmodels/tokens by default."""

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            UserError: If a value cannot work.
        """
        drop_samples(self, self.train_source_file, self.train_target_file)
        parallel = bool(self.train_source_file or self.train_target_file)
        if sum((bool(self.dataset_name), bool(self.train_file), parallel)) != 1:
            raise UserError(
                "Give the pairs in one way: --train_file TABLE, or --train_source_file with "
                "--train_target_file, or --dataset_name NAME. To try it on bundled pairs: --config demo."
            )
        if self.has_validation_files and self.dataset_name:
            raise UserError(
                "--validation_file goes with --train_file; a hub dataset validates on its own "
                "split `validation` or `test`."
            )
        if not 0 < self.validation_split_percentage < 100:
            raise UserError(
                f"--validation_split_percentage is {self.validation_split_percentage}. "
                "It must lie between 0 and 100."
            )
        for name in ("max_source_length", "max_target_length"):
            at_least(name, getattr(self, name), 2)
        longest = max(self.max_source_length, self.max_target_length)
        if self.eval_batch_tokens is None:
            self.eval_batch_tokens = self.batch_tokens
        for name in ("batch_tokens", "eval_batch_tokens"):
            if getattr(self, name) < longest:
                raise UserError(
                    f"--{name} is {getattr(self, name)}, but a pair may have {longest} tokens on one "
                    f"side. Raise it to at least {longest}, or lower --max_source_length and "
                    "--max_target_length."
                )
        if self.max_eval_pairs is not None:
            at_least("max_eval_pairs", self.max_eval_pairs, 1)
        at_least("tokenizer_vocab_size", self.tokenizer_vocab_size, 259)
        if self.tokenizer_max_token_length is not None:
            at_least("tokenizer_max_token_length", self.tokenizer_max_token_length, 2)
        if self.target_tokenizer_name and not self.tokenizer_name:
            raise UserError("--target_tokenizer_name goes with --tokenizer_name, the sources' one.")

    @property
    def has_validation_files(self) -> bool:
        """Whether validation pairs were given."""
        return bool(
            self.validation_file or self.validation_source_file or self.validation_target_file
        )

    @property
    def train_names(self) -> str:
        """Where the training pairs come from, in words."""
        return self.dataset_name or file_names(
            self.train_file, self.train_source_file, self.train_target_file
        )

    @property
    def validation_names(self) -> str:
        """Where the validation pairs come from, in words, if they are not of the training pairs."""
        if self.dataset_name:
            return f"{self.dataset_name} (validation)"
        return file_names(
            self.validation_file, self.validation_source_file, self.validation_target_file
        )
