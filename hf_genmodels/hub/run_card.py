"""What the card of a folder says, from the files that its run left there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_genmodels.config.parser import read_yaml
from hf_genmodels.config.run import file_names
from hf_genmodels.errors import UserError
from hf_genmodels.hub.card import CardData, Sample, Translation
from hf_genmodels.hub.card_credit import credit_of
from hf_genmodels.hub.card_facts import kept_card
from hf_genmodels.hub.card_metrics import metrics_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

RUN_CONFIG, METRICS, RESULTS = "config.yaml", "metrics.jsonl", "report/results.json"
SOURCES = ("model_name_or_path", "refine_from", "decoder_from", "encoder_from")


def card_of_folder(folder: Path, model: PreTrainedModel) -> CardData:
    """Return what was kept for the card, or else what can be read from the files of the run.

    Args:
        folder: The published folder.
        model: The model in it.

    Raises:
        UserError: If a file of the run is damaged.
    """
    card = kept_card(folder)
    if card is not None:
        return card
    name, size = folder.resolve().name, sum(p.numel() for p in model.parameters())
    if not (folder / RUN_CONFIG).is_file():
        return CardData(name=name, num_parameters=size)
    run, results = read_yaml(folder / RUN_CONFIG), _results(folder)
    files = [str(file) for file in run.get("train_file") or []]
    trained_on = run.get("dataset_name") or file_names(files)
    measured_on = file_names([str(file) for file in run.get("validation_file") or []])
    metrics = metrics_of(results, measured_on or trained_on)
    if model.config.model_type == "gen_gan":  # measured against the images it was trained on
        metrics = metrics_of(results, trained_on, "train")
    source, target = run.get("source_lang"), run.get("target_lang")
    return CardData(
        name=name,
        model_id=run.get("hub_model_id"),
        task="translation" if source and target else run.get("task"),
        source_language=source,
        target_language=target,
        license=run.get("license"),
        base_model=next((run[key] for key in SOURCES if run.get(key)), None),
        datasets=[run["dataset_name"]] if run.get("dataset_name") else [],
        training_data={"source": trained_on},
        credit=credit_of(files),
        training=_training(folder, run, results),
        metrics=metrics,
        samples=[Sample(**one) for one in results.get("samples", [])],
        translations=[Translation(**one) for one in results.get("translations", [])],
        health=results.get("health", ""),
        num_parameters=size,
    )


def _training(folder: Path, run: Mapping[str, Any], results: Mapping[str, Any]) -> dict[str, Any]:
    """Return how the model was trained, as far as the run wrote it down."""
    from hf_genmodels.engine.estimate import format_duration
    from hf_genmodels.engine.report import read_metrics

    try:
        records = read_metrics(folder / METRICS)
    except ValueError as error:
        raise UserError(f"'{folder / METRICS}' is damaged: {error}.") from error
    step = results.get("step", records[-1]["step"] if records else 0)
    done = [record for record in records if record["step"] <= step]
    last = {key: value for record in done for key, value in record.items()}
    optim, schedule, loss = (run.get(name) or {} for name in ("optim", "schedule", "loss"))
    facts = {
        "steps": f"{step:,} of {run.get('max_steps', step):,}",
        "images": last.get("images"),
        "tokens": last.get("tokens"),
        "loss": loss.get("adversarial"),
        "optimiser": optim.get("name"),
        "learning rate": optim.get("lr"),
        "schedule": schedule.get("name"),
        "seed": run.get("seed"),
        "processes": run.get("num_processes"),
    }
    if len(done) > 1 and "time" in done[0]:
        facts["time, validations included"] = format_duration(done[-1]["time"] - done[0]["time"])
    return facts


def _results(folder: Path) -> dict[str, Any]:
    file = folder / RESULTS
    if not file.is_file():
        return {}
    try:
        results = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"'{file}' is damaged: {error}.") from error
    return results if isinstance(results, dict) else {}
