"""Options of `genmodels train seq2seq`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hf_genmodels.config.fine_tuning import FineTuningConfig
from hf_genmodels.config.optim import OptimConfig, ScheduleConfig
from hf_genmodels.config.pairs import PairDataConfig
from hf_genmodels.config.parser import model_config_of, options_of
from hf_genmodels.config.run import at_least, check_choice
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
ARCHITECTURES = ("transformer", "rnn")
METRICS = ("loss", "bleu", "chrf")
TASKS = ("translation", "summarization", "text-generation")
CONSISTENCIES = ("none", "kl", "js", "symmetric")


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
