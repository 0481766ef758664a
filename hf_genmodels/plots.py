"""Figures that are drawn without a screen and written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

DPI = 150


def new_figure(width: float, height: float, constrained: bool = True) -> Any:
    """Return an empty figure of matplotlib that needs no screen.

    Args:
        width: In inches.
        height: In inches.
        constrained: Whether matplotlib makes room for labels; otherwise the axes stay where they are put.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained" if constrained else None)
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Any, path: str | os.PathLike[str], *, tight: bool = False) -> Path:
    """Write a figure beside its place and move it there, without dates, so that it is reproducible.

    Args:
        figure: A figure of matplotlib.
        path: The PNG file; its folder is made if it does not exist.
        tight: Cut the picture to what is drawn, or widen it where something is drawn beside it.

    Returns:
        The file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(f".{path.name}.{os.getpid()}.png")
    try:
        figure.savefig(
            staged, dpi=DPI, bbox_inches="tight" if tight else None, metadata={"Software": None}
        )
        staged.replace(path)
    finally:
        staged.unlink(missing_ok=True)
    return path
