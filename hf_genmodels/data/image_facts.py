"""What tables say about images, as numbers and texts: classes, attributes and captions."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hf_genmodels.data.columns import without_surrogates
from hf_genmodels.data.image_columns import Kind, is_flag
from hf_genmodels.errors import UserError, suggest

# More classes than this, and more than half as many as images, are no classes.
_MANY_CLASSES = 20
# What attributes are mostly written as.
_FLAGS = {0: 0, 1: 1, -1: 0, "0": 0, "1": 1, "-1": 0}


@dataclass
class Facts:
    """What is known about the images of a source, one entry an image.

    Attributes:
        kind: What is known.
        label_names: Names of the classes, or of the attributes.
        labels: Ids of the classes, shape (N,), int64, -1 where there is none; or 0 and 1 of the
            attributes, shape (N, A), uint8; or None.
        captions: One or more texts of each image, or None.
        problems: Reasons why images cannot be used, by their number.
    """

    kind: Kind
    label_names: list[str] = field(default_factory=list)
    labels: np.ndarray | None = None
    captions: list[list[str]] | None = None
    problems: dict[int, str] = field(default_factory=dict)


def class_names(features: Mapping[str, Any], column: str) -> list[str] | None:
    """Return the names of the classes of a column, where the table says them.

    Args:
        features: Types of the columns as `datasets` writes them, in JSON.
        column: The column; it may hold lists of classes.
    """
    feature = features.get(column) or {}
    if isinstance(feature, list):
        feature = feature[0]
    feature = feature.get("feature", feature)
    return list(feature["names"]) if feature.get("_type") == "ClassLabel" else None


def class_facts(
    values: Sequence[Any], where: str, *, names: list[str] | None, known: list[str] | None
) -> Facts:
    """Turn labels into ids.

    Args:
        values: Label of each image: text, a whole number, or None.
        where: What the source is called in messages.
        names: Names of numbered classes, if the source says them.
        known: Classes of the training images, if these are others.

    Raises:
        UserError: If a value is no label, a class is unknown, or nearly every image has its own.
    """
    problems: dict[int, str] = {}
    texts: list[str] = []
    for place, value in enumerate(values):
        texts.append(_label_text(value, names, f"Image {place + 1:,} of {where}"))
        if not texts[-1]:
            problems[place] = "has no label"
    distinct = set(texts) - {""}
    label_names = known or names or sorted(distinct, key=_natural_key(distinct))
    if unknown := sorted(distinct - set(label_names)):
        raise UserError(
            f"The label {unknown[0]!r} in {where} is none of the training images' "
            f"{len(label_names)} classes. {suggest(unknown[0], label_names)}"
            f"They are: {', '.join(label_names[:20])}."
        )
    if len(label_names) > max(_MANY_CLASSES, len(texts) / 2) and not known:
        raise UserError(
            f"The labels of {where} are {len(label_names):,} different ones for {len(texts):,} "
            "images, which is too many for classes. Name another --label_column."
        )
    ids = {name: number for number, name in enumerate(label_names)}
    labels = np.array([ids.get(text, -1) for text in texts], dtype=np.int64)
    return Facts("class", label_names, labels, problems=problems)


def flag_facts(rows: Sequence[Sequence[Any]], columns: Sequence[str], where: str) -> Facts:
    """Turn columns of 0 and 1, or -1 and 1, into attributes.

    Args:
        rows: The values of each image.
        columns: Names of the columns, which become those of the attributes.
        where: What the source is called in messages.

    Raises:
        UserError: If a value is something else.
    """
    problems: dict[int, str] = {}
    labels = np.zeros((len(rows), len(columns)), dtype=np.uint8)
    for place, row in enumerate(rows):
        try:
            labels[place] = [_FLAGS[value] for value in row]
        except (KeyError, TypeError):
            missing, labels[place] = _slow_flags(row, columns, f"Row {place + 1:,} of {where}")
            if missing:
                problems[place] = f"has no value in the column {missing[0]!r}"
    return Facts("attributes", list(columns), labels, problems=problems)


def _slow_flags(
    row: Sequence[Any], columns: Sequence[str], place: str
) -> tuple[list[str], list[int]]:
    """Return the columns without a value, and the attributes, of a row with an unusual value."""
    missing, flags = [], []
    for name, value in zip(columns, row, strict=True):
        if value is None or value == "":
            missing.append(name)
        elif not is_flag(value):
            raise UserError(
                f"{place} holds {value!r} in the column {name!r}. "
                "Attributes are 0 and 1, or -1 and 1, or true and false."
            )
        flags.append(int(str(value).strip().lower() in ("1", "1.0", "true")))
    return missing, flags


def list_facts(
    values: Sequence[Any], where: str, *, names: list[str] | None, known: list[str] | None
) -> Facts:
    """Turn lists of the attributes that an image has into 0 and 1.

    Args:
        values: List of names, or of numbers if the source says their names, of each image.
        where: What the source is called in messages.
        names: Names of numbered attributes, if the source says them.
        known: Attributes of the training images, if these are others.

    Raises:
        UserError: If a value is no list, or an attribute is unknown.
    """
    problems = {}
    texts: list[set[str]] = []
    for place, value in enumerate(values):
        if value is None:
            problems[place] = "has no list of attributes"
        elif not isinstance(value, (list, tuple)):
            raise UserError(
                f"Image {place + 1:,} of {where} holds {value!r} where a list of attributes was "
                "expected. Name several --attribute_columns of 0 and 1, or one of lists."
            )
        where_this = f"Image {place + 1:,} of {where}"
        texts.append({_label_text(item, names, where_this) for item in value or ()} - {""})
    distinct: set[str] = set().union(*texts)
    label_names = known or names or sorted(distinct, key=_natural_key(distinct))
    if unknown := sorted(distinct - set(label_names)):
        raise UserError(
            f"The attribute {unknown[0]!r} in {where} is none of those of the training images. "
            f"{suggest(unknown[0], label_names)}They are: {', '.join(label_names[:40])}."
        )
    if not label_names:
        raise UserError(f"No image of {where} has an attribute. Name another --attribute_columns.")
    labels = np.array([[name in own for name in label_names] for own in texts], dtype=np.uint8)
    return Facts("attributes", label_names, labels, problems=problems)


def caption_facts(rows: Sequence[Sequence[Any]], columns: Sequence[str], where: str) -> Facts:
    """Gather the captions of each image: one, a list of them, or several columns.

    Args:
        rows: The values of each image.
        columns: Names of the columns.
        where: What the source is called in messages.

    Raises:
        UserError: If a value is neither text nor a list of texts, or there is no caption at all.
    """
    problems = {}
    captions: list[list[str]] = []
    for place, row in enumerate(rows):
        texts: list[str] = []
        for name, value in zip(columns, row, strict=True):
            items = value if isinstance(value, (list, tuple)) else [value]
            if not all(item is None or isinstance(item, str) for item in items):
                raise UserError(
                    f"Row {place + 1:,} of {where} holds {value!r} in the column {name!r}, "
                    "neither a text nor a list of texts."
                )
            texts += [" ".join(without_surrogates(item).split()) for item in items if item]
        captions.append(list(dict.fromkeys(text for text in texts if text)))
        if not captions[-1]:
            problems[place] = "has no caption"
    if len(problems) == len(captions):
        raise UserError(
            f"All captions of {where} are empty. Name another --text_column; "
            f"{', '.join(columns)} was read."
        )
    return Facts("text", captions=captions, problems=problems)


def _label_text(value: Any, names: list[str] | None, place: str) -> str:
    """Return a label in words; empty where there is none."""
    if isinstance(value, bool):
        value = int(value)
    if isinstance(value, float):
        if math.isnan(value):
            return ""
        value = int(value) if value.is_integer() else value
    if value is None or value == "":
        return ""
    if isinstance(value, str):
        return without_surrogates(value).strip()
    if not isinstance(value, int):
        raise UserError(
            f"{place} has the label {value!r}. Labels are texts or whole numbers; several labels of an "
            "image are given with --attribute_columns."
        )
    if names is None:
        return str(value)
    if value == -1:
        return ""
    if not 0 <= value < len(names):
        raise UserError(
            f"{place} has the label {value}, but there are {len(names)} classes, from 0."
        )
    return names[value]


def _natural_key(texts: set[str]) -> Callable[[str], Any]:
    """Return the key that sorts numbers by their size and everything else by its letters."""
    if all(re.fullmatch(r"-?[0-9]+", text) for text in texts):
        return lambda text: (int(text), text)
    return lambda text: text
