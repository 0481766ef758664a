"""What a run leaves behind: the published folder and the last words."""

from __future__ import annotations

import json
import logging
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerFast
from transformers.image_processing_utils import BaseImageProcessor

from hf_genmodels.config.fine_tuning import FineTuningConfig
from hf_genmodels.config.optim import OptimConfig, ScheduleConfig
from hf_genmodels.config.run import RunConfig
from hf_genmodels.engine.adapting import merged
from hf_genmodels.engine.estimate import format_count, format_duration
from hf_genmodels.engine.logging import warn_if_failing
from hf_genmodels.engine.report import plot_training
from hf_genmodels.engine.run import Run
from hf_genmodels.environment import describe_hardware
from hf_genmodels.errors import UserError
from hf_genmodels.hub.card import CardData
from hf_genmodels.hub.card_facts import keep_card
from hf_genmodels.hub.folder import publish_folder
from hf_genmodels.hub.verify import verify_folder

logger = logging.getLogger("hf_genmodels")
Plot = Callable[[Path, Path], object]


def publish(
    run: Run,
    config: RunConfig,
    bare_model: PreTrainedModel,
    card: CardData,
    tokenizer: PreTrainedTokenizerFast | None,
    target_tokenizer: PreTrainedTokenizerFast | None = None,
    companions: Mapping[str, PreTrainedModel] | None = None,
    image_processor: BaseImageProcessor | None = None,
    plot: Plot = plot_training,
) -> None:
    """Write the published folder with the weights as they are now; all ranks call it.

    Args:
        run: The run.
        config: Its options.
        bare_model: The model without the wrappers of distributed training.
        card: What the model card says.
        tokenizer: Tokenizer of what the model reads, if it reads.
        target_tokenizer: Tokenizer of what it writes, if that is another one.
        companions: Models that are published in subfolders of these names.
        image_processor: What prepares images for it, if it reads some.
        plot: Draws the curves of `metrics.jsonl` into the folder of the report.
    """
    state_dict = run.accelerator.get_state_dict(bare_model)
    if not run.is_main:
        return
    for name in bare_model.all_tied_weights_keys:  # gathered from a sharded model, it is a copy
        state_dict.pop(name, None)
    _draw_curves(run, plot)
    run.state.unpublished_step = run.state.step
    with warn_if_failing(f"The model of step {run.state.step} was not published", OSError):
        if isinstance(config, FineTuningConfig) and config.lora.r:
            bare_model.save_pretrained(run.output_dir / "adapter")
            bare_model, state_dict = merged(bare_model), None
        publish_folder(
            bare_model,
            tokenizer,
            run.output_dir,
            card,
            state_dict=state_dict,
            target_tokenizer=target_tokenizer,
            companions=companions,
            image_processor=image_processor,
        )
        keep_card(run.output_dir, card)
        run.state.unpublished_step = None
        if run.uploads is not None:
            run.uploads.begin(run.state.step)


def results_of(run: Run) -> dict[str, Any]:
    """Return what was measured at this step, if anything was."""
    path = run.report_dir / "results.json"
    results = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return results if results.get("step") == run.state.step else {}


def training_facts(
    run: Run, optim: OptimConfig, schedule: ScheduleConfig, step_tokens: int
) -> dict[str, Any]:
    """Return how a model was trained, for its card."""
    return {
        "steps": f"{run.state.step:,} of {run.config.max_steps:,}",
        "tokens": f"{run.state.tokens:,}",
        "tokens in a step": f"{step_tokens:,}",
        "optimiser": optim.name,
        "schedule": schedule.name,
        **circumstances(run),
    }


def circumstances(run: Run) -> dict[str, Any]:
    """Return on what and for how long a model was trained, for its card."""
    processes = run.accelerator.num_processes
    return {
        "precision": run.accelerator.mixed_precision,
        "seed": run.config.seed,
        "processes": processes,
        "hardware": describe_hardware(),
        "time": format_duration(run.state.seconds),
        "CPU time": format_duration(run.state.cpu_seconds)
        + (f" on each of {processes} processes" if processes > 1 else ""),
    }


def finish(
    run: Run,
    config: RunConfig,
    *,
    family: str,
    example: Sequence[str],
    picture: str = "loss_curve.png",
    plot: Plot = plot_training,
) -> None:
    """Draw the curves to their end, verify the published folder, upload it if asked to, and say what to do next.

    Args:
        run: The run.
        config: Its options.
        family: What follows `genmodels train`.
        example: Arguments of `genmodels generate` to try the model with.
        picture: What to look at in the report.
        plot: As for `publish`.
    """
    state = run.state
    if not run.is_main:
        return
    run.metrics.close()
    _draw_curves(run, plot)  # what was published may be of a step long ago
    if state.step < config.max_steps and not run.is_complete:
        if run.saved_step != state.step:
            raise UserError(
                f"Stopped after step {state.step} ({run.stop_reason}), but it could not be saved. "
                f"The newest checkpoint is of step {run.saved_step}."
            )
        logger.info(
            "stopped after step %d: %s. Everything is saved; go on with:\n"
            "  genmodels train %s --resume %s",
            state.step,
            run.stop_reason,
            family,
            run.output_dir,
        )
        if run.uploads is not None:
            run.uploads.stop()
        return
    if run.saved_step != state.step:
        raise UserError(
            f"The run ended after step {state.step}, but that could not be saved. The newest checkpoint "
            f"is of step {run.saved_step}: make room and go on with genmodels train {family} --resume "
            f"{run.output_dir}"
        )
    _check_published(run, family)
    logger.info("%s", verify_folder(run.output_dir))
    if run.stop_reason:
        logger.info("ended after step %d: %s", state.step, run.stop_reason)
    logger.info(
        "%d steps, %s %s, %s. %sThe model is in %s; look at %s. Try it:\n"
        "  genmodels generate %s %s",
        state.step,
        format_count(state.tokens if config.unit == "tokens" else state.examples),
        config.unit,
        format_duration(state.seconds),
        f"Best validation {config.best_metric} {state.best_value:.4f} at step {state.best_step}. "
        if state.best_value is not None
        else "",
        run.output_dir,
        run.report_dir / picture,
        run.output_dir,
        shlex.join(example),
    )
    if run.uploads is not None:
        run.uploads.finish()


def _check_published(run: Run, family: str) -> None:
    """Check that the weights which a finished run promises stand in its folder.

    Raises:
        UserError: With what is missing, and how to publish it.
    """
    missing, resume = (
        run.state.unpublished_step,
        f"genmodels train {family} --resume {run.output_dir}",
    )
    if missing == run.state.step:
        raise UserError(
            f"Everything is trained and saved, but the model of step {missing} could not be published. "
            f"Make room and publish it with: {resume}"
        )
    if missing is not None:
        raise UserError(
            f"Everything is trained and saved, but the model of step {missing}, the best one, could not "
            f"be published, and its weights are gone. Publish those of step {run.state.step} with: "
            f"{resume} --publish last"
        )


def _draw_curves(run: Run, plot: Plot) -> None:
    """Draw what was measured so far; a failure is only reported."""
    with warn_if_failing("No curves were drawn", (UserError, OSError)):
        plot(run.output_dir / "metrics.jsonl", run.report_dir)
