"""Complete training states: written whole or not at all, and resumed to the last bit.

A checkpoint is written to a staging folder, gets a manifest with the size and digest of every file,
is flushed to the disk and renamed. Only then are older ones removed. State files are safetensors
and JSON; nothing is pickled.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from transformers import PreTrainedConfig, PreTrainedModel

from hf_genmodels.config.run import RunConfig
from hf_genmodels.engine.ema import EMA
from hf_genmodels.engine.random_state import restore_rank_state, write_rank_state
from hf_genmodels.engine.run import Run
from hf_genmodels.engine.state import LoopState
from hf_genmodels.errors import UserError
from hf_genmodels.reading import check_alike, is_number, read_header, read_json, read_tensors

logger = logging.getLogger("hf_genmodels")
FORMAT = 1
MANIFEST = "manifest.json"
MODEL_CONFIG = "model_config.json"
STAGING = ".staging-"
# What values of a wrong type or size make the libraries raise.
_DAMAGE = (
    ArithmeticError,
    AttributeError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
FULL = StateDictOptions(full_state_dict=True, cpu_offload=True)


def save_checkpoint(
    run: Run,
    model: nn.Module,
    optimizer: Optimizer,
    schedule: LRScheduler,
    ema: EMA | None = None,
    *,
    identity: dict[str, Any],
    data_state: dict[str, Any] | None = None,
) -> Path | None:
    """Write a complete checkpoint of a run; all ranks call it.

    Args:
        run: The run, whose state is saved too.
        model: The prepared model.
        optimizer: The prepared optimizer.
        schedule: The learning-rate schedule.
        ema: Averaged weights, if there are any.
        identity: What must be the same when the run goes on: data, tokenizer, model, seed.
        data_state: Position of this rank in a stream, JSON-able.

    Returns:
        The folder of the checkpoint, or `None` if the disk had no room; the earlier checkpoint then
        stands and the run goes on.
    """
    folder = run.checkpoints / f"step-{run.state.step:06d}"
    staging = run.checkpoints / f"{STAGING}{folder.name}"
    weights = get_model_state_dict(model, options=FULL)
    moments = get_optimizer_state_dict(model, optimizer, options=FULL)
    averages = None if ema is None else ema.state_dict()
    problem = None
    try:
        if run.is_main:
            shutil.rmtree(staging, ignore_errors=True)
            staging.mkdir(parents=True)
            config = run.accelerator.unwrap_model(model).config
            _write_main_state(staging, run, config, weights, moments, averages, schedule, identity)
    except (OSError, SafetensorError) as error:
        problem = str(error)
    run.accelerator.wait_for_everyone()
    try:
        if problem is None and staging.is_dir():
            write_rank_state(staging, run.accelerator.process_index, data_state)
    except (OSError, SafetensorError) as error:
        problem = str(error)
    (failed,) = run.sum_over_ranks(float(problem is not None))
    if not failed and run.is_main:
        problem = _publish(staging, folder)
    if failed or run.broadcast(problem) is not None:
        if problem is not None:
            logger.warning(
                "The checkpoint of step %d was not saved: %s. The run goes on; the checkpoints "
                "before stay.",
                run.state.step,
                problem,
            )
        if run.is_main:
            shutil.rmtree(staging, ignore_errors=True)
        return None
    run.saved_step = run.state.step
    if run.is_main:
        _rotate(run.checkpoints, run.state.step, run.config.keep_checkpoints)
    return folder


def load_checkpoint(
    run: Run,
    folder: Path,
    model: nn.Module,
    optimizer: Optimizer,
    schedule: LRScheduler,
    ema: EMA | None = None,
    *,
    identity: dict[str, Any],
) -> tuple[LoopState, dict[str, Any] | None]:
    """Restore everything that `save_checkpoint` wrote; all ranks call it.

    Random states are restored too: call it last, right before the loop.

    Returns:
        The loop's state, and this rank's position in a stream if one was saved.

    Raises:
        UserError: If data, tokenizer, model or seed differ from the saved run's.
    """
    try:
        restored = _restore(run, folder, model, optimizer, schedule, ema, identity)
    except UserError:
        raise
    except _DAMAGE as error:
        raise UserError(
            f"The checkpoint '{folder}' is damaged or of another run: "
            f"{' '.join(str(error).split())}. Remove it; the run then goes on from the one before."
        ) from error
    if run.is_main:  # the run may have been killed before it removed them
        _remove(_superseded(run.checkpoints, _step_of(folder), run.config.keep_checkpoints))
    return restored


def _restore(
    run: Run,
    folder: Path,
    model: nn.Module,
    optimizer: Optimizer,
    schedule: LRScheduler,
    ema: EMA | None,
    identity: dict[str, Any],
) -> tuple[LoopState, dict[str, Any] | None]:
    """Read a checkpoint, each part after checking that it fits what is there."""
    state = read_json(folder / "state.json")
    defaults = known_defaults(run.config, run.accelerator.unwrap_model(model))
    check_identity(state["identity"], identity, defaults)
    own: dict[str, Any] = get_model_state_dict(model)
    shapes = {name: tuple(tensor.shape) for name, tensor in own.items()}
    weights: dict[str, Any] = read_tensors(folder / "model.safetensors", shapes)
    for alias, name in state["aliases"].items():
        weights[alias] = weights[name]
    for name, tensor in weights.items():
        if tensor.is_floating_point() != own[name].is_floating_point():
            raise TypeError(f"{name} is of type {tensor.dtype}")
    set_model_state_dict(model, weights, options=FULL)
    groups = state["optimizer"]["param_groups"]
    _check_groups(groups, optimizer.param_groups)
    tensors = _read_moments(folder / "optimizer.safetensors", shapes)
    moments = _join_optimizer(tensors, state["optimizer"])
    set_optimizer_state_dict(model, optimizer, moments, options=FULL)
    _lay_out_as_parameters(optimizer)
    check_alike(state["schedule"], json.loads(json.dumps(schedule.state_dict())), "schedule")
    schedule.load_state_dict(state["schedule"])
    if run.accelerator.scaler is not None and state["scaler"]:
        run.accelerator.scaler.load_state_dict(state["scaler"])
    if ema is not None:
        ema.load_state_dict(read_tensors(folder / "ema.safetensors", ema.shapes()))
    data_state = restore_rank_state(folder, run.accelerator.process_index)
    return _loop_state(state["loop"]), data_state


def _check_groups(given: list[dict[str, Any]], own: list[dict[str, Any]]) -> None:
    """Check what an optimizer is set to; another release may know other settings."""
    if len(given) != len(own):
        raise UserError(
            f"The saved optimizer has {len(given)} groups of parameters, not {len(own)}."
        )
    for number, (theirs, ours) in enumerate(zip(given, own, strict=True)):
        common = (theirs.keys() & ours.keys()) - {"params"}
        check_alike(
            {name: theirs[name] for name in common},
            {name: ours[name] for name in common},
            f"optimizer.param_groups[{number}]",
        )


def _read_moments(file: Path, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """Read an optimizer's tensors: each is a number, or has the shape of its parameter."""
    fitting = {
        name: fact.shape
        for name, fact in read_header(file).items()
        if fact.shape in ((), shapes.get(name.rsplit("|", 1)[0]))
    }
    return read_tensors(file, fitting)


def _loop_state(values: Mapping[str, Any]) -> LoopState:
    """Return where a loop stood.

    Raises:
        UserError: If a value is of another type.
    """
    state = LoopState(**values)
    for name, value in values.items():
        kind = str(LoopState.__annotations__[name])
        whole = isinstance(value, int) or "float" in kind
        if not (is_number(value) and whole) and not (value is None and "None" in kind):
            raise UserError(f"loop.{name} is damaged: it holds {str(value)[:60]!r}.")
    return state


def newest_checkpoint(run: Run) -> Path | None:
    """Return the newest complete checkpoint of a run; all ranks call it.

    Says which checkpoints had to be passed over. `None` means that the run was stopped before it
    saved anything.

    Raises:
        UserError: If there are checkpoints, but none is complete.
    """
    found, damaged = None, {}
    if run.is_main:
        for leftover in run.checkpoints.glob(f"{STAGING}*"):
            shutil.rmtree(leftover, ignore_errors=True)
        for folder in reversed(_saved(run.checkpoints)):
            problem = check_manifest(folder)
            if problem is None:
                found = folder
                break
            damaged[folder.name] = problem
            logger.warning("The checkpoint %s is damaged: %s.", folder, problem)
    found, damaged = run.broadcast((found, damaged))
    if found is None and damaged:
        raise UserError(
            f"No checkpoint in {run.checkpoints} is complete: "
            + "; ".join(f"{name}: {problem}" for name, problem in damaged.items())
            + ". Restore one of them from a copy, or start a new run in another --output_dir."
        )
    if run.is_main:
        if found is None:
            logger.info("nothing was saved in %s yet: starting at step 0", run.output_dir)
        elif damaged:
            logger.warning("Going on from %s, the newest complete one.", found)
    return found


def mean_of_checkpoints(model: nn.Module, checkpoints: Path, count: int) -> EMA:
    """Return the plain mean of the weights of the newest checkpoints (Vaswani et al. 2017, section 6).

    Args:
        model: The model itself, not wrapped for distributed training.
        checkpoints: Folder of the checkpoints, all of them complete.
        count: How many of them, at most.

    Returns:
        An average that is applied to the model as an EMA is; its `num_updates` is the number of
        checkpoints in it.
    """
    folders = _saved(checkpoints)[-count:]
    mean: dict[str, torch.Tensor] = {}
    for number, folder in enumerate(folders):
        for name, tensor in read_tensors(folder / "model.safetensors").items():
            if number == 0:
                mean[name] = tensor.float() if tensor.is_floating_point() else tensor
            elif tensor.is_floating_point():
                mean[name].lerp_(tensor.float(), 1 / (number + 1))
    average = EMA(model, decay=0.0)
    average.set_to(mean)
    average.num_updates = len(folders)
    return average


def check_manifest(folder: Path) -> str | None:
    """Return what is wrong with a checkpoint, or `None` if every file is whole."""
    try:
        manifest = read_json(folder / MANIFEST)
        for name, entry in manifest["files"].items():
            path = folder / name
            if path.name != name:
                return f"{MANIFEST} names {name!r}, which is not a file of its folder"
            if not path.is_file():
                return f"{name} is missing"
            if path.stat().st_size != entry["size"]:
                return f"{name} has {path.stat().st_size} bytes instead of {entry['size']}"
            if _digest(path) != entry["sha256"]:
                return f"{name} has changed"
        if manifest["format"] > FORMAT:
            return f"it was written by a newer release (format {manifest['format']})"
    except FileNotFoundError:
        return f"{MANIFEST} is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{MANIFEST} cannot be read: {error}"
    return None


def known_defaults(config: RunConfig, model: Any) -> dict[str, Any]:
    """Return the default of every option and of every field of the models, named as in an identity.

    Args:
        config: Options of the run.
        model: A model with a configuration, which may consist of several models.
    """
    options = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    sections = {f"{n}.": value for n, value in options.items() if dataclasses.is_dataclass(value)}
    for name, part in model.named_children():
        if isinstance(part, PreTrainedModel):
            sections[f"{name}."] = part.config
    return {
        f"{section}{field.name}": field.default
        for section, values in {"": config, **sections, "model.": model.config}.items()
        for field in dataclasses.fields(values)
        if field.default is not dataclasses.MISSING
    }


def check_identity(
    saved: dict[str, Any], current: dict[str, Any], defaults: Mapping[str, Any]
) -> None:
    """Check that a run goes on with what it began with.

    Args:
        saved: What the run began with.
        current: What it goes on with.
        defaults: What stands for options that the release which began the run did not know.

    Raises:
        UserError: With everything that differs.
    """
    newer = {name: defaults[name] for name in current.keys() & defaults.keys() - saved.keys()}
    saved = newer | saved
    current = json.loads(json.dumps(current))
    differences = [
        f"{name}: the run has {saved.get(name)!r}, now it is {current.get(name)!r}"
        for name in sorted(saved.keys() | current.keys())
        if saved.get(name) != current.get(name)
    ]
    if differences:
        raise UserError(
            "The run cannot go on, because it would not be the same run:\n  "
            + "\n  ".join(differences)
            + "\nRestore these, or start a new run in another --output_dir."
        )


def _write_main_state(
    staging: Path,
    run: Run,
    model_config: PreTrainedConfig,
    weights: dict[str, Any],
    moments: dict[str, Any],
    averages: dict[str, torch.Tensor] | None,
    schedule: LRScheduler,
    identity: dict[str, Any],
) -> None:
    unique, aliases = _without_aliases(weights)
    save_file(unique, staging / "model.safetensors", metadata={"format": "pt"})
    tensors, optimizer_values = _split_optimizer(moments)
    save_file(tensors, staging / "optimizer.safetensors")
    if averages is not None:
        save_file(averages, staging / "ema.safetensors")
    model_config.to_json_file(staging / MODEL_CONFIG)
    scaler = run.accelerator.scaler
    state = {
        "loop": dataclasses.asdict(run.state),
        "identity": identity,
        "aliases": aliases,
        "optimizer": optimizer_values,
        "schedule": schedule.state_dict(),
        "scaler": scaler.state_dict() if scaler is not None else None,
        "world_size": run.accelerator.num_processes,
    }
    (staging / "state.json").write_text(json.dumps(state, indent=1), encoding="utf-8")


def _without_aliases(
    tensors: dict[str, torch.Tensor],
) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Keep one name for tensors that share memory; return the others as alias -> name."""
    unique: dict[str, torch.Tensor] = {}
    aliases: dict[str, str] = {}
    names: dict[tuple[int, torch.Size, tuple[int, ...]], str] = {}
    for name, tensor in tensors.items():
        key = (tensor.data_ptr(), tensor.shape, tensor.stride())
        if tensor.numel() and key in names:
            aliases[name] = names[key]
        else:
            names[key] = name
            unique[name] = tensor.contiguous()
    return unique, aliases


def _split_optimizer(
    moments: dict[str, Any],
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Part an optimizer's state into tensors, named `parameter|entry`, and JSON."""
    tensors = {}
    values: dict[str, dict[str, Any]] = {}
    for parameter, entries in moments["state"].items():
        for entry, value in entries.items():
            if torch.is_tensor(value):
                tensors[f"{parameter}|{entry}"] = value.detach().contiguous().clone()
            else:
                values.setdefault(parameter, {})[entry] = value
    return tensors, {"state": values, "param_groups": moments["param_groups"]}


def _join_optimizer(tensors: dict[str, torch.Tensor], values: dict[str, Any]) -> dict[str, Any]:
    state: dict[str, dict[str, Any]] = {name: dict(v) for name, v in values["state"].items()}
    for key, tensor in tensors.items():
        parameter, entry = key.rsplit("|", 1)
        state.setdefault(parameter, {})[entry] = tensor
    return {"state": state, "param_groups": values["param_groups"]}


def _lay_out_as_parameters(optimizer: Optimizer) -> None:
    """Give moments the strides of their parameters: fused kernels go through both in memory order."""
    for parameter, entries in optimizer.state.items():
        for name, value in entries.items():
            same_shape = torch.is_tensor(value) and value.shape == parameter.shape
            if same_shape and value.stride() != parameter.stride():
                entries[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _publish(staging: Path, folder: Path) -> str | None:
    """Complete a staged checkpoint and rename it.

    Returns:
        What went wrong, or `None`.
    """
    try:
        files = {
            path.name: {"size": path.stat().st_size, "sha256": _digest(path)}
            for path in sorted(staging.iterdir())
        }
        manifest = {"format": FORMAT, "files": files}
        (staging / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        for path in _all_paths(staging):
            _flush(path)
        if folder.exists():  # a damaged one of the same step, which was passed over
            folder.rename(folder.with_name(f"{STAGING}old-{folder.name}"))
        staging.rename(folder)
        _flush(folder.parent)
    except OSError as error:
        return str(error)
    return None


def _rotate(checkpoints: Path, step: int, keep: int) -> None:
    """Remove old checkpoints, and those after a step, which were passed over as damaged."""
    later = [folder for folder in _saved(checkpoints) if _step_of(folder) > step]
    _remove([*_superseded(checkpoints, step, keep), *later, *checkpoints.glob(f"{STAGING}*")])


def _superseded(checkpoints: Path, step: int, keep: int) -> list[Path]:
    """Return the checkpoints up to a step that are not among the newest of them."""
    return [folder for folder in _saved(checkpoints) if _step_of(folder) <= step][:-keep]


def _remove(folders: Iterable[Path]) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def _saved(checkpoints: Path) -> list[Path]:
    """Return the folders of the checkpoints, oldest first."""
    folders = [path for path in checkpoints.glob("step-*") if path.name[5:].isdigit()]
    return sorted(folders, key=_step_of)


def _step_of(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def _all_paths(folder: Path) -> Iterator[Path]:
    yield from folder.iterdir()
    yield folder


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
