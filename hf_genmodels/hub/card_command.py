"""Write the model card of a published folder again: `genmodels card`.

genmodels card OUT --license cc-by-4.0 --language en
genmodels card --released
"""

from __future__ import annotations

import dataclasses
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from hf_genmodels.config.commands import parse_command
from hf_genmodels.errors import UserError
from hf_genmodels.hub.card import PICTURES, render_card
from hf_genmodels.hub.card_evaluation import keep_evaluation
from hf_genmodels.hub.card_facts import keep_card
from hf_genmodels.hub.folder import CARD_IMAGE, companion_names
from hf_genmodels.hub.loading import is_checkpoint, load_model, model_folder, model_kind
from hf_genmodels.hub.run_card import card_of_folder

RELEASED = "released.yaml"


def write_card(
    folder: str | Path, changes: Mapping[str, Any] | None = None, out: str | Path | None = None
) -> Path:
    """Render the card of a published folder again and write it, whole or not at all.

    An evaluation that stands in the card stays in it.

    Args:
        folder: The published folder.
        changes: Fields of `CardData` that shall say something else. They are kept for the next time.
        out: Another folder, for the card and its pictures; the published folder stays as it is.

    Returns:
        The file.

    Raises:
        UserError: If there is no published model, or a file of its run is damaged.
    """
    source = model_folder(folder)
    if is_checkpoint(source):
        raise UserError(f"'{source}' is a training state and has no card. Give the run's folder.")
    if model_kind(source) == "judge":
        raise UserError(f"'{source}' is a judge; `genmodels train judge` writes its card.")
    model = load_model(source)
    card = dataclasses.replace(card_of_folder(source, model), **(changes or {}))
    target = source if out is None else Path(out).expanduser()
    file = source / "README.md"
    old = file.read_text(encoding="utf-8") if file.is_file() else ""
    text = render_card(card, model.config, folder=source, companions=companion_names(source))
    text = keep_evaluation(text, old)
    target.mkdir(parents=True, exist_ok=True)
    if target.resolve() == source.resolve():
        keep_card(source, card)
    else:
        _copy_pictures(text, source, target)
    staged = target / ".README.md.tmp"
    staged.write_text(text, encoding="utf-8")
    staged.replace(target / "README.md")
    return target / "README.md"


def write_released(runs: str | Path, out: str | Path) -> tuple[list[Path], list[str]]:
    """Write the cards of the released presets whose runs are there.

    Args:
        runs: Folder of the runs' output folders.
        out: Folder of the cards, one folder for each.

    Returns:
        The files, and the names of the presets without a run.
    """
    table = resources.files("hf_genmodels.model_cards").joinpath(RELEASED)
    written, missing = [], []
    for name, values in yaml.safe_load(table.read_text("utf-8")).items():
        run = Path(runs) / values.pop("run")
        if (run / "config.json").is_file():
            written.append(write_card(run, {"name": name, **values}, Path(out) / name))
        else:
            missing.append(f"{name} ({run})")
    return written, missing


def _copy_pictures(text: str, source: Path, target: Path) -> None:
    for name in CARD_IMAGE.findall(text):
        picture = source / name
        inside = picture.resolve().is_relative_to(source.resolve())
        if inside and picture.is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(picture, target / name)
    for name in PICTURES:  # of an earlier card
        if f"({name})" not in text:
            (target / name).unlink(missing_ok=True)


@dataclass
class CardOptions:
    """Options of `genmodels card`."""

    folder: str = ""
    """Published folder."""

    out: str | None = None
    """Folder for the card and its pictures, instead of the published folder itself."""

    name: str | None = None
    """Name of the model."""

    model_id: str | None = None
    """owner/name on the hub, for the examples."""

    license: str | None = None
    """Licence of the weights as the Hub writes it, such as apache-2.0 or cc-by-4.0."""

    language: list[str] = field(default_factory=list)
    """Codes of the model's languages, such as en."""

    summary: str | None = None
    """A sentence or two about the model."""

    limits: str | None = None
    """What it cannot do and should not be used for."""

    credit: str | None = None
    """Who made the training data and under which licence, in Markdown."""

    base_model: str | None = None
    """Name on the hub of the model that it was fine-tuned from."""

    datasets: list[str] = field(default_factory=list)
    """Names on the hub of the datasets it was trained on."""

    tags: list[str] = field(default_factory=list)
    """More tags for the Hub."""

    released: bool = False
    """Write the cards of the released presets, from their runs, into model_cards/ or --out."""

    runs: str = "runs"
    """Folder of these runs."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run `genmodels card`.

    Args:
        argv: Arguments after the command; `None`: those of the process.

    Raises:
        UserError: If there is nothing to write a card for.
    """
    options = parse_command(
        CardOptions,
        argv,
        command="genmodels card",
        description="Write the model card of a published folder again, from what its run left there; an "
        "evaluation stays in it. What is given here is kept for the next time.",
        positionals={"folder": "Published folder, such as the output folder of a run."},
    )
    if options.released:
        written, missing = write_released(options.runs, options.out or "model_cards")
        for preset in missing:
            sys.stderr.write(f"no run of {preset}: its card stays as it is\n")
        if not written:
            raise UserError(
                f"None of the released presets has a run in '{options.runs}'. Train them with `make "
                "demo`, or name another folder with --runs."
            )
    elif not options.folder:
        raise UserError("Name a published folder: genmodels card OUT")
    else:
        others = ("folder", "out", "released", "runs")
        given = {k: v for k, v in vars(options).items() if k not in others and v}
        written = [write_card(options.folder, given, options.out)]
    for file in written:
        sys.stdout.write(f"wrote {file}\n")


if __name__ == "__main__":
    from hf_genmodels.cli import run_command

    run_command(main)
