"""Train a language model against a discriminator of its texts, and publish both.

    genmodels train lm-adversarial --model_name_or_path runs/demo --output_dir runs/adversarial
    genmodels train lm-adversarial --config reinforce --model_name_or_path runs/demo --output_dir ...
    genmodels train lm-adversarial --model_name_or_path runs/book --train_file book.txt --output_dir ...
    genmodels train lm-adversarial --resume runs/adversarial
    accelerate launch --num_processes 2 training/train_lm_adversarial.py --config gumbel ...

The loop in `train` is the whole method; what it calls stands in `hf_genmodels`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from hf_genmodels.config.lm_adversarial import TrainLMAdversarialConfig
from hf_genmodels.config.parser import parse_config
from hf_genmodels.data.language import load_text_data
from hf_genmodels.engine.adversarial import frozen, mean_over_ranks, update
from hf_genmodels.engine.checkpoint import load_checkpoint, newest_checkpoint, save_checkpoint
from hf_genmodels.engine.ema import EMA, averaged
from hf_genmodels.engine.language import training_batches
from hf_genmodels.engine.launch import launch, needs_launch
from hf_genmodels.engine.lm_adversarial import (
    card_of,
    check_inputs,
    describe,
    dry_run,
    identity_of,
)
from hf_genmodels.engine.lm_adversarial_models import (
    DISCRIMINATOR,
    build_networks,
    build_optimizer,
    own_tokenizer,
)
from hf_genmodels.engine.lm_adversarial_report import (
    judge_health,
    plot_adversarial,
    validate,
)
from hf_genmodels.engine.lm_adversarial_step import AdversarialObjective, Texts
from hf_genmodels.engine.objective import added
from hf_genmodels.engine.optim import build_schedule
from hf_genmodels.engine.publishing import finish, publish
from hf_genmodels.engine.run import Run, begin, start_run

PRESETS = Path(__file__).parent / "configs" / "lm_adversarial"
DEFAULT_PRESET = "gumbel"


def train(run: Run, config: TrainLMAdversarialConfig) -> None:
    """Train until the last step, or until the run is asked to stop; save and publish on the way."""
    checkpoint = newest_checkpoint(run) if config.resume else None
    with run.main_first():
        tokenizer = own_tokenizer(config, run.output_dir)
        data = load_text_data(config, tokenizer, seed=config.seed, show_progress=run.is_main)
    networks = build_networks(config, checkpoint).to(run.accelerator.device)
    run.replicate(networks)
    identity = identity_of(config, networks, tokenizer, data)
    optimizer = build_optimizer(networks, config.optim)
    schedule = build_schedule(optimizer, config.schedule, config.max_steps)
    generator, discriminator = networks.generator, networks.discriminator
    ema = EMA(generator, config.ema_decay) if config.ema_decay is not None else None
    parts = (networks, optimizer, schedule, ema)

    state = stream_state = None
    if checkpoint is not None:
        state, stream_state = load_checkpoint(run, checkpoint, *parts, identity=identity)
    begin(run, state)
    describe(run, config, networks, data)
    batches = training_batches(run, config, data, tokenizer, stream_state)
    objective = AdversarialObjective(config, networks, run)
    turns, parts_of_step = (
        config.adversarial.discriminator_steps,
        config.gradient_accumulation_steps,
    )
    state = run.state
    networks.train()

    def publish_now() -> None:
        card, beside = card_of(run, config, networks, data), {DISCRIMINATOR: discriminator}
        plot = plot_adversarial
        publish(run, config, generator, card, tokenizer, companions=beside, plot=plot)

    if state.owes(config.publish):
        with averaged(ema, generator):
            publish_now()
    if state.step and state.every(config.eval_every):  # where it may have been ended before
        judge_health(run, config)
    while state.step < config.max_steps and run.stop_reason is None:
        for turn in range(turns):
            written: list[Texts] = []
            losses: dict[str, torch.Tensor] = {}
            for number in range(parts_of_step):
                with run.accelerator.autocast():
                    batch = run.to_device(next(batches))
                    place = objective.place(state.step, turn, number)
                    last_turn = turn + 1 == turns
                    written.append(objective.write(batch, place, state.step, last_turn=last_turn))
                    found = objective.discriminator_losses(written[-1])
                run.accelerator.backward(found["d_loss"] / parts_of_step)
                losses |= added(losses, found)
            norms = {"d_grad_norm": update(run, discriminator, optimizer)}
        if objective.trains_generator(state.step):
            with frozen(discriminator):
                for texts in written:
                    with run.accelerator.autocast():
                        found = objective.generator_losses(texts)
                    run.accelerator.backward(found["g_loss"] / parts_of_step)
                    losses |= added(losses, found)
            norms["g_grad_norm"] = update(run, generator, optimizer)
            if ema is not None:
                ema.update(generator)
        measured = mean_over_ranks(run, losses)
        rate = float(schedule.get_last_lr()[0])
        schedule.step()

        state.step += 1
        state.examples += config.examples_per_step
        state.tokens += config.tokens_per_step
        run.clock.tick(config.tokens_per_step)
        shown = {name: measured[name] for name in ("d_loss", "g_loss") if name in measured}
        run.metrics.advance(state.step, run.clock.rate, **shown)
        if state.every(config.log_every) or state.step == 1:
            run.log(shown=tuple(shown), **measured, lr=rate, **norms)

        last = state.step == config.max_steps
        with run.clock.paused(), averaged(ema if run.is_due(last) else None, generator):
            if state.every(config.eval_every) or last:
                validate(run, config, generator, tokenizer, data)
                run.stop_if_no_gain()
            saves = state.every(config.save_every) or last or run.stop_reason is not None
            if state.publishes(config.publish, saved=saves):
                publish_now()
        if saves:
            with run.clock.paused():
                data_state = batches.stream_state
                save_checkpoint(run, *parts, identity=identity, data_state=data_state)
    example = ["Once upon a time"]
    finish(run, config, family="lm-adversarial", example=example, plot=plot_adversarial)


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
        TrainLMAdversarialConfig,
        argv,
        command="genmodels train lm-adversarial",
        description="Go on with a trained language model against a discriminator of its texts.",
        presets=PRESETS,
        default_preset=DEFAULT_PRESET,
    )
    check_inputs(config)
    if config.dry_run:
        print(dry_run(config))
    elif needs_launch(config):
        raise SystemExit(launch("hf_genmodels.training.train_lm_adversarial", argv, config))
    else:
        with start_run(config) as run:
            train(run, config)


if __name__ == "__main__":
    from hf_genmodels.cli import run_command

    run_command(main)
