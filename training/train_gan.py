"""Train a conditional GAN: from a folder of images to a published folder in one command.

    genmodels train gan --train_file my_images/ --output_dir runs/gan
    genmodels train gan --dataset_name user/images --output_dir runs/gan
    genmodels train gan --config modern-fashion --output_dir runs/fashion
    genmodels train gan --resume runs/fashion
    accelerate launch --num_processes 2 training/train_gan.py --config modern-fashion ...

The loop in `train` is the whole method; what it calls stands in `hf_genmodels`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from hf_genmodels.config.gan import TrainGANConfig
from hf_genmodels.config.parser import parse_config
from hf_genmodels.data.images import load_image_data
from hf_genmodels.engine.adversarial import frozen, mean_over_ranks, update
from hf_genmodels.engine.checkpoint import load_checkpoint, newest_checkpoint, save_checkpoint
from hf_genmodels.engine.ema import EMA, averaged
from hf_genmodels.engine.gan import (
    build_tokenizer,
    card_of,
    check_inputs,
    describe,
    dry_run,
    encoded_captions,
    example_of,
    identity_of,
    training_batches,
)
from hf_genmodels.engine.gan_models import DISCRIMINATOR, build_pair
from hf_genmodels.engine.gan_recipe import build_gan_optimizer, recipe_of
from hf_genmodels.engine.gan_report import GRID, Grid, draw_progress, plot_gan
from hf_genmodels.engine.gan_step import Drawn, GANObjective
from hf_genmodels.engine.gan_validation import prepare_measuring, recompute_statistics, validate
from hf_genmodels.engine.launch import launch, needs_launch
from hf_genmodels.engine.objective import added
from hf_genmodels.engine.optim import build_schedule
from hf_genmodels.engine.publishing import finish, publish
from hf_genmodels.engine.run import Run, begin, start_run

PRESETS = Path(__file__).parent / "configs" / "gan"
DEFAULT_PRESET = "modern-fashion"


def train(run: Run, config: TrainGANConfig) -> None:
    """Train until the last step, or until the run is asked to stop; save and publish on the way."""
    checkpoint = newest_checkpoint(run) if config.resume else None
    with run.main_first():
        data = load_image_data(
            config, conditioning=config.model.conditioning, show_progress=run.is_main
        )
        tokenizer = build_tokenizer(config, data, run.output_dir, show_progress=run.is_main)
    measuring = prepare_measuring(run, config, data)
    pair = build_pair(config, data, tokenizer, checkpoint).to(run.accelerator.device)
    run.replicate(pair)
    recipe = recipe_of(config, pair.config.architecture, len(data.train))
    identity = identity_of(config, pair, recipe, data)
    optimizer = build_gan_optimizer(pair, recipe)
    schedule = build_schedule(optimizer, config.schedule, config.max_steps)
    generator, discriminator = pair.generator, pair.discriminator
    ema = EMA(generator, float(config.ema_decay or 0))
    parts = (pair, optimizer, schedule, ema)

    state = position = None
    if checkpoint is not None:
        state, position = load_checkpoint(run, checkpoint, *parts, identity=identity)
    begin(run, state)
    describe(run, config, pair, recipe, data)
    captions = encoded_captions(config, data, tokenizer)
    batches = training_batches(run, config, data, captions, position)
    objective = GANObjective(config, pair, recipe, run)
    grid = Grid(config, data, generator, tokenizer)
    parts_of_step = config.gradient_accumulation_steps
    state = run.state
    pair.train()

    def publish_now() -> None:
        recompute_statistics(generator, data.train, captions, config.seed)
        card = card_of(run, config, pair, recipe, data)
        beside = {DISCRIMINATOR: discriminator}
        publish(run, config, generator, card, tokenizer, companions=beside, plot=plot_gan)

    if state.owes(config.publish):
        with averaged(ema, generator):
            publish_now()
    while state.step < config.max_steps and run.stop_reason is None:
        for turn in range(config.optim.discriminator_steps):
            drawn: list[Drawn] = []
            d_losses: dict[str, torch.Tensor] = {}
            for number in range(parts_of_step):
                with run.accelerator.autocast():
                    place = objective.place(state.step, turn, number)
                    drawn.append(objective.draw(run.to_device(next(batches)), place))
                    found = objective.discriminator_losses(drawn[-1], state.step)
                run.accelerator.backward(found["d_loss"] / parts_of_step)
                d_losses = added(d_losses, found)
            d_norm = update(run, discriminator, optimizer)
            objective.after_update()
        g_losses: dict[str, torch.Tensor] = {}
        with frozen(discriminator):
            for images in drawn:
                with run.accelerator.autocast():
                    found = objective.generator_losses(images)
                run.accelerator.backward(found["g_loss"] / parts_of_step)
                g_losses = added(g_losses, found)
        g_norm = update(run, generator, optimizer)
        measured = mean_over_ranks(run, {**d_losses, **g_losses})
        rate = float(schedule.get_last_lr()[0])
        schedule.step()
        ema.update(generator)

        state.step += 1
        state.examples += config.examples_per_step
        run.clock.tick(config.examples_per_step)
        shown = {name: measured[name] for name in ("d_loss", "g_loss")}
        run.metrics.advance(state.step, run.clock.rate, **shown)
        if state.every(config.log_every) or state.step == 1:
            norms = {"d_grad_norm": d_norm, "g_grad_norm": g_norm}
            run.log(shown=tuple(shown), **measured, lr=rate, **norms)

        last = state.step == config.max_steps
        with run.clock.paused(), averaged(ema if run.is_due(last) else None, generator):
            if state.every(config.eval_every) or last:
                validate(run, config, generator, data, captions, measuring, grid)
                run.stop_if_no_gain()
            saves = state.every(config.save_every) or last or run.stop_reason is not None
            if state.publishes(config.publish, saved=saves):
                publish_now()
        if saves:
            with run.clock.paused():
                save_checkpoint(run, *parts, identity=identity, data_state=batches.position)
    if run.is_main:
        draw_progress(run.report_dir)
    example = example_of(data, pair.config)
    finish(run, config, family="gan", example=example, picture=GRID, plot=plot_gan)


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
        TrainGANConfig,
        argv,
        command="genmodels train gan",
        description="Train a conditional GAN from scratch, or go on from a trained one.",
        presets=PRESETS,
        default_preset=DEFAULT_PRESET,
    )
    check_inputs(config)
    if config.dry_run:
        print(dry_run(config))
    elif needs_launch(config):
        raise SystemExit(launch("hf_genmodels.training.train_gan", argv, config))
    else:
        with start_run(config) as run:
            train(run, config)


if __name__ == "__main__":
    from hf_genmodels.cli import run_command

    run_command(main)
