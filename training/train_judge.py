"""Train a judge of images or clips: a small network by whose features generated ones are measured.

    genmodels train judge --train_file my_images --output_dir runs/judge
    genmodels train judge --train_file sample:fashion_mnist/train.parquet --flip true --output_dir runs/judge
    genmodels train judge --dataset_name my/images --task rotation --output_dir runs/judge
    genmodels train judge --train_file my_clips --num_frames 16 --output_dir runs/judge
    genmodels evaluate runs/gan --file my_images --judge runs/judge

The training itself stands in `hf_genmodels.metrics.judge_training`; `genmodels train gan` and `genmodels
evaluate` call it too, where no judge is given.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from hf_genmodels.config.judge import TASK_OF, TrainJudgeConfig
from hf_genmodels.config.parser import parse_config
from hf_genmodels.config.run import check_new_folder
from hf_genmodels.data.images import load_image_data
from hf_genmodels.engine.precision import has_fast_bf16
from hf_genmodels.engine.uploading import Uploads
from hf_genmodels.errors import UserError
from hf_genmodels.hub.folder import LOCK
from hf_genmodels.hub.judge_card import publish_judge
from hf_genmodels.hub.loading import place_model
from hf_genmodels.metrics.judge_training import describe_accuracy, train_judge
from hf_genmodels.models.modeling_judge import GenJudgeForImageClassification

__all__ = ["main", "train"]

KIND_OF: dict[str, Any] = {task: kind for kind, task in TASK_OF.items() if kind != "none"}
DESCRIPTION = """\
Train a judge on real images: a small network (LeNet-5's shape for grey images up to 32 x 32, else a small residual
network; convolutions over space and time for clips) that learns their classes, attributes or captions, or, where nothing is known about them, how they were
turned. `genmodels evaluate` measures generated images by its features: distances, precision and recall, accuracy,
how well they match their captions. It is published as any model and loads as an image classifier."""


def train(config: TrainJudgeConfig) -> GenJudgeForImageClassification:
    """Train a judge and publish it.

    Args:
        config: The images, the judge and the folder.

    Returns:
        The judge.

    Raises:
        UserError: If something cannot work; nothing is written then.
    """
    folder = Path(config.output_dir or "").expanduser()
    if not config.overwrite:
        check_new_folder(str(folder), LOCK)
    config.check_login()
    device = place_model(torch.nn.Linear(1, 1), config.device).weight.device
    data = load_image_data(config, conditioning=KIND_OF.get(config.task))
    unit = "clips" if config.num_frames > 1 else "images"
    print(f"{unit}: {len(data.train):,} of {data.train_names}, {data.kind}")
    judge = train_judge(
        data, config, config, seed=config.seed, device=device, bf16=has_fast_bf16(device)
    )
    publish_judge(judge.cpu(), folder, data.train_names, config.hub_model_id)
    print(f"judge: {describe_accuracy(judge.config)}")
    print(f"published in {folder}")
    if config.push_to_hub and (report := Uploads(folder, config).finish()):
        print(report)
    print(
        f"measure a generator by it: genmodels evaluate GAN --file {unit.upper()} --judge {folder}"
    )
    return judge


def main(argv: Sequence[str] | None = None) -> None:
    """Run `genmodels train judge`.

    Args:
        argv: Arguments after the command; `None`: those of the process.

    Raises:
        UserError: If something the user gave cannot work.
    """
    config = parse_config(
        TrainJudgeConfig,
        sys.argv[1:] if argv is None else list(argv),
        command="genmodels train judge",
        description=DESCRIPTION,
    )
    if not config.output_dir:
        raise UserError("Name the folder for the judge: --output_dir FOLDER.")
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    train(config)


if __name__ == "__main__":
    from hf_genmodels.cli import run_command

    run_command(main)
