"""The benchmarks of GANs run, at toy size; nothing here is timed."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
SCRIPTS = ("gan_common", "gan_reference", "gan_quality", "gan_training", "gan_drawing", "gan")


@pytest.fixture(scope="module")
def scripts():
    """The scripts as modules; they import each other, as scripts of one folder do."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        yield argparse.Namespace(**{name: importlib.import_module(name) for name in SCRIPTS})
    finally:
        sys.path.remove(str(BENCHMARKS))
        for name in SCRIPTS:
            sys.modules.pop(name, None)


def line(seed: int, side: str, seconds: float, fid: float) -> dict[str, object]:
    scores = dict.fromkeys(("precision", "recall", "coverage", "accuracy"), 0.5)
    place = {"seed": seed, "side": side, "seconds": seconds, "images": 10}
    return {**place, "fid": fid, **scores}


def test_the_better_statistics_of_the_reference_count(scripts):
    lines = [
        line(0, "reference", 10, 5.0),
        line(0, "reference, recomputed", 10, 4.0),
        line(0, "reference", 20, 3.0),
        line(0, "reference, recomputed", 20, 6.0),
    ]
    best = scripts.gan_quality.best_reference(lines, 0)
    assert [point["fid"] for point in best] == [4.0, 3.0]


def test_the_time_to_a_distance_lies_between_the_points_that_it_lies_between(scripts):
    curve = [line(0, "ours", 10, 8.0), line(0, "ours", 20, 4.0), line(0, "ours", 30, 2.0)]
    needed = scripts.gan_quality.seconds_to
    assert needed(curve, 8.5) == 10
    assert needed(curve, 6.0) == pytest.approx(15)
    assert needed(curve, 1.0) is None


def test_the_reference_has_the_networks_of_the_paper_and_learns_something(scripts):
    reference = scripts.gan_reference
    networks = (
        reference.generator_layers(100, 64, 3, 4),
        reference.discriminator_layers(3, 64, 4),
    )
    sizes = [sum(p.numel() for p in network.parameters()) for network in networks]
    assert sizes == [3_576_704, 2_765_568]
    assert networks[0](torch.zeros(2, 100, 1, 1)).shape == (2, 3, 64, 64)
    assert networks[1](torch.zeros(2, 3, 64, 64)).shape == (2, 1, 1, 1)

    images, labels = torch.rand(32, 1, 28, 28), torch.arange(32) % 4
    side = reference.Reference(images, labels, 4, width=4, batch_size=8)
    before = side.generator.layers[0].weight.detach().clone()
    side.step()
    assert side.images == 8
    assert not torch.equal(before, side.generator.layers[0].weight)


def test_recomputed_statistics_are_not_those_of_training(scripts):
    reference = scripts.gan_reference
    side = reference.Reference(torch.rand(8, 1, 28, 28), torch.arange(8) % 2, 2, 0, 4, 4)
    side.step()
    drawn = []
    for recomputed in (False, True):
        with side.drawing(recomputed=recomputed) as draw:
            drawn.append(draw(torch.tensor([0, 1]), torch.Generator().manual_seed(0)))
    assert drawn[0].shape == (2, 1, 32, 32)
    assert not torch.allclose(*drawn)


def test_a_race_measures_both_sides_at_every_checkpoint(scripts, tmp_path, monkeypatch):
    flags = scripts.gan_common.parser("Toy.")
    scripts.gan_quality.add_flags(flags)
    toy = ["--seeds=0", "--checkpoints", "0.01", "0.02", "--samples=80", "--judge_steps=3"]
    toy += ["--ours=--max_train_images=200", "--reference_width=2", f"--cache_dir={tmp_path}/cache"]
    monkeypatch.setattr(sys, "argv", ["gan_quality.py", *toy, f"--lines={tmp_path}/lines.jsonl"])
    args = scripts.gan_common.parsed(flags)
    scripts.gan_quality.Race(args, 0).run()
    lines = [json.loads(text) for text in args.lines.read_text(encoding="utf-8").splitlines()]
    sides = [found["side"] for found in lines]
    assert sides[:2] == ["judge", "real"]
    assert sides[2:] == ["ours", "reference", "reference, recomputed"] * 2
    report = "\n".join(scripts.gan_quality.table(lines))
    assert "ours at the end" in report
    assert "real training images" in report


def test_the_speed_table_holds_everything_against_its_baseline(scripts):
    rows = scripts.gan_training.rows({"bare": [10.0, 20.0, 30.0], "ours": [40.0]}, "bare")
    assert "| bare | 20.0 | 10.0 to 30.0 | 1.000 |" in rows
    assert "| ours | 40.0 | 40.0 to 40.0 | 2.000 |" in rows
