"""The steps around the loop of a sequence-to-sequence model: checking, tokenizers, describing."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

from hf_genmodels.config.seq2seq import TrainSeq2SeqConfig
from hf_genmodels.data.pairs import PairSource
from hf_genmodels.data.seq2seq import PairBatches, PairData, Tokenizers, pair_sources
from hf_genmodels.engine.adapting import adapt_model
from hf_genmodels.engine.dry_run import describe_dry_run
from hf_genmodels.engine.estimate import estimate_memory, format_count
from hf_genmodels.engine.run import Run, check_run
from hf_genmodels.engine.seq2seq_models import TASK, new_or_pretrained_model
from hf_genmodels.errors import UserError, require_extra
from hf_genmodels.hub.folder import TARGET_TOKENIZER
from hf_genmodels.hub.loading import load_target_tokenizer, load_tokenizer, refuse_companion
from hf_genmodels.tokenization.bpe import train_bpe
from hf_genmodels.tokenization.pairs import for_pairs
from hf_genmodels.tokenization.saving import load_tokenizer as load_local_tokenizer
from hf_genmodels.tokenization.saving import save_tokenizer

logger = logging.getLogger("hf_genmodels")
PROBE_LENGTH = 32


def check_inputs(config: TrainSeq2SeqConfig) -> None:
    """Look at the data, the folders and the optional libraries before any work is begun.

    Raises:
        UserError: With what cannot work.
    """
    check_run(config)
    refuse_companion(config.model_name_or_path, f"--model_name_or_path {config.model_name_or_path}")
    if config.lora.r:
        require_extra("peft", "lora")
    if config.translate.num_pairs:
        require_extra("sacrebleu", "metrics")
    pair_sources(config)


def build_tokenizers(
    config: TrainSeq2SeqConfig, output_dir: Path, *, show_progress: bool
) -> Tokenizers:
    """Load the tokenizers that the user named or the model has, or train them on the pairs.

    What is trained here is kept in the output folder, where a resumed run and the other processes
    find it.

    Raises:
        UserError: If there is no such tokenizer.
    """
    if (output_dir / "tokenizer.json").is_file():
        return _load_both(output_dir)
    given = given_tokenizers(config)
    if given is None:
        given = _train_tokenizers(config, show_progress=show_progress)
    elif config.tokenizer_name:
        _check_same_tokenizer(config)
    longest = max(config.max_source_length, config.max_target_length)
    source = for_pairs(given.source, longest)
    target = for_pairs(given.target, longest) if given.separate is not None else source
    if target is not source:
        save_tokenizer(target, output_dir / TARGET_TOKENIZER)
    save_tokenizer(source, output_dir)
    return Tokenizers(source, target)


def given_tokenizers(config: TrainSeq2SeqConfig) -> Tokenizers | None:
    """Return the tokenizers that the user named or the model has; `None` if they are to be trained.

    Raises:
        UserError: If there is no such tokenizer.
    """
    whole = config.model_name_or_path or config.refine_from
    name = config.tokenizer_name or whole or config.decoder_from or config.encoder_from
    if not name:
        return None
    if config.target_tokenizer_name:
        return Tokenizers(_load_one(name), _load_one(config.target_tokenizer_name))
    if Path(name).is_dir():
        return _load_both(Path(name))
    tokenizer = _load_one(name)
    return Tokenizers(tokenizer, load_target_tokenizer(name) or tokenizer)


def identity_of(
    config: TrainSeq2SeqConfig, model: PreTrainedModel, tokenizers: Tokenizers, data: PairData
) -> dict[str, Any]:
    """Return what must stay the same when a run goes on, JSON-able."""
    inherited = {field.name for field in dataclasses.fields(PreTrainedConfig)}
    own = {field.name for field in dataclasses.fields(type(model.config))} - inherited
    options = {
        f"{section}.{key}": value
        for section in ("optim", "lora", "loss")
        for key, value in dataclasses.asdict(getattr(config, section)).items()
    }
    return {
        **{
            name: getattr(config, name)
            for name in (
                "model_name_or_path",
                "tokenizer_name",
                "decoder_from",
                "encoder_from",
                "refine_from",
                "seed",
                "batch_tokens",
                "ema_decay",
                "freeze",
            )
        },
        "batches in a step": config.batches_per_step,
        "data": _digest(data.fingerprint),
        "source tokenizer": _digest(tokenizers.source.backend_tokenizer.to_str()),
        "target tokenizer": _digest(tokenizers.target.backend_tokenizer.to_str()),
        **{f"model.{name}": getattr(model.config, name) for name in sorted(own)},
        **options,
    }


def describe(run: Run, config: TrainSeq2SeqConfig, model: PreTrainedModel, data: PairData) -> None:
    """Say what is going to be trained on what."""
    total = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    source_size = model.config.source_vocab_size
    logger.info(
        "model: %s parameters%s, vocabulary %s%s, precision %s",
        format_count(total),
        "" if trained == total else f" ({format_count(trained)} trained)",
        f"{model.config.vocab_size:,}",
        f" and {source_size:,} of the sources" if source_size else "",
        run.accelerator.mixed_precision,
    )
    logger.info("data: %s; %s to validate on", data.train.counts, f"{len(data.validation):,}")
    logger.info(
        "%d steps of up to %s tokens on %d process%s, into %s%s",
        config.max_steps,
        f"{config.batch_tokens * config.batches_per_step:,}",
        run.accelerator.num_processes,
        "es" if run.accelerator.num_processes > 1 else "",
        run.output_dir,
        f"; going on after step {run.state.step}" if run.state.step else "",
    )


def training_batches(
    run: Run,
    config: TrainSeq2SeqConfig,
    data: PairData,
    tokenizers: Tokenizers,
    position: dict[str, int] | None,
) -> PairBatches:
    """Return this rank's batches from where the run stands.

    Args:
        run: The run.
        config: Its options.
        data: The pairs.
        tokenizers: The model's tokenizers.
        position: Where the batches stood when the checkpoint was saved; rank 0 knows it.
    """
    return PairBatches(
        config,
        data.train,
        pad_token_id=int(tokenizers.source.pad_token_id),
        seed=config.seed,
        with_groups=config.loss.uses_groups,
        rank=run.accelerator.process_index,
        world_size=run.accelerator.num_processes,
        accumulation=config.gradient_accumulation_steps,
        start=run.broadcast(position),
        num_workers=config.num_workers,
    )


def example_of(tokenizers: Tokenizers, data: PairData) -> str:
    """Return the shortest of the first validation sources, to try the model with."""
    lengths = data.validation.source_lengths[:50]
    ids = data.validation.source(int(lengths.argmin())).tolist()
    return str(tokenizers.source.decode(ids, skip_special_tokens=True))


def dry_run(config: TrainSeq2SeqConfig) -> str:
    """Say what a run would be; see `describe_dry_run`. Neither tokenizers nor pairs are made."""
    model = new_or_pretrained_model(config, given_tokenizers(config))
    model = adapt_model(config, model, task_type=TASK).train()
    rows = max(1, config.batch_tokens // PROBE_LENGTH)

    def inputs(ids: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"input_ids": ids, "decoder_input_ids": ids}

    memory = estimate_memory(
        model,
        config.optim.name,
        rows,
        PROBE_LENGTH,
        ema=config.ema_decay is not None,
        inputs=inputs,
    )

    def random_batch() -> dict[str, torch.Tensor]:
        ids = torch.randint(259, (rows, PROBE_LENGTH))
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}

    return describe_dry_run(config, model, config.optim, random_batch, memory)


def _check_same_tokenizer(config: TrainSeq2SeqConfig) -> None:
    """Check that a trained model goes on with the tokens that it knows."""
    whole = config.model_name_or_path or config.refine_from
    if not whole:
        return
    vocabularies = [_load_one(str(name)).get_vocab() for name in (config.tokenizer_name, whole)]
    if vocabularies[0] != vocabularies[1]:
        raise UserError(
            f"--tokenizer_name {config.tokenizer_name} is not the tokenizer that {whole} was trained "
            "with: its tokens have other ids. Leave it out to use the model's own."
        )


def _train_tokenizers(config: TrainSeq2SeqConfig, *, show_progress: bool) -> Tokenizers:
    source, _ = pair_sources(config)
    logger.info("training a tokenizer of %d tokens", config.tokenizer_vocab_size)

    def train(sides: tuple[str, ...]) -> PreTrainedTokenizerFast:
        return train_bpe(
            _texts(source, sides),
            vocab_size=config.tokenizer_vocab_size,
            max_token_length=config.tokenizer_max_token_length,
            show_progress=show_progress,
        )

    if config.separate_vocabularies:
        return Tokenizers(train(("source",)), train(("target",)))
    joint = train(("source", "target"))
    return Tokenizers(joint, joint)


def _texts(source: PairSource, sides: tuple[str, ...]) -> Any:
    for pair in source.pairs():
        for side in sides:
            yield getattr(pair, side)


def _load_both(folder: Path) -> Tokenizers:
    source = load_local_tokenizer(folder)
    has_target = (folder / TARGET_TOKENIZER / "tokenizer.json").is_file()
    target = load_local_tokenizer(folder / TARGET_TOKENIZER) if has_target else source
    return Tokenizers(source, target)


def _load_one(name: str) -> PreTrainedTokenizerFast:
    tokenizer: PreTrainedTokenizerFast = (
        load_local_tokenizer(name) if Path(name).is_dir() else load_tokenizer(name)
    )
    return tokenizer


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
