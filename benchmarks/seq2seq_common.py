"""What the sequence-to-sequence comparisons share: the pairs, Marian and its Trainer, the scores."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
import sacrebleu
import torch
import torch.nn.functional as F
import transformers
from transformers import (
    DataCollatorForSeq2Seq,
    MarianConfig,
    MarianMTModel,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    TrainerCallback,
)

from hf_genmodels.data.buckets import TokenBudgetSampler
from hf_genmodels.data.pairs import PairSource
from hf_genmodels.models.decoding import decode
from hf_genmodels.tokenization import train_bpe

VOCABULARY = 8000
MAX_TOKENS = 100  # longer pairs are left out on every side
MAX_NEW_TOKENS = 128
IGNORE_INDEX = -100
# Name -> the model's size; `toy` only shows that the scripts run.
SIZES = {
    "small": {"d_model": 256, "heads": 4, "ffn": 1024, "layers": 3, "vocabulary": VOCABULARY},
    "toy": {"d_model": 32, "heads": 2, "ffn": 64, "layers": 1, "vocabulary": 400},
}


@dataclass
class Part:
    """Pairs of one split as texts and as token ids, each side ending with eos."""

    sources: list[str]
    targets: list[str]
    source_ids: list[list[int]]
    target_ids: list[list[int]]

    def batches(self, pad: int, rows: int = 32) -> Iterator[dict[str, torch.Tensor]]:
        """Yield all pairs, sorted by length, as padded batches with labels."""
        order = sorted(range(len(self.source_ids)), key=lambda i: len(self.target_ids[i]))
        for start in range(0, len(order), rows):
            chosen = order[start : start + rows]
            sources = padded([self.source_ids[i] for i in chosen], pad)
            labels = padded([self.target_ids[i] for i in chosen], IGNORE_INDEX)
            yield {"input_ids": sources, "attention_mask": sources.ne(pad).long(), "labels": labels}


class Pairs:
    """Training, validation and test pairs with one joint tokenizer."""

    def __init__(self, args: argparse.Namespace):
        train = read_pairs(args.train_file)
        self.tokenizer = train_bpe(
            (text for pair in train for text in pair),
            vocab_size=SIZES[args.size]["vocabulary"],
            model_max_length=1 << 20,
        )
        self.train = tokenized(train, self.tokenizer)
        self.validation = tokenized(read_pairs(args.validation_file), self.tokenizer)
        self.test = tokenized(read_pairs(args.test_file)[: args.max_test], self.tokenizer)


def read_pairs(path: str) -> list[tuple[str, str]]:
    """Return the (English, Spanish) pairs of a table with a column `translation`."""
    source = PairSource(files=[path], source_lang="en", target_lang="es")
    return [(pair.source, pair.target) for pair in source.pairs()]


def tokenized(pairs: Sequence[tuple[str, str]], tokenizer: PreTrainedTokenizerBase) -> Part:
    """Return the pairs that are short enough on both sides."""
    ids = [
        [[*row, tokenizer.eos_token_id] for row in tokenizer(list(texts))["input_ids"]]
        for texts in zip(*pairs, strict=True)
    ]
    kept = [i for i in range(len(pairs)) if max(len(ids[0][i]), len(ids[1][i])) <= MAX_TOKENS]
    return Part(
        [pairs[i][0] for i in kept],
        [pairs[i][1] for i in kept],
        [ids[0][i] for i in kept],
        [ids[1][i] for i in kept],
    )


def padded(rows: Sequence[Sequence[int]], value: int) -> torch.Tensor:
    """Return rows of ids as one tensor, filled up on the right."""
    width = max(len(row) for row in rows)
    return torch.tensor([[*row, *[value] * (width - len(row))] for row in rows])


def token_batches(
    pairs: Pairs, max_tokens: int, seed: int, counts: list[tuple[int, int, int]]
) -> Iterator[dict[str, torch.Tensor]]:
    """Yield batches of our sampler for ever, noting in `counts` what `Batches` notes."""
    sources, targets = pairs.train.source_ids, pairs.train.target_ids
    lengths = [np.array([len(row) for row in rows]) for rows in (sources, targets)]
    pad = pairs.tokenizer.pad_token_id
    for batch in TokenBudgetSampler(*lengths, max_tokens=max_tokens, seed=seed):
        ids = padded([sources[i] for _, i in batch], pad)
        labels = padded([targets[i] for _, i in batch], IGNORE_INDEX)
        mask, counted = ids.ne(pad), int(labels.ne(IGNORE_INDEX).sum())
        counts.append((counted, counted + int(mask.sum()), ids.numel() + labels.numel()))
        yield {"input_ids": ids, "attention_mask": mask.long(), "labels": labels}


def marian_model(size: str, tokenizer: PreTrainedTokenizerBase) -> MarianMTModel:
    """Return a new Marian model: post-norm, sinusoids, one tied embedding, dropout 0.1."""
    shape = SIZES[size]
    config = MarianConfig(
        vocab_size=len(tokenizer),
        d_model=shape["d_model"],
        encoder_layers=shape["layers"],
        decoder_layers=shape["layers"],
        encoder_attention_heads=shape["heads"],
        decoder_attention_heads=shape["heads"],
        encoder_ffn_dim=shape["ffn"],
        decoder_ffn_dim=shape["ffn"],
        max_position_embeddings=256,
        activation_function="relu",
        dropout=0.1,
        attention_dropout=0.0,
        activation_dropout=0.0,
        scale_embedding=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        decoder_start_token_id=tokenizer.pad_token_id,
        forced_eos_token_id=None,
    )
    return MarianMTModel(config)


class Batches(DataCollatorForSeq2Seq):
    """The usual collator, which also counts what it returns."""

    def __call__(self, features: list[dict], return_tensors: str | None = None) -> dict:
        """Pad a batch and note its target tokens, its real tokens and its slots."""
        batch = super().__call__(features, return_tensors)
        real = int(batch["attention_mask"].sum())
        targets = int(batch["labels"].ne(IGNORE_INDEX).sum())
        slots = batch["input_ids"].numel() + batch["labels"].numel()
        self.__dict__.setdefault("counts", []).append((targets, real + targets, slots))
        return batch


class Clock(TrainerCallback):
    """Note the CPU seconds of training after every step, and measure the model at given times."""

    def __init__(self, seconds: float, measure_at: Sequence[float], measure: Callable[[int], None]):
        self.seconds, self.waiting, self.measure = seconds, sorted(measure_at), measure
        self.start, self.marks = 0.0, []

    def on_train_begin(self, *_args: object, **_kwargs: object) -> None:
        """Start the clock."""
        self.start = cpu_seconds()

    def on_step_end(self, _args: object, state: object, control: object, **_kwargs: object) -> None:
        """Note the time, which does not run while the model is measured."""
        self.marks.append(cpu_seconds() - self.start)
        while self.waiting and self.marks[-1] >= self.waiting[0]:
            before, self.waiting = cpu_seconds(), self.waiting[1:]
            self.measure(state.global_step)
            self.start += cpu_seconds() - before
        if self.marks[-1] >= self.seconds:
            control.should_training_stop = True


def cpu_seconds() -> float:
    """Return the CPU seconds of this process and of its ended children."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def train_marian(
    model: MarianMTModel,
    pairs: Pairs,
    clock: Clock,
    *,
    sampling: str,
    batch_size: int,
    lr: float,
    warmup: int,
    max_steps: int,
    schedule: str = "inverse_sqrt",
    seed: int = 0,
    stride: int = 1,
) -> list[tuple[int, int, int]]:
    """Train with Seq2SeqTrainer and return each batch's (target tokens, real tokens, slots).

    With a stride only each `stride`th batch of the epoch's order is trained on.
    """

    class Strided(Seq2SeqTrainer):
        def _get_train_sampler(self, train_dataset: object = None) -> Iterable[int]:
            sampler = super()._get_train_sampler(train_dataset)
            if stride == 1:
                return sampler
            order = list(sampler)
            starts = range(0, len(order), batch_size * stride)
            return [i for start in starts for i in order[start : start + batch_size]]

    collator = Batches(pairs.tokenizer, model=model, padding="longest")
    columns = zip(pairs.train.source_ids, pairs.train.target_ids, strict=True)
    with tempfile.TemporaryDirectory() as folder:
        pairs.tokenizer.padding_side = "right"
        Strided(
            model=model,
            args=Seq2SeqTrainingArguments(
                folder,
                per_device_train_batch_size=batch_size,
                train_sampling_strategy=sampling,
                learning_rate=lr,
                lr_scheduler_type=schedule,
                warmup_steps=warmup,
                max_steps=max_steps,
                label_smoothing_factor=0.1,
                seed=seed,
                use_cpu=True,
                dataloader_pin_memory=False,
                logging_strategy="no",
                save_strategy="no",
                report_to=[],
                disable_tqdm=True,
            ),
            train_dataset=[
                {"input_ids": s, "attention_mask": [1] * len(s), "labels": t} for s, t in columns
            ],
            data_collator=collator,
            callbacks=[clock],
        ).train()
    return collator.counts[: len(clock.marks)]


@torch.no_grad()
def validation_loss(model: PreTrainedModel, part: Part) -> float:
    """Return the mean cross-entropy per target token, without smoothing, in fp32."""
    was_training = model.training
    model.eval()
    total, tokens = 0.0, 0
    for batch in part.batches(model.config.pad_token_id):
        labels = batch.pop("labels")
        inputs = model.prepare_decoder_input_ids_from_labels(labels)
        logits = model(**batch, decoder_input_ids=inputs, use_cache=False).logits.float()
        total += F.cross_entropy(logits.transpose(1, 2), labels, reduction="sum").item()
        tokens += int(labels.ne(IGNORE_INDEX).sum())
    model.train(was_training)
    return total / tokens


def translated(model: PreTrainedModel, sources: Sequence[list[int]], beams: int) -> list[list[int]]:
    """Translate with our `decode`, which gives what `model.generate` gives, and return the ids."""
    was_training = model.training
    model.eval()
    found = decode(model, sources, num_beams=beams, max_new_tokens=MAX_NEW_TOKENS)
    model.train(was_training)
    return [hypotheses[0].ids for hypotheses in found]


def bleu(outputs: Sequence[list[int]], pairs: Pairs) -> float:
    """Return sacrebleu's BLEU of translations of the test split."""
    texts = pairs.tokenizer.batch_decode(list(outputs))
    return sacrebleu.corpus_bleu(texts, [pairs.test.targets]).score


def work_in_process(script: str, flags: Sequence[object], threads: int) -> dict:
    """Run one contestant in a process of its own and return the JSON of its last line."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, script, *map(str, flags)]
    output = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(output.stdout.splitlines()[-1])


def parser(description: str) -> argparse.ArgumentParser:
    """Return a parser of the flags that all comparisons have."""
    bundled = resources.files("hf_genmodels.samples") / "english_spanish"
    result = argparse.ArgumentParser(description=description.split("\n")[0])
    result.add_argument("--train_file", default=str(bundled / "train.parquet"))
    result.add_argument("--validation_file", default=str(bundled / "validation.jsonl"))
    result.add_argument("--test_file", default=str(bundled / "test.jsonl"))
    result.add_argument("--max_test", type=int, help="use only the first so many test pairs")
    result.add_argument("--size", choices=SIZES, default="small")
    result.add_argument("--threads", type=int, default=1)
    result.add_argument("--out", type=Path, help="also write the table to this file")
    return result


def data_flags(args: argparse.Namespace) -> list[str]:
    """Return the flags that hand the data and the size on to another process."""
    names = ["train_file", "validation_file", "test_file", "size", "threads"]
    flags = [f"--{name}={getattr(args, name)}" for name in names]
    return flags + ([f"--max_test={args.max_test}"] if args.max_test else [])


def machine() -> str:
    """Return one sentence about versions and the CPU."""
    return (
        f"torch {torch.__version__}, transformers {transformers.__version__}, "
        f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}."
    )


def show(lines: Sequence[str], out: Path | None) -> None:
    """Print a table and write it to a file if one was asked for."""
    text = "\n".join(lines) + "\n"
    print(text, flush=True)
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, encoding="utf-8")


def quiet(threads: int, seed: int = 0) -> None:
    """Set the threads and the seed, and keep transformers silent."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
