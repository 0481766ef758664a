"""The folder of a Hugging Face Space that shows a model: app.py, requirements.txt, README.md."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import tempfile
from importlib import resources
from pathlib import Path
from typing import Any

from hf_genmodels.auto import FAMILIES, Kind, kind_of, task_of
from hf_genmodels.demo import checks, drawing, pixels, rewriting, writing
from hf_genmodels.errors import UserError
from hf_genmodels.hub.loading import load_model
from hf_genmodels.hub.repository import check_repo_id

NEEDED = ("torch", "transformers", "gradio")
TEMPLATES = {
    "text-generation": "writing.py.j2",
    "text-to-text": "rewriting.py.j2",
    "class-to-image": "drawing.py.j2",
    "text-to-image": "drawing.py.j2",
    "class-to-video": "drawing.py.j2",
    "text-to-video": "drawing.py.j2",
}
OF_KINDS: dict[Kind, str] = {"pixel model": "pixels.py.j2"}
VIDEO_TASKS = ("class-to-video", "text-to-video")
EMOJI = {"text-generation": "📖", "text-to-text": "🔁"}
NEWEST_PYTHON = "3.12"


def write_space(source: str | Path, out: Path, hub_model_id: str | None = None) -> Path:
    """Write the folder of a Space.

    Args:
        source: Folder of the model, or the name of its repository on the hub.
        out: The folder: new or empty.
        hub_model_id: Where the model is, or will be, on the hub.

    Returns:
        The folder.

    Raises:
        UserError: If the model is none of this package or generates nothing, its name on the hub is not
            known, or the folder is in use.
    """
    config: Any = load_model(source).config  # what cannot be loaded here has no place there
    if config.model_type not in FAMILIES or task_of(config).name not in TEMPLATES:
        raise UserError(
            f"--space is for models of this package that generate something; '{source}' is of type "
            f"{config.model_type}."
        )
    out = out.expanduser()
    model_id = _model_id(source, hub_model_id)
    _check_free(out)
    task = task_of(config).name
    files = {
        "app.py": _render(_app_template(config), **_facts(config, model_id, task)),
        "requirements.txt": "".join(f"{line}\n" for line in requirements()),
        "README.md": _render(
            "README.md.j2",
            model_id=model_id,
            name=model_id.split("/")[1],
            emoji=EMOJI.get(task, "🎨"),
            license=_license(source),
            gradio=_gradio_version(),
            python=NEWEST_PYTHON,
        ),
    }
    _write(out, files)
    return out


def _app_template(config: Any) -> str:
    """Return the template of the app; several kinds of models may do one task."""
    return OF_KINDS.get(kind_of(config)) or TEMPLATES[task_of(config).name]


def requirements() -> list[str]:
    """Return what a Space installs: the libraries of this package that it needs, with its floors."""
    found = {}
    for line in importlib.metadata.requires("hf_genmodels") or []:
        requirement = line.split(";")[0].strip()
        name = re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
        found[name] = requirement
    return [found[name] for name in NEEDED]


def _gradio_version() -> str:
    """Return the version that the Space asks for: the installed one, or the oldest that works."""
    try:
        return importlib.metadata.version("gradio")
    except importlib.metadata.PackageNotFoundError:
        return requirements()[-1].split(">=")[1] + ".0"


def _model_id(source: str | Path, given: str | None) -> str:
    """Return the name of the model's repository.

    Raises:
        UserError: If it is not known, or can be none.
    """
    is_folder = Path(source).expanduser().exists()
    if given is None and is_folder:
        raise UserError(
            "--space: where will the Space find the model? Name its repository on the hub with "
            f"--hub_model_id user/name; upload it with: genmodels push {source} user/name"
        )
    model_id = given or str(source)
    check_repo_id(model_id)
    return model_id


def _facts(config: Any, model_id: str, task: str) -> dict[str, Any]:
    """Return what an app has to know about a model, and the limits of what it is given."""
    return {
        "model_id": model_id,
        "name": model_id.split("/")[1],
        "task": task,
        "conditioning": config.to_dict().get("conditioning"),
        "frame_scale": max(1, drawing.LARGE // config.image_size) if task in VIDEO_TASKS else None,
        "most_tokens": writing.MOST_TOKENS,
        "most_beams": rewriting.MOST_BEAMS,
        "most_images": drawing.MOST_IMAGES,
        "most_pictures": pixels.MOST_PICTURES,
        "most_characters": checks.MOST_CHARACTERS,
        "most_in_prompt": drawing.MOST_CHARACTERS,
        "largest_seed": checks.LARGEST_SEED,
    }


def _license(source: str | Path) -> str | None:
    """Return the licence that the model's card names."""
    from huggingface_hub import metadata_load

    card = Path(source).expanduser() / "README.md"
    found = (metadata_load(card) or {}).get("license") if card.is_file() else None
    return found if isinstance(found, str) and re.fullmatch(r"[\w.-]+", found) else None


def _check_free(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise UserError(f"--space {out} is a file. Name a new folder.")
    if out.is_dir() and any(out.iterdir()):
        raise UserError(f"--space {out} is not empty. Name a new folder.")


def _render(template: str, **values: Any) -> str:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_template),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(**values)


def _template(name: str) -> str:
    return (
        resources.files("hf_genmodels.demo").joinpath("templates").joinpath(name).read_text("utf-8")
    )


def _write(out: Path, files: dict[str, str]) -> None:
    """Write a folder, whole or not at all."""
    out.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        for name, text in files.items():
            (staging / name).write_text(text, encoding="utf-8")
        staging.chmod(0o755)
        if out.is_dir():
            out.rmdir()
        staging.rename(out)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
