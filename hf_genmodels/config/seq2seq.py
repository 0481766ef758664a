"""Options of `genmodels train seq2seq`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from hf_genmodels.config.fine_tuning import FineTuningConfig
from hf_genmodels.config.optim import OptimConfig, ScheduleConfig
from hf_genmodels.config.parser import model_config_of, options_of
from hf_genmodels.config.run import SAMPLE, at_least, check_choice
from hf_genmodels.errors import UserError
from hf_genmodels.models.configuration_rnn_seq2seq import GenRNNSeq2SeqConfig
from hf_genmodels.models.configuration_seq2seq import GenSeq2SeqConfig

# The tokenizers decide these, or the loss options do.
NOT_OPTIONS = (
    "vocab_size",
    "source_vocab_size",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "decoder_start_token_id",
    "is_encoder_decoder",
    "label_smoothing",
    "use_cache",
)
Seq2SeqOptions: Any = options_of(
    GenSeq2SeqConfig, "Seq2SeqOptions", without=NOT_OPTIONS, optional=("max_position_embeddings",)
)
RNNOptions: Any = options_of(GenRNNSeq2SeqConfig, "RNNOptions", without=NOT_OPTIONS)
Overlong = Literal["drop", "truncate"]
ARCHITECTURES = ("transformer", "rnn")
METRICS = ("loss", "bleu", "chrf")
TASKS = ("translation", "summarization", "text-generation")
CONSISTENCIES = ("none", "kl", "js", "symmetric")


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
        self._drop_samples()
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

    def _drop_samples(self) -> None:
        """Leave bundled pairs of a preset out where the user gave pairs of another kind."""
        others = self.dataset_name or self.train_source_file or self.train_target_file
        if others and all(name.startswith(SAMPLE) for name in self.train_file):
            self.train_file = []
        if not any(name.startswith(SAMPLE) for name in self.train_file):
            self.validation_file = [n for n in self.validation_file if not n.startswith(SAMPLE)]

    @property
    def has_validation_files(self) -> bool:
        """Whether validation pairs were given."""
        return bool(
            self.validation_file or self.validation_source_file or self.validation_target_file
        )

    @property
    def train_names(self) -> str:
        """Where the training pairs come from, in words."""
        return self.dataset_name or _names(
            self.train_file, self.train_source_file, self.train_target_file
        )

    @property
    def validation_names(self) -> str:
        """Where the validation pairs come from, in words, if they are not of the training pairs."""
        if self.dataset_name:
            return f"{self.dataset_name} (validation)"
        return _names(
            self.validation_file, self.validation_source_file, self.validation_target_file
        )


@dataclass
class LossConfig:
    """What is minimised: the label-smoothed cross-entropy and, on request, more."""

    label_smoothing: float = 0.1
    """Probability that the target gives to all tokens together (Szegedy et al. 2016)."""

    consistency: str = "none"
    """none, or how far two passes with different dropout may differ: kl, js or symmetric relative entropy
    (R-Drop, Liang et al. 2021). Doubles the work of a step."""

    consistency_weight: float = 1.0
    """Weight of the consistency loss."""

    contrastive_weight: float = 0.0
    """Weight of InfoNCE over encoder states (van den Oord et al. 2018): a source is near to its own
    target and to others of its group, and far from other groups."""

    contrastive_temperature: float = 0.1
    """Divides the cosines of the contrastive loss."""

    unlikelihood_weight: float = 0.0
    """Weight of sequence unlikelihood (Welleck et al. 2020): the target of another group is made
    unlikely."""

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            UserError: If a value cannot work.
        """
        if not 0 <= self.label_smoothing < 1:
            raise UserError(
                f"--loss.label_smoothing is {self.label_smoothing}. It must lie in [0, 1)."
            )
        check_choice("loss.consistency", self.consistency, CONSISTENCIES)
        for name in ("consistency_weight", "contrastive_weight", "unlikelihood_weight"):
            at_least(f"loss.{name}", getattr(self, name), 0)
        if self.contrastive_temperature <= 0:
            raise UserError(
                f"--loss.contrastive_temperature is {self.contrastive_temperature}. "
                "It must be positive."
            )

    @property
    def uses_groups(self) -> bool:
        """Whether a loss compares a pair with others."""
        return bool(self.contrastive_weight or self.unlikelihood_weight)


@dataclass
class TranslationConfig:
    """Translations that are made and measured at every validation, kept in report/."""

    num_pairs: int = 100
    """Validation pairs that are translated for BLEU and chrF; 0 turns translations off."""

    num_beams: int = 1
    """Beams of the search; 1 is greedy and fastest."""

    show: int = 10
    """Translations that are shown beside their references."""

    bleu_tokenizer: str = "13a"
    """How sacrebleu cuts words: 13a, intl, char, zh, ja-mecab, ..."""

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            UserError: If a value cannot work.
        """
        at_least("translate.num_pairs", self.num_pairs, 0)
        at_least("translate.num_beams", self.num_beams, 1)
        at_least("translate.show", self.show, 0)


@dataclass
class TrainSeq2SeqConfig(PairDataConfig, FineTuningConfig):
    """Train a sequence-to-sequence model from scratch, or go on from a trained one."""

    task: str = "text-generation"
    """What the model does, for its card: translation, summarization or text-generation. Between two
    languages it is translation."""

    architecture: str = "transformer"
    """transformer, or rnn: its recurrent forerunner."""

    decoder_from: str | None = None
    """Folder or hub id of a gen_gpt model whose weights the decoder begins with."""

    encoder_from: str | None = None
    """Folder or hub id of a gen_gpt model whose weights the encoder begins with."""

    refine_from: str | None = None
    """Folder or hub id of a trained gen_seq2seq model to which a second decoder is added that rewrites
    its drafts; only the second one is trained."""

    metric_for_best: str = "loss"
    """What decides which weights are best and when to stop early: loss, bleu or chrf."""

    average_checkpoints: int = 0
    """At the end, average the weights of so many last checkpoints, and publish them if better."""

    model: Seq2SeqOptions = field(default_factory=Seq2SeqOptions)
    """The new Transformer; see GenSeq2SeqConfig."""

    rnn: RNNOptions = field(default_factory=RNNOptions)
    """The new recurrent model; see GenRNNSeq2SeqConfig."""

    loss: LossConfig = field(default_factory=LossConfig)
    """What is minimised."""

    optim: OptimConfig = field(default_factory=OptimConfig)
    """The optimiser."""

    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    """The learning rate over the run."""

    translate: TranslationConfig = field(default_factory=TranslationConfig)
    """Translations that are made at every validation."""

    def __post_init__(self) -> None:
        """Check everything that can be checked without looking at data.

        Raises:
            UserError: If a value cannot work.
        """
        FineTuningConfig.__post_init__(self)
        PairDataConfig.__post_init__(self)
        check_choice("task", self.task, TASKS)
        check_choice("architecture", self.architecture, ARCHITECTURES)
        check_choice("metric_for_best", self.metric_for_best, METRICS)
        if self.metric_for_best != "loss" and not self.translate.num_pairs:
            raise UserError(
                f"--metric_for_best {self.metric_for_best} needs translations: raise "
                "--translate.num_pairs."
            )
        at_least("average_checkpoints", self.average_checkpoints, 0)
        self.keep_checkpoints = max(self.keep_checkpoints, self.average_checkpoints)
        self._check_start()
        if self.loss.uses_groups and not self.group_column:
            raise UserError(
                "The contrastive and unlikelihood losses compare texts of different groups: name the "
                "column of the groups with --group_column, such as author."
            )
        longest = max(self.max_source_length, self.max_target_length)
        if self.model.max_position_embeddings is None:
            self.model.max_position_embeddings = longest
        if not (self.model_name_or_path or self.refine_from):
            if self.architecture == "transformer" and self.model.max_position_embeddings < longest:
                raise UserError(
                    f"--max_source_length {self.max_source_length} and --max_target_length "
                    f"{self.max_target_length} must not be longer than the model's "
                    f"--model.max_position_embeddings {self.model.max_position_embeddings}."
                )
            self.new_model_config(self.tokenizer_vocab_size)

    @property
    def best_metric(self) -> str:
        """Name of the validation result that decides which weights are best."""
        return self.metric_for_best

    @property
    def trains_separate_tokenizers(self) -> bool:
        """Whether each side gets a tokenizer of its own."""
        return self.separate_vocabularies or self.target_tokenizer_name is not None

    def new_model_config(
        self, vocab_size: int, source_vocab_size: int | None = None, **token_ids: Any
    ) -> GenSeq2SeqConfig | GenRNNSeq2SeqConfig:
        """Return the configuration of the new model.

        Args:
            vocab_size: Number of tokens of the targets' tokenizer.
            source_vocab_size: Number of tokens of the sources' tokenizer, if it is another one.
            **token_ids: `bos_token_id`, `eos_token_id`, `pad_token_id`, `decoder_start_token_id`.

        Raises:
            UserError: If the sizes do not fit together.
        """
        ids = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2, "decoder_start_token_id": 0}
        fields: dict[str, Any] = {
            "vocab_size": vocab_size,
            "source_vocab_size": source_vocab_size,
            "label_smoothing": self.loss.label_smoothing,
            **ids,
            **token_ids,
        }
        if self.architecture == "rnn":
            return model_config_of(GenRNNSeq2SeqConfig, self.rnn, "rnn", **fields)
        return model_config_of(GenSeq2SeqConfig, self.model, "model", **fields)

    def _check_start(self) -> None:
        if self.refine_from and (self.decoder_from or self.encoder_from):
            raise UserError(
                "--refine_from takes a whole model: leave --decoder_from and --encoder_from."
            )
        for name in ("decoder_from", "encoder_from", "refine_from"):
            if getattr(self, name) is None:
                continue
            if self.model_name_or_path:
                raise UserError(f"Give --model_name_or_path or --{name}, not both.")
            if self.architecture != "transformer":
                raise UserError(
                    f"--{name} takes the weights of a Transformer; --architecture {self.architecture} "
                    "has none to fill."
                )


def _names(*files: list[str]) -> str:
    return ", ".join(Path(name).name for names in files for name in names)
