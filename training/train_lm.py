"""Train a GPT-2-style language model, of texts or of pictures: from data to a published folder in one command.

    genmodels train lm --train_file book.txt --output_dir runs/book
    genmodels train lm --config gpt2 --dataset_name user/texts --output_dir runs/texts
    genmodels train lm --config pixels-fashion --train_file my_images/ --output_dir runs/pictures
    genmodels train lm --resume runs/book
    accelerate launch --num_processes 2 training/train_lm.py --config modern ...

The loop in `train` is the whole method; what it calls stands in `hf_genmodels`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from hf_genmodels.config.lm import TrainLMConfig
from hf_genmodels.config.parser import parse_config
from hf_genmodels.data.language import count_targets
from hf_genmodels.engine.checkpoint import load_checkpoint, newest_checkpoint, save_checkpoint
from hf_genmodels.engine.ema import EMA, averaged
from hf_genmodels.engine.language import (
    build_model,
    build_tokenizer,
    check_inputs,
    dry_run,
    identity_of,
    load_data,
    training_batches,
    validate,
)
from hf_genmodels.engine.language_report import card_of, describe, example_of, picture_of
from hf_genmodels.engine.launch import launch, needs_launch
from hf_genmodels.engine.optim import build_optimizer, build_schedule
from hf_genmodels.engine.publishing import finish, publish
from hf_genmodels.engine.run import Run, begin, start_run

PRESETS = Path(__file__).parent / "configs" / "lm"
DEFAULT_PRESET = "modern"


def train(run: Run, config: TrainLMConfig) -> None:
    """Train until the last step, or until the run is asked to stop; save and publish on the way."""
    checkpoint = newest_checkpoint(run) if config.resume else None
    with run.main_first():
        tokenizer = build_tokenizer(config, run.output_dir, show_progress=run.is_main)
    model = build_model(config, tokenizer, checkpoint)
    with run.main_first():
        data = load_data(config, tokenizer, run.output_dir, show_progress=run.is_main)
    identity = identity_of(config, model, tokenizer, data)
    optimizer = build_optimizer(model, config.optim, fine_tuning=bool(config.model_name_or_path))
    schedule = build_schedule(optimizer, config.schedule, config.max_steps)
    model, optimizer = run.prepare(model, optimizer)
    bare_model = run.accelerator.unwrap_model(model)
    ema = EMA(bare_model, config.ema_decay) if config.ema_decay is not None else None
    parts = (model, optimizer.optimizer, schedule, ema)

    state = stream_state = None
    if checkpoint is not None:
        state, stream_state = load_checkpoint(run, checkpoint, *parts, identity=identity)
    begin(run, state)
    describe(run, config, bare_model, data)
    batches = training_batches(run, config, data, tokenizer, stream_state)
    state = run.state
    model.train()

    def publish_now() -> None:
        card = card_of(run, config, bare_model, data)
        publish(run, config, bare_model, card, tokenizer, image_processor=data.processor)

    if state.owes(config.publish):
        with averaged(ema, bare_model):
            publish_now()
    while state.step < config.max_steps and run.stop_reason is None:
        micro_batches = [next(batches) for _ in range(config.gradient_accumulation_steps)]
        (tokens,) = map(int, run.sum_over_ranks(sum(map(count_targets, micro_batches))))
        loss_sum = torch.zeros((), device=run.accelerator.device)
        for number, batch in enumerate(micro_batches, start=1):
            with run.sync_gradients(model, last=number == len(micro_batches)):
                batch = run.to_device(batch)
                part = model(**batch, use_cache=False, num_items_in_batch=max(tokens, 1)).loss
                run.accelerator.backward(part * run.accelerator.num_processes)
            loss_sum += part.detach()
        loss = run.agree({"loss": loss_sum})["loss"]
        grad_norm = run.clip_gradients(
            model, config.optim.max_grad_norm, config.optim.max_grad_value
        )
        run.check_finite(loss, grad_norm, num_examples=config.global_batch_size)
        rate = float(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        if ema is not None:
            ema.update(bare_model)

        state.step += 1
        state.examples += config.global_batch_size
        state.tokens += tokens
        run.clock.tick(tokens)
        run.metrics.advance(state.step, run.clock.rate, loss=loss)
        if state.every(config.log_every) or state.step == 1:
            run.log(loss=loss, lr=rate, grad_norm=grad_norm)

        last = state.step == config.max_steps
        with run.clock.paused(), averaged(ema if run.is_due(last) else None, bare_model):
            if state.every(config.eval_every) or last:
                validate(run, config, model, bare_model, tokenizer, data)
                run.stop_if_no_gain()
            saves = state.every(config.save_every) or last or run.stop_reason is not None
            if state.publishes(config.publish, saved=saves):
                publish_now()
        if saves:
            with run.clock.paused():
                data_state = batches.stream_state
                save_checkpoint(run, *parts, identity=identity, data_state=data_state)
    finish(run, config, family="lm", example=example_of(data), picture=picture_of(data))


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
        TrainLMConfig,
        argv,
        command="genmodels train lm",
        description="Train a GPT-2-style language model from scratch, or go on from a trained one.",
        presets=PRESETS,
        default_preset=DEFAULT_PRESET,
    )
    check_inputs(config)
    if config.dry_run:
        print(dry_run(config))
    elif needs_launch(config):
        raise SystemExit(launch("hf_genmodels.training.train_lm", argv, config))
    else:
        with start_run(config) as run:
            train(run, config)


if __name__ == "__main__":
    from hf_genmodels.cli import run_command

    run_command(main)
