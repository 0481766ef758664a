"""Load a model from a folder or the hub, with words for everything that can be wrong with it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_genmodels.auto import FAMILIES, Kind, image_processor_for, kind_of, resolve, task_of
from hf_genmodels.errors import UserError
from hf_genmodels.hub.folder import (
    IMAGE_PROCESSOR,
    TARGET_TOKENIZER,
    companion_names,
    finish_publishing,
    no_progress_bars,
)
from hf_genmodels.hub.model_files import (
    HUB_ID,
    check_parameters,
    check_weights,
    no_folder,
    no_model,
    read_config,
)
from hf_genmodels.reading import TensorFacts, read_header, read_json, read_tensors

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ADAPTER = "adapter_config.json"


def model_folder(path: str | Path) -> Path:
    """Check that a folder holds a model, and return it.

    Cheap: reads config.json and the headers of the weight files.

    Args:
        path: An output folder, a published folder, or any folder that transformers loads.

    Raises:
        UserError: If there is no such folder, it holds no model, or its files are damaged.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise UserError(no_folder(str(path), folder))
    finish_publishing(folder)
    if is_checkpoint(folder):
        model_folder(run_folder(folder))
        return folder
    config_file = folder / "config.json"
    if not config_file.is_file():
        raise UserError(no_model(folder))
    read_config(config_file)
    read_config(config_file, check_weights(folder))
    if (settings := folder / "generation_config.json").is_file():
        read_json(settings)
    if (folder / ADAPTER).is_file():
        raise UserError(
            f"'{folder / ADAPTER}' would have weights of another place loaded. Load the model in "
            "Python and save it with the adapter merged, if you trust both."
        )
    return folder


def is_checkpoint(folder: Path) -> bool:
    """Tell whether a folder is a training state, `OUT/checkpoints/step-...`."""
    return (folder / "state.json").is_file() and not (folder / "config.json").is_file()


def run_folder(checkpoint: Path) -> Path:
    """Return the output folder that a training state belongs to."""
    return checkpoint.resolve().parent.parent


def model_kind(source: str | Path) -> Kind:
    """Tell from its configuration what a model is.

    Args:
        source: A folder, a checkpoint of a run, or the name of a repository on the hub.

    Returns:
        What commands call it. Of the models of transformers' own, those that make one text of
        another are `seq2seq` and all others are taken for language models.

    Raises:
        UserError: If there is no such model, or its type is unknown.
    """
    config = _config_of(source)
    if config.model_type in FAMILIES:
        return kind_of(config)
    return "seq2seq" if config.is_encoder_decoder else "language model"


def refuse_companion(source: str | Path | None, given: str = "") -> None:
    """Refuse a model that belongs to another one, such as its discriminator.

    Args:
        source: What was given as a model that generates; `None`: nothing.
        given: What to call it in the message; by default its name.

    Raises:
        UserError: With the folder of the model that it belongs to.
    """
    if source is None:
        return
    folder = Path(source).expanduser()
    known = {name for family in FAMILIES.values() for name in family.companions}
    if folder.name in known and folder.name in companion_names(folder.parent):
        raise UserError(
            f"{given or repr(str(source))} is a {folder.name}: it generates nothing. Give the folder of "
            f"the model that it belongs to, '{folder.parent}'."
        )


def load_model(source: str | Path, **kwargs: Any) -> PreTrainedModel:
    """Load a model of any kind without running code from its folder.

    Model types of this package load through its own classes, those of transformers through theirs.

    Args:
        source: A folder, a checkpoint of a run (its weights as they are trained, not their
            average), or the name of a repository on the hub.
        **kwargs: Passed to `from_pretrained`, such as `dtype`.

    Returns:
        The model in eval mode, on the CPU.

    Raises:
        UserError: If it cannot be loaded, or weights are missing from it.
    """
    place = _place(source)
    auto_class = _auto_class(source)
    if isinstance(place, Path) and is_checkpoint(place):
        return _load_checkpoint(place, auto_class)
    return _from_pretrained(auto_class, source, place, **kwargs)


def load_companion(source: str | Path, name: str) -> PreTrainedModel | None:
    """Load a model that was published in a subfolder of another one, such as a discriminator.

    Args:
        source: Folder of the other model, of one of the package's types, or the name of its
            repository on the hub.
        name: The subfolder; see `Family.companions`.

    Returns:
        The model in eval mode, on the CPU; `None` if there is none.

    Raises:
        UserError: If there is one, but it cannot be loaded.
    """
    place = _place(source)
    family = FAMILIES.get(_config_of(source).model_type)
    if family is None or name not in family.companions:
        return None
    model_class = resolve(family.companions[name][1])
    if not isinstance(place, Path):
        if not _is_on_hub(place, f"{name}/config.json"):
            return None
        return _from_pretrained(model_class, source, place, subfolder=name)
    if name not in companion_names(place):
        return None
    model_folder(place / name)
    return _from_pretrained(model_class, place / name, place / name)


def load_tokenizer(source: str | Path) -> Any:
    """Load the tokenizer that stands beside a model.

    Args:
        source: A folder, or the name of a repository on the hub.

    Returns:
        The tokenizer, a `PreTrainedTokenizerFast`.

    Raises:
        UserError: If there is none, or it cannot be loaded.
    """
    from transformers import AutoTokenizer

    from hf_genmodels.tokenization import saving

    place = _place(source)
    if isinstance(place, Path):
        return saving.load_tokenizer(run_folder(place) if is_checkpoint(place) else place)
    try:
        return AutoTokenizer.from_pretrained(place, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise UserError(_cannot_load(source, place, error)) from error


def load_tokenizer_if_any(source: str | Path) -> Any | None:
    """Load the tokenizer that stands beside a model that may have none.

    Args:
        source: A folder, or the name of a repository on the hub.

    Returns:
        The tokenizer; `None` if the model does not read texts.

    Raises:
        UserError: If it reads texts, but its tokenizer cannot be loaded.
    """
    config = _config_of(source)
    if config.model_type in FAMILIES and not task_of(config).reads_texts:
        return None
    return load_tokenizer(source)


def load_image_processor_if_any(source: str | Path) -> Any | None:
    """Load what prepares images for a model, if it reads some.

    Args:
        source: A folder, a checkpoint of a run, or the name of a repository on the hub.

    Returns:
        The processor, or `None` if the model reads no images.

    Raises:
        UserError: If it reads images, but its processor cannot be loaded.
    """
    config = _config_of(source)
    if config.model_type not in FAMILIES or not (name := image_processor_for(config)):
        return None
    place = _place(source)
    if isinstance(place, Path) and is_checkpoint(place):
        place = run_folder(place)
    try:
        file = place / IMAGE_PROCESSOR if isinstance(place, Path) else None
        fields = read_json(file or _downloaded(str(place), IMAGE_PROCESSOR))
        return resolve(name)(**fields)
    except UserError:
        raise
    except (OSError, ValueError, TypeError, AttributeError, OverflowError) as error:
        raise UserError(_cannot_load(source, place, error)) from error


def load_target_tokenizer(source: str | Path) -> Any | None:
    """Load the tokenizer of what a model writes, if that is not the one of what it reads.

    Args:
        source: A folder, a checkpoint of a run, or the name of a repository on the hub.

    Returns:
        The tokenizer, a `PreTrainedTokenizerFast`, or `None`.

    Raises:
        UserError: If there is one, but it cannot be loaded.
    """
    from transformers import AutoTokenizer

    from hf_genmodels.tokenization import saving

    place = _place(source)
    if not isinstance(place, Path):
        if not _is_on_hub(place, f"{TARGET_TOKENIZER}/tokenizer.json"):
            return None
        try:
            return AutoTokenizer.from_pretrained(
                place, subfolder=TARGET_TOKENIZER, trust_remote_code=False
            )
        except (OSError, ValueError) as error:
            raise UserError(_cannot_load(source, place, error)) from error
    folder = (run_folder(place) if is_checkpoint(place) else place) / TARGET_TOKENIZER
    return saving.load_tokenizer(folder) if folder.is_dir() else None


def place_model(model: Any, device: str | None = None, *, int8: bool = False) -> Any:
    """Put a loaded model where it shall compute.

    Args:
        model: The model.
        device: A name such as `cpu`, `cuda:1` or `mps`. `None`: the accelerator, if there is one.
        int8: Compute with 8-bit weights, on the CPU.

    Returns:
        The model.

    Raises:
        UserError: If the device cannot be used, or 8-bit weights do not go with it.
    """
    import torch

    if int8:
        from hf_genmodels.models.inference import Int8Mixin

        if device not in (None, "cpu"):
            raise UserError(f"--int8 computes on the CPU, not on --device {device}.")
        if not isinstance(model, Int8Mixin):
            raise UserError(
                f"--int8 is for models of this package, not for {type(model).__name__}."
            )
        try:
            return model.quantize_int8()
        except ValueError as error:
            raise UserError(f"--int8: {error}") from error
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    device = device or (accelerator.type if accelerator else "cpu")
    try:
        return model.to(device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {device} cannot be used: {error}") from error


def _place(source: str | Path) -> str | Path:
    """Return a checked folder, or the name of a repository on the hub."""
    is_id = isinstance(source, str) and HUB_ID.fullmatch(source)
    if is_id and not Path(source).exists():
        return str(source)
    return model_folder(source)


def _is_on_hub(repo_id: str, name: str) -> bool:
    """Tell whether a repository on the hub has a file; offline, whether it is kept here.

    Raises:
        UserError: If the hub cannot be asked.
    """
    from huggingface_hub import hf_hub_download, is_offline_mode
    from huggingface_hub.errors import EntryNotFoundError, HTTPError, LocalEntryNotFoundError

    try:
        hf_hub_download(repo_id, name)
    except LocalEntryNotFoundError as error:
        if is_offline_mode():
            return False
        raise UserError(_cannot_load(repo_id, repo_id, error)) from error
    except EntryNotFoundError:
        return False
    except (OSError, HTTPError) as error:
        raise UserError(_cannot_load(repo_id, repo_id, error)) from error
    return True


def _config_of(source: str | Path) -> Any:
    """Return the configuration of a model.

    Raises:
        UserError: If there is no such model, or its type is unknown.
    """
    from transformers import AutoConfig

    place = _place(source)
    if isinstance(place, Path) and is_checkpoint(place):
        place = run_folder(place)
    try:
        if not isinstance(place, Path):
            read_config(_downloaded(place, "config.json"))
        return AutoConfig.from_pretrained(place, trust_remote_code=False)
    except UserError:
        raise
    except Exception as error:  # a configuration trips over its values in its own ways
        raise UserError(_cannot_load(source, place, error.__cause__ or error)) from error


def _downloaded(repo_id: str, name: str) -> Path:
    """Return a file of a repository on the hub.

    Raises:
        OSError: If there is none, or the hub cannot be asked.
    """
    from transformers.utils import cached_file

    return Path(str(cached_file(repo_id, name)))


def _facts_of(place: str | Path, subfolder: str) -> dict[str, TensorFacts]:
    """Check configuration and weights, and return what the headers of the weights say."""
    from huggingface_hub.errors import EntryNotFoundError

    prefix = f"{subfolder}/" if subfolder else ""
    folder = place
    if not isinstance(folder, Path):
        folder = _downloaded(str(place), f"{prefix}config.json").parent
        try:
            _downloaded(str(place), f"{prefix}model.safetensors")
        except (OSError, EntryNotFoundError):
            index = _downloaded(str(place), f"{prefix}model.safetensors.index.json")
            for name in sorted(set(read_json(index).get("weight_map", {}).values())):
                _downloaded(str(place), f"{prefix}{name}")
    facts = check_weights(folder)
    read_config(folder / "config.json", facts)
    return facts


def _on_meta(model_class: Any, place: str | Path, subfolder: str) -> Any:
    """Make a model that takes no memory, as its configuration says."""
    import torch
    from transformers import AutoConfig

    config_class = getattr(model_class, "config_class", None) or AutoConfig
    config = config_class.from_pretrained(place, subfolder=subfolder, trust_remote_code=False)
    make = getattr(model_class, "from_config", model_class)
    with torch.device("meta"):
        return make(config)


def _auto_class(source: str | Path) -> Any:
    """Return the Auto class that loads a model of this type."""
    import transformers

    config = _config_of(source)
    if config.model_type in FAMILIES:
        return getattr(transformers, FAMILIES[config.model_type].head)
    if config.is_encoder_decoder:
        return transformers.AutoModelForSeq2SeqLM
    return transformers.AutoModelForCausalLM


def _from_pretrained(
    model_class: Any, source: str | Path, place: str | Path, **kwargs: Any
) -> PreTrainedModel:
    """Load a model and check that nothing is missing."""
    subfolder = kwargs.get("subfolder", "")
    try:
        facts = _facts_of(place, subfolder)
        check_parameters(_on_meta(model_class, place, subfolder), facts, str(source))
        with no_progress_bars():
            model, info = model_class.from_pretrained(
                place,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
                **kwargs,
            )
    except UserError:
        raise
    except Exception as error:  # a damaged model trips over its values in its own ways
        raise UserError(_cannot_load(source, place, error.__cause__ or error)) from error
    wrong = sorted(info["missing_keys"]) + sorted(str(key) for key in info["mismatched_keys"])
    if wrong:
        raise UserError(
            f"The weights in '{source}' do not fit its config.json: {len(wrong)} of the model's "
            f"tensors are missing or have another shape, such as {wrong[0]}."
        )
    return model.eval()


def _load_checkpoint(folder: Path, auto_class: Any) -> PreTrainedModel:
    """Load the weights of a training state into the model that its run publishes."""
    import torch
    from transformers import AutoConfig

    try:
        state = read_json(folder / "state.json")
        config_file = run_folder(folder) / "config.json"
        read_config(config_file, read_header(folder / "model.safetensors"))
        config = AutoConfig.from_pretrained(run_folder(folder), trust_remote_code=False)
        weights: Mapping[str, Any] = read_tensors(folder / "model.safetensors")
        weights = {**weights, **{alias: weights[n] for alias, n in state["aliases"].items()}}
        family = FAMILIES.get(config.model_type)
        own = f"{family.name}." if family else ""
        if any(name.startswith(own) for name in weights):  # its companions' stand beside its own
            weights = {k.removeprefix(own): v for k, v in weights.items() if k.startswith(own)}
        with torch.device("meta"):
            bare = auto_class.from_config(config)
        facts = {
            name: TensorFacts(tuple(t.shape), "F32" if t.is_floating_point() else "I64")
            for name, t in weights.items()
        }
        check_parameters(bare, facts, str(folder))
        model: PreTrainedModel = auto_class.from_config(config, dtype=torch.float32)
        model.load_state_dict(weights)
    except Exception as error:  # it was checked by nobody since it was written
        raise UserError(
            f"The checkpoint '{folder}' is damaged or of another run: {' '.join(str(error).split())}"
        ) from error
    return model.eval()


def _cannot_load(source: str | Path, place: str | Path, error: BaseException) -> str:
    reason = " ".join(str(error).split())
    if isinstance(place, Path):
        if "trust_remote_code" in reason:
            return (
                f"The model in '{place}' is of a type that only its own code knows, and code from "
                "a model folder is never run here. Load it in Python with trust_remote_code=True "
                "if you trust it."
            )
        return f"The model in '{place}' cannot be loaded: {reason}"
    return (
        f"There is no folder {str(source)!r}, and the hub does not give a model of that name: "
        f"{reason.rstrip('.')}. Give a folder, or check the name, the network and HF_HUB_OFFLINE."
    )
