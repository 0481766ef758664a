"""What a card says, kept beside a run's report so that the card can be written again."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hf_genmodels.errors import UserError
from hf_genmodels.hub.card import CardData, Metric, Sample, Translation, versions_here

CARD_FACTS = "report/card.json"
_PARTS: Mapping[str, Callable[..., Any]] = {
    "metrics": Metric,
    "samples": Sample,
    "translations": Translation,
}


def keep_card(folder: Path, card: CardData) -> None:
    """Write what a card says into the folder's report, whole or not at all.

    Args:
        folder: The published folder.
        card: What its card says; the versions of this process are added.
    """
    values = dataclasses.asdict(card)
    if card.versions is None:
        values["versions"] = versions_here()
    file = folder / CARD_FACTS
    file.parent.mkdir(parents=True, exist_ok=True)
    staged = file.with_name(f".{file.name}.tmp")
    text = json.dumps(values, indent=2, ensure_ascii=False, default=str) + "\n"
    staged.write_text(text, encoding="utf-8")
    staged.replace(file)


def kept_card(folder: Path) -> CardData | None:
    """Return what the card of a folder said when it was written, if that was kept.

    Args:
        folder: The published folder.

    Raises:
        UserError: If the file is damaged.
    """
    file = folder / CARD_FACTS
    if not file.is_file():
        return None
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        for name, part in _PARTS.items():
            values[name] = [part(**one) for one in values[name]]
        return CardData(**values)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"'{file}' is damaged or of another release ({error}). Without it the card is written from "
            "the other files of the run: delete it and try again."
        ) from error
