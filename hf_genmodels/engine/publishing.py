"""What a run of a language model leaves behind: the published folder, its card, the last words."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerFast

from hf_genmodels.config.lm import TrainLMConfig
from hf_genmodels.data.language import TextData
from hf_genmodels.engine.estimate import format_count, format_duration
from hf_genmodels.engine.logging import warn_if_failing
from hf_genmodels.engine.report import plot_training
from hf_genmodels.engine.run import Run
from hf_genmodels.errors import UserError
from hf_genmodels.hub.card import CardData, Metric, Sample
from hf_genmodels.hub.folder import publish_folder
from hf_genmodels.hub.verify import verify_folder

logger = logging.getLogger("hf_genmodels")


def publish(
    run: Run,
    config: TrainLMConfig,
    bare_model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    data: TextData,
) -> None:
    """Write the published folder with the weights as they are now; all ranks call it."""
    state_dict = run.accelerator.get_state_dict(bare_model)
    if not run.is_main:
        return
    for name in bare_model.all_tied_weights_keys:  # gathered from a sharded model, it is a copy
        state_dict.pop(name, None)
    with warn_if_failing("No loss curve was drawn", (UserError, OSError)):
        plot_training(run.output_dir / "metrics.jsonl", run.report_dir)
    with warn_if_failing(f"The model of step {run.state.step} was not published", OSError):
        if config.lora.r:
            bare_model.save_pretrained(run.output_dir / "adapter")
            bare_model, state_dict = _merged(bare_model), None
        card = _card(run, config, bare_model, data)
        publish_folder(bare_model, tokenizer, run.output_dir, card, state_dict=state_dict)


def finish(run: Run, config: TrainLMConfig) -> None:
    """Verify the published folder, upload it if asked to, and say what to do next."""
    state = run.state
    if not run.is_main:
        return
    run.metrics.close()
    if state.step < config.max_steps and not run.is_complete:
        if run.saved_step != state.step:
            raise UserError(
                f"Stopped after step {state.step} ({run.stop_reason}), but it could not be saved. "
                f"The newest checkpoint is of step {run.saved_step}."
            )
        logger.info(
            "stopped after step %d: %s. Everything is saved; go on with:\n"
            "  genmodels train lm --resume %s",
            state.step,
            run.stop_reason,
            run.output_dir,
        )
        return
    logger.info("%s", verify_folder(run.output_dir))
    if run.stop_reason:
        logger.info("ended after step %d: %s", state.step, run.stop_reason)
    logger.info(
        "%d steps, %s tokens, %s. %sThe model is in %s, its loss curve in %s. Try it:\n"
        '  genmodels generate %s "Once upon a time"',
        state.step,
        format_count(state.tokens),
        format_duration(state.seconds),
        f"Best validation loss {state.best_loss:.4f} at step {state.best_step}. "
        if state.best_loss is not None
        else "",
        run.output_dir,
        run.report_dir / "loss_curve.png",
        run.output_dir,
    )
    if config.push_to_hub:
        _push(run, config)


def _push(run: Run, config: TrainLMConfig) -> None:
    """Upload the published files; a failure loses nothing and is only reported."""
    from huggingface_hub import HfApi

    from hf_genmodels.hub.folder import published_files

    names = [str(path) for path in published_files(run.output_dir)]
    model_id = str(config.hub_model_id)
    try:
        api = HfApi()
        api.create_repo(model_id, private=config.hub_private, exist_ok=True)
        address = api.upload_folder(
            repo_id=model_id,
            folder_path=run.output_dir,
            allow_patterns=names,
            commit_message=f"Model after {run.state.step} steps",
        )
    except Exception as error:  # the network and the hub fail in many ways, none may cost a model
        logger.warning(
            "The upload to %s failed: %s\nThe model is complete in %s; upload it later with:\n"
            "  hf upload %s %s . --exclude 'checkpoints/*'",
            config.hub_model_id,
            error,
            run.output_dir,
            config.hub_model_id,
            run.output_dir,
        )
        return
    logger.info("uploaded to %s", address)


def _merged(model: PreTrainedModel) -> PreTrainedModel:
    """Return a copy with the adapters added to the weights, which loads without peft."""
    import copy

    merge: Any = copy.deepcopy(model).merge_and_unload
    return merge()


def _card(run: Run, config: TrainLMConfig, model: PreTrainedModel, data: TextData) -> CardData:
    """Gather what the model card says."""
    results = _results_of(run)
    metrics = [
        Metric(
            type=name,
            value=results[f"eval_{name}"],
            dataset=data.validation_name,
            num_tokens=results["eval_tokens"],
        )
        for name in ("loss", "perplexity", "bits_per_byte")
        if f"eval_{name}" in results
    ]
    source = config.dataset_name or ", ".join(Path(name).name for name in config.train_file)
    training = {
        "steps": f"{run.state.step:,} of {config.max_steps:,}",
        "tokens": f"{run.state.tokens:,}",
        "tokens in a step": f"{config.global_batch_size * config.block_size:,}",
        "optimiser": config.optim.name,
        "schedule": config.schedule.name,
        "precision": run.accelerator.mixed_precision,
        "seed": config.seed,
        "processes": run.accelerator.num_processes,
        "time": format_duration(run.state.seconds),
    }
    return CardData(
        name=run.output_dir.resolve().name,
        license=config.license,
        base_model=config.model_name_or_path,
        model_id=config.hub_model_id,
        datasets=[config.dataset_name] if config.dataset_name else [],
        training_data={"source": source, "windows": _count(data), "window": config.block_size},
        training=training,
        metrics=metrics,
        samples=[Sample(**sample) for sample in results.get("samples", [])],
        num_parameters=sum(p.numel() for p in model.parameters()),
    )


def _results_of(run: Run) -> dict[str, Any]:
    """Return what was measured at this step, if anything was."""
    path = run.report_dir / "results.json"
    results = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return results if results.get("step") == run.state.step else {}


def _count(data: TextData) -> str:
    return "a stream" if data.windows is None else f"{len(data.windows):,}"
