"""Pictures of a GAN's training: what it draws from the same noise again and again, and its curves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import PreTrainedTokenizerFast

from hf_genmodels.config.gan import TrainGANConfig
from hf_genmodels.data.images import ImageData
from hf_genmodels.data.seeding import mix_seed
from hf_genmodels.engine.report import draw_lines, read_metrics
from hf_genmodels.errors import require_extra
from hf_genmodels.image_grid import draw_animation, draw_grid, grid_image
from hf_genmodels.metrics.image_features import as_bytes
from hf_genmodels.models.modeling_gan import GenGANGenerator
from hf_genmodels.plots import new_figure, save_figure

GRID, REAL_GRID, STRIP, CURVES = "grid.png", "real.png", "progress.webp", "curves.png"
MOVING, REAL_MOVING = "clips.webp", "real_clips.webp"
GRIDS = "grids"
MOST_FRAMES = 60
STRIP_FRAMES = 16  # of a clip beside each other
SECONDS_A_FRAME = 0.1
# Okabe & Ito 2008, as in report.py.
_GREEN = "#009E73"
_GRID_STREAM = 51


class Grid:
    """The grid of a run: rows are classes, attributes or prompts, columns are fixed noise.

    Of clips the grid moves, and the first of each row is also drawn as a strip of its frames.

    Args:
        config: The run's options.
        data: The images.
        generator: Draws them.
        tokenizer: Tokenizer of the prompts, if it reads some.
    """

    def __init__(
        self,
        config: TrainGANConfig,
        data: ImageData,
        generator: GenGANGenerator,
        tokenizer: PreTrainedTokenizerFast | None,
    ):
        self.columns, self.truncation = config.grid.columns, config.grid.truncation
        self.kind = generator.config.conditioning
        self.labels, self.condition = self._rows(config, data, tokenizer)
        rows = len(self.labels) or config.grid.rows
        random = torch.Generator().manual_seed(mix_seed(config.seed, _GRID_STREAM) >> 1)
        # One noise a column, so that a column shows what the condition alone changes.
        count = self.columns if self.labels else rows * self.columns
        noise = torch.randn((count, generator.config.noise_dim), generator=random)
        self.latents = noise.repeat(rows, 1) if self.labels else noise

    def draw(self, generator: GenGANGenerator, report_dir: Path, step: int) -> None:
        """Write `grid.png`, and the same under the number of the step for the strip of progress."""
        condition: dict[str, Any] = {
            name: rows.repeat_interleave(self.columns, 0) for name, rows in self.condition.items()
        }
        images = generator.sample(
            len(self.latents), latents=self.latents, truncation=self.truncation, **condition
        )
        pixels = as_bytes(images).cpu().contiguous().numpy()
        names = (f"{GRIDS}/step-{step:06d}.png", GRID)
        self._write(report_dir, names, MOVING, pixels, self.labels)

    def draw_real(self, data: ImageData, report_dir: Path) -> None:
        """Write `real.png`: training images in the same arrangement."""
        images, labels = data.train.images, data.train.labels
        if self.kind != "class" or labels is None:
            count = min(len(images), max(len(self.labels), 4) * self.columns)
            self._write(report_dir, (REAL_GRID,), REAL_MOVING, np.array(images[:count]), [])
            return
        rows = []
        for index in range(len(self.labels)):
            found = np.flatnonzero(np.asarray(labels) == index)[: self.columns]
            found = np.resize(found, self.columns) if len(found) else np.zeros(self.columns, int)
            rows.append(np.asarray(images[found]))
        self._write(report_dir, (REAL_GRID,), REAL_MOVING, np.concatenate(rows), self.labels)

    def _write(
        self,
        report_dir: Path,
        names: Sequence[str],
        moving: str,
        pixels: np.ndarray,
        labels: Sequence[str],
    ) -> None:
        """Write images (N, C, S, S) as a grid under some names; clips as strips, and as one that moves."""
        columns = self.columns
        if pixels.ndim == 5:
            frames = [grid_image(frame, columns, labels) for frame in pixels.swapaxes(0, 1)]
            draw_animation(
                report_dir / moving, frames, seconds=SECONDS_A_FRAME, hold=SECONDS_A_FRAME
            )
            pixels = pixels[::columns]
            columns = min(pixels.shape[1], STRIP_FRAMES)
            shown = np.linspace(0, pixels.shape[1] - 1, columns).round().astype(int)
            pixels = pixels[:, shown].reshape(-1, *pixels.shape[2:])
        for name in names:
            draw_grid(report_dir / name, pixels, columns, labels)

    def _rows(
        self, config: TrainGANConfig, data: ImageData, tokenizer: PreTrainedTokenizerFast | None
    ) -> tuple[list[str], dict[str, torch.Tensor]]:
        """Return what stands left of each row, and the rows' conditions."""
        most = config.grid.rows
        if self.kind == "class":
            labels = data.label_names[:most]
            return labels, {"class_labels": torch.arange(len(labels))}
        if self.kind == "attributes":
            labels = data.label_names[:most]
            return labels, {"class_labels": torch.eye(len(data.label_names))[: len(labels)]}
        if self.kind == "text":
            assert tokenizer is not None
            images = data.validation or data.train
            captions = [own[0] for own in (images.captions or [])[:most]]
            texts = (config.grid.prompts or captions)[:most]
            encoded = tokenizer(
                texts,
                truncation=True,
                padding=True,
                max_length=config.model.max_position_embeddings,
                return_tensors="pt",
            )
            return texts, {name: encoded[name] for name in ("input_ids", "attention_mask")}
        return [], {}


def draw_progress(report_dir: Path) -> Path | None:
    """Write `progress.webp` out of the grids of all steps, the newest one last."""
    frames = sorted((report_dir / GRIDS).glob("step-*.png"))
    if len(frames) < 2:
        return None
    chosen = np.unique(np.linspace(0, len(frames) - 1, MOST_FRAMES).round().astype(int))
    pictures = [Image.open(frames[index]) for index in chosen]
    newest = [p for p in pictures if p.size == pictures[-1].size]
    return draw_animation(report_dir / STRIP, newest)


def plot_gan(metrics_path: Path, report_dir: Path) -> Path | None:
    """Draw `curves.png`: losses, verdicts, gradient norms and the distance to real images.

    Args:
        metrics_path: The run's `metrics.jsonl`.
        report_dir: Where the picture goes.

    Returns:
        The file, or `None` when nothing was measured yet.

    Raises:
        UserError: If matplotlib is not installed.
    """
    require_extra("matplotlib", "plots")
    records = read_metrics(metrics_path)
    train = [record for record in records if "d_loss" in record]
    measured = [record for record in records if "eval_fid" in record]
    if not train:
        return None
    figure = new_figure(10.0, 7.0)
    (losses, scores), (norms, distance) = figure.subplots(2, 2)
    draw_lines(losses, train, "Losses", {"d_loss": "discriminator", "g_loss": "generator"})
    draw_lines(scores, train, "Mean verdicts", {"real_score": "real", "fake_score": "generated"})
    draw_lines(norms, train, "Norm of gradients",
               {"d_grad_norm": "discriminator", "g_grad_norm": "generator"}, log=True)  # fmt: skip
    distance.set_title("Fréchet distance to real images", loc="left", fontweight="bold")
    distance.set_xlabel("step")
    if measured:
        steps, values = [r["step"] for r in measured], [r["eval_fid"] for r in measured]
        distance.plot(steps, values, color=_GREEN, marker="o", markersize=4)
        limit = measured[-1]["eval_fid_real"]
        distance.axhline(limit, color="#595959", linestyle=":", linewidth=1)
        distance.annotate("real against real", (steps[0], limit), va="bottom", color="#595959")
        distance.set_yscale("log")
    else:
        distance.text(0.5, 0.5, "not measured", ha="center", transform=distance.transAxes)
    return save_figure(figure, report_dir / CURVES)
