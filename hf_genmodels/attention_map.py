"""Attention between a text and what was made of it, as a picture."""

from __future__ import annotations

import codecs
import functools
import logging
import math
import os
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

from hf_genmodels.errors import require_extra
from hf_genmodels.plots import new_figure, save_figure
from hf_genmodels.tokenization.report import byte_characters, printable

logger = logging.getLogger("hf_genmodels")

_INCHES = 0.3  # side of a cell, while the picture stays below _LONGEST
_LONGEST = 24.0
_POINTS = (4.0, 10.0)  # smallest and largest letters
_MAX_LABEL = 24  # characters
_PENDING = "…"  # label of a token that begins a character without ending it


def draw_attention(
    path: str | os.PathLike[str],
    source_tokens: Sequence[str],
    target_tokens: Sequence[str],
    weights: Any,
    title: str | None = None,
    *,
    layer: int = -1,
) -> Path:
    """Draw how much each token of a result looked at each token of its source.

    The picture grows with the texts. Characters that no font of this machine has are shown as code
    points, such as `U+5E8A`, and a warning says so once for each script.

    Args:
        path: The PNG file; its folder is made if it does not exist.
        source_tokens: Labels of the S source tokens, as `token_labels` makes them.
        target_tokens: Labels of the T target tokens.
        weights: (T, S), (heads, T, S) or (layers, heads, T, S), a tensor or an array; the mean over heads
            is drawn. For a batch, as `cross_attentions` of a model's output is, take a row first.
        title: Shown above.
        layer: Which of several layers.

    Returns:
        The file.

    Raises:
        UserError: If matplotlib is not installed.
        ValueError: If the weights do not fit the tokens.
    """
    require_extra("matplotlib", "plots")
    matrix = _matrix(weights, len(source_tokens), len(target_tokens), layer)
    families, missing = _fonts(frozenset("".join([*source_tokens, *target_tokens, title or ""])))
    for script in sorted({unicodedata.name(c, "unnamed").split()[0] for c in missing}):
        _report_missing(script)
    figure = _draw(
        matrix,
        [_label(token, missing) for token in source_tokens],
        [_label(token, missing) for token in target_tokens],
        _label(title or "", missing, limit=80),
        families,
    )
    return save_figure(figure, path, tight=True)


def token_labels(tokenizer: PreTrainedTokenizerFast, ids: Iterable[int]) -> list[str]:
    """Return a readable label for each token.

    Pieces of a byte-level vocabulary are decoded together: where a character is spread over several
    tokens, the last one shows it and the others show an ellipsis. The blank that begins a word is left
    out; a token that is nothing but white space is shown by a symbol.

    Args:
        tokenizer: The tokenizer.
        ids: Token ids of one text.

    Returns:
        One label a token.
    """
    byte_of = {character: byte for byte, character in enumerate(byte_characters())}
    specials = set(tokenizer.all_special_tokens)
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    labels = []
    for piece in tokenizer.convert_ids_to_tokens(list(ids)):
        if piece in specials or not all(character in byte_of for character in piece):
            decoder.reset()
            text = piece.replace("\N{LOWER ONE EIGHTH BLOCK}", " ")
        else:
            text = decoder.decode(bytes(byte_of[character] for character in piece))
        labels.append(printable((text.strip(" ") or text).encode()) if text else _PENDING)
    return labels


@functools.cache
def _report_missing(script: str) -> None:
    """Warn, once for each script."""
    logger.warning(
        "No font of this machine has all %s characters of an attention map; they are shown as code "
        "points, such as U+5E8A. Install a font that has them, such as Noto Sans CJK, and draw again.",
        script,
    )


def _matrix(weights: Any, num_sources: int, num_targets: int, layer: int) -> Any:
    """Return the weights as an array (T, S)."""
    values = torch.as_tensor(weights).detach().float().cpu()
    if values.ndim == 4:
        values = values[layer]
    if values.ndim == 3:
        values = values.mean(dim=0)
    if tuple(values.shape) != (num_targets, num_sources) or not values.numel():
        raise ValueError(
            f"Attention of shape {tuple(torch.as_tensor(weights).shape)} does not fit {num_targets} "
            f"target tokens and {num_sources} source tokens."
        )
    return values.numpy()


def _draw(
    matrix: Any, sources: list[str], targets: list[str], title: str, families: list[str]
) -> Any:
    """Lay the map out: sources from left to right, targets from top to bottom."""
    cell = min(_INCHES, _LONGEST / max(matrix.shape))
    points = min(_POINTS[1], max(_POINTS[0], cell * 72 * 0.6))
    height, width = (size * cell for size in matrix.shape)
    figure = new_figure(width, height, constrained=False)
    axes = figure.add_axes((0, 0, 1, 1))  # labels stand outside, where a tight figure has room
    image = axes.imshow(matrix, cmap="Blues", vmin=0, aspect="auto", interpolation="nearest")
    step = math.ceil(points / 72 / cell)  # in very long texts not every token has room for a label
    font = {"fontsize": points, "family": families, "parse_math": False}
    axes.xaxis.tick_top()
    upright = max(map(len, sources)) > 1
    axes.set_xticks(range(0, len(sources), step), sources[::step], rotation=90 * upright, **font)
    axes.set_yticks(range(0, len(targets), step), targets[::step], **font)
    axes.tick_params(length=0, pad=3)
    axes.spines[:].set_visible(False)
    if title:
        axes.set_title(title, loc="left", family=families, fontsize=11, parse_math=False)
    tall = max(1.0, min(height, 2.5))
    beside = figure.add_axes((1 + 0.15 / width, 1 - tall / height, 0.12 / width, tall / height))
    bar = figure.colorbar(image, cax=beside)
    bar.set_label("attention", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_visible(False)
    return figure


def _label(text: str, missing: frozenset[str], limit: int = _MAX_LABEL) -> str:
    """Return a text that can be drawn, shortened in the middle."""
    shown = "".join(
        f"U+{ord(c):04X}" if c in missing else c if c.isprintable() else "\N{REPLACEMENT CHARACTER}"
        for c in text
    )
    half = limit // 2
    return shown if len(shown) <= limit else f"{shown[:half]}…{shown[-half:]}"


@functools.lru_cache(maxsize=64)
def _fonts(characters: frozenset[str]) -> tuple[list[str], frozenset[str]]:
    """Return families that together have the characters, and the characters that none has."""
    import matplotlib

    missing = {c for c in characters if c.isprintable() and not c.isspace()}
    families: list[str] = []
    for family, path in _candidates(matplotlib.rcParams["font.sans-serif"][0]):
        covered = missing & _characters_of(path)
        if covered or not families:
            families.append(family)
            missing -= covered
        if not missing:
            break
    return families, frozenset(missing)


def _candidates(first: str) -> Iterator[tuple[str, str]]:
    """Yield a family to begin with and then all others, upright sans-serif ones first."""
    from matplotlib.font_manager import fontManager

    yield first, fontManager.findfont(first)
    upright = [
        entry
        for entry in fontManager.ttflist
        if entry.style == "normal"
        and entry.weight in (400, "normal")
        # The Last Resort font draws a placeholder for every character there is.
        and "lastresort" not in entry.fname.lower()
    ]
    for entry in sorted(upright, key=lambda e: ("sans" not in e.name.lower(), e.name, e.fname)):
        yield entry.name, entry.fname


@functools.lru_cache(maxsize=1024)
def _characters_of(path: str) -> frozenset[str]:
    from matplotlib.ft2font import FT2Font

    return frozenset(map(chr, FT2Font(path).get_charmap()))
