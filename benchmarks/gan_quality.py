"""How good the images are after how much CPU time: a class-conditional DCGAN and the preset `modern-fashion`.

The reference is the recipe that people copy: DCGAN, nf 64, binary cross-entropy, Adam 2e-4 (0.5, 0.999),
batches of 64 images of 32 x 32 pixels, fp32, an average of the weights. One process trains both sides in
turn, a few CPU seconds each; measuring does not count. A judge trained on the real images sees both, the
middle 28 x 28 pixels of the reference's.

    python benchmarks/gan_quality.py --data fashion_mnist --lines gan_quality.jsonl
    python benchmarks/gan_quality.py --data fashion_mnist --lines gan_long.jsonl --sides ours --seconds 900
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from gan_common import (
    SAMPLES,
    Ours,
    Scores,
    append_line,
    images_of,
    machine,
    parsed,
    parser,
    preset,
    read_lines,
    rounded,
    show,
)
from gan_reference import Reference

from hf_genmodels.data.images import scaled

CHECKPOINTS = (25, 50, 75, 100, 150, 200, 250, 300)
SIDES = ("reference", "ours")
SLICE = 5.0  # CPU seconds of one side before the other has its turn
FID, RECALL = "fid", "recall"


class Race:
    """Both sides of one seed.

    Args:
        args: The command line.
        seed: The seed.
    """

    def __init__(self, args: argparse.Namespace, seed: int):
        self.args, self.seed = args, seed
        config = preset(args, f"--seed={seed}", *args.ours)
        data = images_of(config)
        self.scores = Scores(data, config, args.judge_steps, args.samples)
        self.note("judge", 0, {"judge accuracy": float(self.scores.judge.config.accuracy or 0)})
        self.note("real", 0, self.scores.of_real())
        self.ours = Ours(config, data) if "ours" in args.sides else None
        self.reference = None
        if "reference" in args.sides:
            images, labels = scaled(data.train.images), torch.from_numpy(data.train.labels[:])
            classes = len(data.label_names)
            self.reference = Reference(images, labels, classes, seed, args.reference_width)

    def run(self) -> None:
        """Train both sides, measuring at every checkpoint."""
        end, before = self.args.checkpoints[-1], 0.0
        for checkpoint in self.args.checkpoints:
            while before < checkpoint:
                before = min(before + SLICE, checkpoint)
                if self.ours:
                    self.ours.train(before, end)
                if self.reference:
                    self.reference.train(before)
            self.measure()

    def measure(self) -> None:
        """Note the scores of both sides."""
        if self.ours:
            with self.ours.drawing() as draw:
                self.note("ours", self.ours.seconds, self.scores.of(draw), self.ours.images)
        if self.reference:
            for name, recomputed in (("reference", False), ("reference, recomputed", True)):
                with self.reference.drawing(recomputed=recomputed) as draw:
                    found, side = self.scores.of(draw), self.reference
                self.note(name, side.seconds, found, side.images)

    def note(self, side: str, seconds: float, scores: dict[str, float], images: int = 0) -> None:
        """Keep one measurement."""
        line = {"seed": self.seed, "side": side, "seconds": round(seconds, 3), "images": images}
        append_line(self.args.lines, {**line, **rounded(scores)})


def of(lines: Sequence[dict[str, Any]], seed: int, side: str) -> list[dict[str, Any]]:
    """Return the measurements of one side."""
    return [line for line in lines if line["seed"] == seed and line["side"] == side]


def best_reference(lines: Sequence[dict[str, Any]], seed: int) -> list[dict[str, Any]]:
    """Return the reference's better measurement at each checkpoint, of both kinds of statistics."""
    pairs = zip(
        of(lines, seed, "reference"), of(lines, seed, "reference, recomputed"), strict=False
    )
    return [min(pair, key=lambda line: line[FID]) for pair in pairs]


def seconds_to(curve: Sequence[dict[str, Any]], fid: float) -> float | None:
    """Return after how many CPU seconds a curve first passes a distance, between its points on a line."""
    before: dict[str, Any] | None = None
    for point in curve:
        if point[FID] <= fid:
            if before is None:
                return float(point["seconds"])
            share = (before[FID] - fid) / (before[FID] - point[FID])
            return float(before["seconds"] + share * (point["seconds"] - before["seconds"]))
        before = point
    return None


def curve_rows(lines: Sequence[dict[str, Any]], seeds: Sequence[int]) -> list[str]:
    """Return a row for each checkpoint: all seeds of each side, separated by slashes."""
    rows = []
    longest: list[dict[str, Any]] = max((of(lines, seed, "ours") for seed in seeds), key=len)
    sides = ("reference", "reference, recomputed", "ours")
    for index, at in enumerate(longest):
        cells = []
        for side in sides:
            points = [c[index] for c in (of(lines, s, side) for s in seeds) if len(c) > index]
            cells.append(" / ".join(f"{point[FID]:.2f}" for point in points))
            cells.append(" / ".join(f"{point[RECALL]:.2f}" for point in points))
        rows.append(f"| {at['seconds']:.0f} | {' | '.join(cells)} |")
    return rows


def end_rows(lines: Sequence[dict[str, Any]], seeds: Sequence[int]) -> list[str]:
    """Return a row for each seed and side at the end."""
    rows = []
    for seed in seeds:
        for side in ("real", *SIDES[:1], "reference, recomputed", "ours"):
            found = of(lines, seed, side)
            if found:
                point = found[-1]
                shown = " | ".join(
                    f"{point[name]:.3f}" for name in ("precision", RECALL, "coverage", "accuracy")
                )
                name = "real training images" if side == "real" else side
                rows.append(
                    f"| {seed} | {name} | {point['images']:,} | {point[FID]:.2f} | {shown} |"
                )
    return rows


def verdicts(lines: Sequence[dict[str, Any]], seeds: Sequence[int]) -> list[str]:
    """Return a row for each seed: time to the reference's best distance, and both at the end."""
    rows, times, ratios = [], [], []
    for seed in seeds:
        reference, ours = best_reference(lines, seed), of(lines, seed, "ours")
        if not reference or not ours:
            continue
        best = min(reference, key=lambda line: line[FID])
        needed = seconds_to(ours, best[FID])
        ratio = ours[-1][FID] / reference[-1][FID]
        ratios.append(ratio)
        if needed is not None:
            times.append(needed / best["seconds"])
        shown = "never" if needed is None else f"at most {needed:.0f}"
        share = "" if needed is None else f"{needed / best['seconds']:.3f}"
        rows.append(
            f"| {seed} | {best[FID]:.2f} @ {best['seconds']:.0f} | {shown} | {share} "
            f"| {reference[-1][FID]:.2f} | {ours[-1][FID]:.2f} | {ratio:.3f} |"
        )
    if times:
        rows += [
            "",
            f"Means over the seeds: {statistics.mean(times):.3f} of the time, "
            f"{statistics.mean(ratios):.3f} of the distance.",
        ]
    return rows


def table(lines: Sequence[dict[str, Any]]) -> list[str]:
    """Return the whole report of the race."""
    seeds = sorted({line["seed"] for line in lines})
    accuracy = next(line["judge accuracy"] for line in lines if line["side"] == "judge")
    ends = [of(lines, seed, "ours") for seed in seeds]
    text = [
        f"The judge is right about {accuracy:.1%} of the real validation images. {machine()}",
        "",
        "| CPU s | reference: FID | recall | with recomputed statistics: FID | recall | ours: FID "
        "| recall |",
        "|---|---|---|---|---|---|---|",
        *curve_rows(lines, seeds),
        "",
        "| seed | at the end | images | FID | precision | recall | coverage | accuracy |",
        "|---|---|---|---|---|---|---|---|",
        *end_rows(lines, seeds),
    ]
    rows = verdicts(lines, seeds)
    if rows:
        text += [
            "",
            "| seed | reference's best FID @ CPU s | ours passes it after CPU s | of its time "
            "| reference at the end | ours at the end | ratio |",
            "|---|---|---|---|---|---|---|",
            *rows,
        ]
    else:
        text += [
            "",
            *(
                f"Seed {end[0]['seed']}: the last FID is {end[-1][FID]:.2f}, "
                f"{end[-1][FID] / min(point[FID] for point in end):.2f} x the best."
                for end in ends
                if end
            ),
        ]
    return text


def add_flags(flags: argparse.ArgumentParser) -> None:
    """Add what this comparison asks for."""
    flags.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    flags.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    flags.add_argument("--checkpoints", nargs="+", type=float, default=list(CHECKPOINTS))
    flags.add_argument("--ours", action="append", default=[], help="change the preset: one flag")
    flags.add_argument("--reference_width", type=int, default=64)
    flags.add_argument("--judge_steps", type=int, help="most training steps of the judge")
    flags.add_argument("--samples", type=int, default=SAMPLES)
    flags.add_argument("--lines", type=Path, default=Path("gan_quality.jsonl"))


def main() -> None:
    """Run the seeds one after the other, keep every measurement and print one table of all."""
    flags = parser(__doc__)
    add_flags(flags)
    args = parsed(flags)
    for seed in args.seeds:
        Race(args, seed).run()
    show(table(read_lines(args.lines)), args.out)


if __name__ == "__main__":
    main()
