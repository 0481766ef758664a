"""Kills training runs at random moments and checks that nothing is lost: `make torture`.

Every run is killed with SIGKILL again and again, resumed each time, and compared with a run that was
left alone. The moments are drawn from a seed: between two writes that must last, inside the write of
a checkpoint, or after a random time.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import random
import re
import shutil
import signal
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests import runs

EVERY_STEP = {"save_every": 1, "eval_every": 2, "max_steps": 6}
FAMILIES: dict[str, dict[str, Any]] = {
    "lm": {"model__residual_dropout": 0.1, "gradient_accumulation_steps": 2},
    "seq2seq": {"model__residual_dropout": 0.1, "ema_decay": 0.9},
    "gan": {"label_column": "label", "model__architecture": "dcgan"},
    "pixels": {"model__residual_dropout": 0.1, "pixels__flip": "true"},
    "lm-adversarial": {"discriminator__dropout": 0.1, "ema_decay": 0.9},
    "clips": {"text_column": "caption", "loss__penalty_every": 2},
}
MOST_WRITES = 140
WRITES_IN_SAVES = 45


@dataclass
class Tally:
    """What was tried, and what was found.

    Attributes:
        kills: Runs that were killed.
        inside_saves: Those of them that left a half-written checkpoint or published folder.
        checkpoints_found: Kills after which a complete checkpoint was there.
        before_the_first: Kills before the first checkpoint had been written.
        steps_repeated: Steps that were computed again.
        runs_compared: Runs that came to their end and equalled the one that was left alone.
    """

    kills: int = 0
    inside_saves: int = 0
    checkpoints_found: int = 0
    before_the_first: int = 0
    steps_repeated: int = 0
    runs_compared: int = 0


class Victim:
    """Runs of one family that are killed.

    Args:
        family: One of `FAMILIES`.
        data: What is trained on.
        folder: Empty folder for the runs.
        seed: Seed of the moments.
    """

    def __init__(self, family: str, data: Path, folder: Path, seed: int):
        self.family, self.data, self.folder = family, data, folder
        self.draw = random.Random(f"{family} {seed}")
        self.tally = Tally()
        self.whole, self.published = folder / "whole", folder / "published"
        self.published.mkdir()
        started = time.monotonic()
        keep = {"prepare": keep_published, "prepare_arguments": (str(self.published),)}
        runs.run(self.command(self.whole), folder / "log", **keep).succeeded()
        self.seconds = time.monotonic() - started

    def command(self, folder: Path) -> list[str]:
        """Return the command that starts a run, or goes on with it."""
        if (folder / "config.yaml").is_file():
            return runs.resume_of(self.family, folder)
        options = {**EVERY_STEP, **FAMILIES[self.family]}
        return runs.command_of(self.family, self.data, output_dir=folder, **options)

    def torture(self, kills: int) -> Tally:
        """Kill runs so many times, bring the last one to its end, and return what was found."""
        number, newest = 0, 0
        parts = self.folder / "run-0"
        while self.tally.kills < kills:
            outcome = self.killed(parts)
            if outcome.status == 0:
                self.compare(parts)
                number, newest = number + 1, 0
                shutil.rmtree(parts)
                parts = self.folder / f"run-{number}"
                continue
            assert outcome.status == -signal.SIGKILL, outcome.output
            self.tally.kills += 1
            newest = self.check(parts, newest, outcome.output)
        runs.run(self.command(parts), self.folder / "log").succeeded()
        self.compare(parts)
        return self.tally

    def killed(self, parts: Path) -> runs.Outcome:
        """Start or resume a run and kill it at some moment, if it does not end before."""
        kind = self.draw.choice(("write", "save", "time"))
        count = self.draw.randint(1, MOST_WRITES if kind == "write" else WRITES_IN_SAVES)
        delay = self.draw.uniform(0, self.seconds)
        place = "staging-step" if kind == "save" else ""
        dying = {"prepare": runs.die_at_event, "prepare_arguments": (count, place)}
        log = self.folder / "log"
        process = runs.start(self.command(parts), log, **({} if kind == "time" else dying))
        if kind == "time":
            process.handle.join(delay)
            if process.handle.is_alive():
                process.send(signal.SIGKILL)
        return process.wait()

    def check(self, parts: Path, newest_before: int, output: str) -> int:
        """Check what a killed run left; return the step of its newest checkpoint."""
        from hf_genmodels.engine.checkpoint import check_manifest
        from hf_genmodels.hub.folder import READY, STAGING, finish_publishing

        begun = re.search(r"going on after step (\d+)", output)
        if begun:
            assert int(begun[1]) == newest_before, output
        half = [*parts.glob("checkpoints/.*"), *parts.glob(STAGING), *parts.glob(READY)]
        self.tally.inside_saves += bool(half)
        newest = max(runs.saved_steps(parts), default=0)
        assert newest >= newest_before, f"step {newest} after step {newest_before}:\n{output}"
        promised = 0
        if newest:
            checkpoint = parts / "checkpoints" / f"step-{newest:06d}"
            assert check_manifest(checkpoint) is None
            loop = json.loads((checkpoint / "state.json").read_text())["loop"]
            promised = newest if loop["best_step"] is None else loop["best_step"]
            self.tally.checkpoints_found += 1
        else:
            self.tally.before_the_first += 1
        if parts.is_dir():
            finish_publishing(parts)
        if promised or (parts / "config.json").is_file():
            step = published_step(parts)
            assert promised <= step <= newest + EVERY_STEP["save_every"], (promised, step, newest)
            same = published_weights(parts) == published_weights(self.published / str(step))
            assert same, f"what is published is not of step {step}:\n{output}"
        measured = steps_measured(parts)
        self.tally.steps_repeated += max(measured - newest, 0)
        return newest

    def compare(self, parts: Path) -> None:
        """Check that a run which came to its end is the one that was left alone."""
        assert runs.losses(parts) == runs.losses(self.whole)
        ours, theirs = runs.states(parts), runs.states(self.whole)
        assert ours.keys() == theirs.keys(), ours.keys() ^ theirs.keys()
        assert not (others := [name for name in ours if ours[name] != theirs[name]]), others
        saved, expected = runs.saved_steps(parts), runs.saved_steps(self.whole)
        assert saved == expected, (saved, expected)
        assert not (left := list(parts.glob("checkpoints/.*"))), left
        self.tally.runs_compared += 1


def keep_published(folder: str) -> None:
    """Let this process keep a copy of the weights of every step that it publishes."""
    from hf_genmodels.engine import publishing

    original = publishing.publish_folder

    def publish_folder(model: Any, tokenizer: Any, root: Path, *others: Any, **options: Any) -> Any:
        published = original(model, tokenizer, root, *others, **options)
        copy = Path(folder) / str(published_step(root))
        for file in weight_files(root):
            (copy / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / file, copy / file)
        return published

    publishing.publish_folder = publish_folder


def weight_files(folder: Path) -> list[Path]:
    """Return the weights in a published folder, relative to it."""
    names = (Path("model.safetensors"), Path("discriminator/model.safetensors"))
    return [name for name in names if (folder / name).is_file()]


def published_weights(folder: Path) -> dict[Path, bytes]:
    """Return the weights in a published folder."""
    return {name: (folder / name).read_bytes() for name in weight_files(folder)}


def published_step(folder: Path) -> int:
    """Return the step whose weights a model card describes."""
    match = re.search(r"(\d+) of 6", (folder / "README.md").read_text(encoding="utf-8"))
    assert match
    return int(match[1])


def steps_measured(folder: Path) -> int:
    """Return the last step in a metrics file whose last line may be torn."""
    file = folder / "metrics.jsonl"
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    return max((int(step) for step in re.findall(r'"step": (\d+),', text)), default=0)


def write_data(folder: Path) -> dict[str, Path]:
    """Write a small text, pairs and images; return what each family is trained on."""
    text, pairs = folder / "train.txt", folder / "pairs.jsonl"
    text.write_text(runs.text(60), encoding="utf-8")
    pairs.write_text(runs.pairs(60), encoding="utf-8")
    (folder / "images").mkdir()
    images = runs.write_images(folder / "images")
    of_text, of_images = ("lm", "lm-adversarial"), ("gan", "pixels", "clips")
    return dict.fromkeys(of_text, text) | dict.fromkeys(of_images, images) | {"seq2seq": pairs}


def main() -> None:
    """Kill runs of all families and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200, help="over all families")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    options = parser.parse_args()
    total = Tally()
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"HF_GENMODELS_CACHE": f"{folder}/cache", "HF_HUB_OFFLINE": "1"}
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        data = write_data(Path(folder))
        for number, family in enumerate(options.families):
            kills = (options.kills + number) // len(options.families)
            place = Path(folder) / family
            place.mkdir()
            tally = dataclasses.asdict(
                Victim(family, data[family], place, options.seed).torture(kills)
            )
            print(family, line_of(tally), sep=": ", flush=True)
            total = Tally(
                *(a + b for a, b in zip(dataclasses.astuple(total), tally.values(), strict=True))
            )
    print("all", line_of(dataclasses.asdict(total)), "nothing lost", sep=": ")


def line_of(tally: dict[str, int]) -> str:
    """Return a tally as one line."""
    return ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in tally.items())


if __name__ == "__main__":
    main()
