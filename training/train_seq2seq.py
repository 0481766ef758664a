"""Train a sequence-to-sequence model: from pairs of texts to a published folder in one command.

    genmodels train seq2seq --train_file pairs.jsonl --output_dir runs/translator
    genmodels train seq2seq --train_source_file en.txt --train_target_file es.txt --output_dir runs/en-es
    genmodels train seq2seq --config poems --output_dir runs/poems
    genmodels train seq2seq --resume runs/translator
    accelerate launch --num_processes 2 training/train_seq2seq.py --config translation ...

The loop in `train` is the whole method; what it calls stands in `hf_genmodels`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from hf_genmodels.config.parser import parse_config
from hf_genmodels.config.seq2seq import TrainSeq2SeqConfig
from hf_genmodels.data.seq2seq import Counts, count_items, load_pair_data
from hf_genmodels.engine.checkpoint import (
    load_checkpoint,
    mean_of_checkpoints,
    newest_checkpoint,
    save_checkpoint,
)
from hf_genmodels.engine.ema import EMA, averaged
from hf_genmodels.engine.launch import launch, needs_launch
from hf_genmodels.engine.objective import added, compute_losses
from hf_genmodels.engine.optim import build_optimizer, build_schedule
from hf_genmodels.engine.publishing import finish, publish
from hf_genmodels.engine.run import Run, begin, start_run
from hf_genmodels.engine.seq2seq import (
    build_tokenizers,
    check_inputs,
    describe,
    dry_run,
    example_of,
    identity_of,
    training_batches,
)
from hf_genmodels.engine.seq2seq_models import build_model
from hf_genmodels.engine.translation import card_of, validate

PRESETS = Path(__file__).parent / "configs" / "seq2seq"
DEFAULT_PRESET = "translation"


def train(run: Run, config: TrainSeq2SeqConfig) -> None:
    """Train until the last step, or until the run is asked to stop; save and publish on the way."""
    checkpoint = newest_checkpoint(run) if config.resume else None
    with run.main_first():
        tokenizers = build_tokenizers(config, run.output_dir, show_progress=run.is_main)
    model = build_model(config, tokenizers, checkpoint)
    with run.main_first():
        data = load_pair_data(config, tokenizers, show_progress=run.is_main)
    identity = identity_of(config, model, tokenizers, data)
    fine_tuning = bool(config.model_name_or_path or config.decoder_from)
    optimizer = build_optimizer(model, config.optim, fine_tuning=fine_tuning)
    schedule = build_schedule(optimizer, config.schedule, config.max_steps)
    model, optimizer = run.prepare(model, optimizer)
    bare_model = run.accelerator.unwrap_model(model)
    ema = EMA(bare_model, config.ema_decay) if config.ema_decay is not None else None
    parts = (model, optimizer.optimizer, schedule, ema)

    state = position = None
    if checkpoint is not None:
        state, position = load_checkpoint(run, checkpoint, *parts, identity=identity)
    begin(run, state)
    describe(run, config, bare_model, data)
    batches = training_batches(run, config, data, tokenizers, position)
    state = run.state
    model.train()

    def publish_now() -> None:
        card = card_of(run, config, bare_model, data)
        publish(run, config, bare_model, card, tokenizers.source, tokenizers.separate)

    if state.owes(config.publish):
        with averaged(ema, bare_model):
            publish_now()
    while state.step < config.max_steps and run.stop_reason is None:
        micro_batches = [next(batches) for _ in range(config.gradient_accumulation_steps)]
        items = zip(*map(count_items, micro_batches), strict=True)
        counts = Counts(*map(int, run.sum_over_ranks(*map(sum, items))))
        losses: dict[str, torch.Tensor] = {}
        for number, batch in enumerate(micro_batches, start=1):
            with run.sync_gradients(model, last=number == len(micro_batches)):
                with run.accelerator.autocast():  # also for passes through parts of the model
                    found = compute_losses(
                        model, bare_model, run.to_device(batch), counts, config.loss
                    )
                run.accelerator.backward(found["loss"] * run.accelerator.num_processes)
            losses = added(losses, found)
        measured = run.agree(losses)
        grad_norm = run.clip_gradients(
            model, config.optim.max_grad_norm, config.optim.max_grad_value
        )
        run.check_finite(measured["loss"], grad_norm, num_examples=counts.pairs)
        rate = float(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        if ema is not None:
            ema.update(bare_model)

        state.step += 1
        state.examples += counts.pairs
        state.tokens += counts.tokens
        run.clock.tick(counts.tokens)
        run.metrics.advance(state.step, run.clock.rate, loss=measured["loss"])
        if state.every(config.log_every) or state.step == 1:
            padding = round(counts.padding, 4)
            run.log(shown=("loss",), **measured, lr=rate, grad_norm=grad_norm, padding=padding)

        last = state.step == config.max_steps
        with run.clock.paused(), averaged(ema if run.is_due(last) else None, bare_model):
            if state.every(config.eval_every) or last:
                validate(run, config, model, bare_model, tokenizers, data)
                run.stop_if_no_gain()
            saves = state.every(config.save_every) or last or run.stop_reason is not None
            if state.publishes(config.publish, saved=saves):
                publish_now()
        if saves:
            with run.clock.paused():
                save_checkpoint(run, *parts, identity=identity, data_state=batches.position)

    if config.average_checkpoints > 1 and (state.step == config.max_steps or run.is_complete):
        mean = mean_of_checkpoints(bare_model, run.checkpoints, config.average_checkpoints)
        with mean.applied_to(bare_model):
            what = f"average of {mean.num_updates} checkpoints"
            if validate(run, config, model, bare_model, tokenizers, data, what=what):
                publish_now()
    finish(run, config, family="seq2seq", example=[example_of(tokenizers, data)])


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line, check everything that can be checked, and train.

    Args:
        argv: Arguments; those of the process by default.

    Raises:
        UserError: If something the user gave cannot work.
        SystemExit: With the status of the processes, if several were started.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    config = parse_config(
        TrainSeq2SeqConfig,
        argv,
        command="genmodels train seq2seq",
        description="Train a sequence-to-sequence model from scratch, or go on from a trained one.",
        presets=PRESETS,
        default_preset=DEFAULT_PRESET,
    )
    check_inputs(config)
    if config.dry_run:
        print(dry_run(config))
    elif needs_launch(config):
        raise SystemExit(launch("hf_genmodels.training.train_seq2seq", argv, config))
    else:
        with start_run(config) as run:
            train(run, config)


if __name__ == "__main__":
    from hf_genmodels.cli import run_command

    run_command(main)
