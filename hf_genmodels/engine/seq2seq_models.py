"""The models that sequence-to-sequence training begins with: new, trained, or grown from trained ones."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

from hf_genmodels.auto import FAMILIES, resolve
from hf_genmodels.config.seq2seq import TrainSeq2SeqConfig
from hf_genmodels.data.seq2seq import Tokenizers
from hf_genmodels.engine.adapting import adapt_model
from hf_genmodels.engine.checkpoint import MODEL_CONFIG
from hf_genmodels.errors import UserError
from hf_genmodels.hub.loading import load_model
from hf_genmodels.models.configuration_seq2seq import GenSeq2SeqConfig
from hf_genmodels.models.modeling_rnn_seq2seq import GenRNNSeq2SeqForConditionalGeneration
from hf_genmodels.models.modeling_seq2seq import GenSeq2SeqForConditionalGeneration

MODEL_TYPES = ("gen_seq2seq", "gen_rnn_seq2seq")
TASK = "SEQ_2_SEQ_LM"


def build_model(
    config: TrainSeq2SeqConfig, tokenizers: Tokenizers, checkpoint: Path | None
) -> PreTrainedModel:
    """Make a new model, or load the one to fine-tune; freeze and adapt as asked for.

    Args:
        config: The run's options.
        tokenizers: The model's tokenizers.
        checkpoint: Checkpoint whose weights will replace those of a pretrained model, which then
            need not be there any more.

    Raises:
        UserError: If model, tokenizers and lengths do not fit together.
    """
    model: Any
    if checkpoint is not None and (config.model_name_or_path or config.refine_from):
        model = _empty_model(checkpoint / MODEL_CONFIG)
        if config.refine_from:
            model.freeze_first_pass()
    else:
        model = new_or_pretrained_model(config, tokenizers, warm_start=checkpoint is None)
    _check_fit(config, model.config, tokenizers)
    return adapt_model(config, model, task_type=TASK)


def new_or_pretrained_model(
    config: TrainSeq2SeqConfig, tokenizers: Tokenizers | None, *, warm_start: bool = True
) -> PreTrainedModel:
    """Return the model to fine-tune, or a new one.

    Args:
        config: The run's options.
        tokenizers: Tokenizers of a new model. `None`: of the size that they would be trained to.
        warm_start: Whether a new model takes the weights of language models over, if asked for.
    """
    if config.model_name_or_path:
        model = _load_pretrained(config.model_name_or_path)
        model.config.label_smoothing = config.loss.label_smoothing
        return model
    if config.refine_from:
        return _with_second_decoder(config, _load_pretrained(config.refine_from))
    if tokenizers is None:
        size = config.tokenizer_vocab_size
        fields: dict[str, Any] = {
            "vocab_size": size,
            "source_vocab_size": size if config.trains_separate_tokenizers else None,
        }
    else:
        target, separate = tokenizers.target, tokenizers.separate is not None
        fields = {
            "vocab_size": len(target),
            "source_vocab_size": len(tokenizers.source) if separate else None,
            "bos_token_id": target.bos_token_id,
            "eos_token_id": target.eos_token_id,
            "pad_token_id": target.pad_token_id,
            "decoder_start_token_id": _start_of(target),
        }
    model_config = config.new_model_config(**fields)
    if not isinstance(model_config, GenSeq2SeqConfig):
        return GenRNNSeq2SeqForConditionalGeneration(model_config)
    model = GenSeq2SeqForConditionalGeneration(model_config)
    if warm_start:
        _warm_start(config, model)
    return model


def _start_of(tokenizer: PreTrainedTokenizerFast) -> int:
    """Return the token from which the decoder starts."""
    start = tokenizer.bos_token_id
    return int(tokenizer.eos_token_id if start is None else start)


def _empty_model(config_file: Path) -> PreTrainedModel:
    """Return a model with the configuration of a checkpoint."""
    model_type = PreTrainedConfig.get_config_dict(str(config_file))[0]["model_type"]
    family = FAMILIES[model_type]
    config: Any = resolve(family.config)
    model: Any = resolve(family.models["AutoModelForSeq2SeqLM"])
    return model(config.from_json_file(str(config_file)))


def _load_pretrained(name: str) -> PreTrainedModel:
    model = load_model(name)
    if model.config.model_type not in MODEL_TYPES:
        raise UserError(
            f"--model_name_or_path {name} is a {model.config.model_type!r} model. This command "
            f"trains {' and '.join(map(repr, MODEL_TYPES))} models."
        )
    return model


def _with_second_decoder(config: TrainSeq2SeqConfig, first: PreTrainedModel) -> PreTrainedModel:
    """Return a trained model with a new decoder that rewrites its drafts; the rest is frozen."""
    if not isinstance(first, GenSeq2SeqForConditionalGeneration):
        raise UserError(
            f"--refine_from {config.refine_from} is a {first.config.model_type!r} model; a second "
            f"decoder can be added to {GenSeq2SeqConfig.model_type!r} models."
        )
    if first.config.refinement_decoder:
        raise UserError(
            f"--refine_from {config.refine_from} has a second decoder already. Train it on with "
            "--model_name_or_path."
        )
    both: Any = copy.deepcopy(first.config)
    both.refinement_decoder = True
    both.refinement_layers = config.model.refinement_layers or first.config.decoder_layers
    both.label_smoothing = config.loss.label_smoothing
    model = GenSeq2SeqForConditionalGeneration(both)
    model.load_state_dict(first.state_dict(), strict=False)
    model.tie_weights()
    model.freeze_first_pass()
    return model


def _warm_start(config: TrainSeq2SeqConfig, model: Any) -> None:
    """Take weights of trained language models over, as the user asked for."""
    try:
        if config.decoder_from is not None:
            model.load_decoder(load_model(config.decoder_from))
        if config.encoder_from is not None:
            model.load_encoder(load_model(config.encoder_from))
    except ValueError as error:
        raise UserError(f"The trained weights do not fit: {error}") from error


def _check_fit(
    config: TrainSeq2SeqConfig, model_config: PreTrainedConfig, tokenizers: Tokenizers
) -> None:
    """Check that every token is in the vocabulary and every pair within the positions."""
    source_size = model_config.source_vocab_size or model_config.vocab_size
    for side, tokenizer, size in (
        ("sources", tokenizers.source, source_size),
        ("targets", tokenizers.target, model_config.vocab_size),
    ):
        num_ids = max(tokenizer.get_vocab().values()) + 1
        if num_ids > size:
            raise UserError(
                f"The tokenizer of the {side} has {num_ids:,} tokens, but the model's vocabulary only "
                f"{size:,}. Use the model's own tokenizer: leave out --tokenizer_name."
            )
    if model_config.model_type != GenSeq2SeqConfig.model_type:
        return
    for name in ("max_source_length", "max_target_length"):
        if getattr(config, name) > model_config.max_position_embeddings:
            raise UserError(
                f"--{name} {getattr(config, name)} is longer than the model's "
                f"{model_config.max_position_embeddings} positions."
            )
