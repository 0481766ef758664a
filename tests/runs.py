"""Training runs for tests: through the command line, in processes that are forked ready-made.

A fresh interpreter spends seconds on imports. Here a fork server imports once, and every run is a
process of its own that calls the same `genmodels` entry point. Nothing else is different, except
that the check of the published folder in a clean interpreter is left out unless a test asks for it.
"""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

SENTENCES = (
    "The river ran past the old mill. ",
    "Nobody had heard the bell since spring, and Anna wondered why! ",
    "She counted 17 boats; one was red. ",
    "Was it late? It was. ",
    "Éva said: «come in», and they came. ",
)
TINY = {
    "config": "tiny",
    "tokenizer_vocab_size": 290,
    "block_size": 32,
    "per_device_train_batch_size": 2,
    "max_steps": 10,
    "log_every": 1,
    "eval_every": 100,
    "save_every": 100,
    "max_eval_windows": 4,
    "mixed_precision": "no",
    "model.hidden_size": 32,
    "model.num_attention_heads": 2,
    "sample.max_new_tokens": 0,
}

TINY_PAIRS = {
    "config": "tiny",
    "tokenizer_vocab_size": 290,
    "batch_tokens": 80,
    "max_source_length": 40,
    "max_target_length": 40,
    "max_steps": 10,
    "log_every": 1,
    "eval_every": 100,
    "save_every": 100,
    "mixed_precision": "no",
    "translate.num_pairs": 0,
}
TINY_GAN = {
    "image_size": 16,
    "per_device_train_batch_size": 4,
    "max_steps": 8,
    "log_every": 1,
    "eval_every": 100,
    "save_every": 100,
    "mixed_precision": "no",
    "model.generator_width": 4,
    "model.discriminator_width": 4,
    "model.latent_dim": 6,
    "model.condition_dim": 4,
    "judge.features": "none",
    "grid.columns": 0,
}
TINY_LM_ADVERSARIAL = {
    "block_size": 16,
    "per_device_train_batch_size": 4,
    "max_steps": 6,
    "log_every": 1,
    "eval_every": 100,
    "save_every": 100,
    "max_eval_windows": 6,
    "mixed_precision": "no",
    "adversarial.prompt_tokens": 4,
    "adversarial.sample_tokens": 5,
    "adversarial.discriminator_first": 1,
    "adversarial.eval_texts": 4,
    "discriminator.hidden_size": 16,
    "discriminator.num_attention_heads": 2,
    "discriminator.num_hidden_layers": 1,
    "optim.generator_lr": 1e-3,
    "sample.max_new_tokens": 0,
}
TINY_PIXELS = {
    "config": "pixels-digits",
    "validation_split_percentage": 20,
    "per_device_train_batch_size": 2,
    "max_steps": 4,
    "log_every": 1,
    "eval_every": 100,
    "save_every": 100,
    "max_eval_windows": 4,
    "mixed_precision": "no",
    "pixels.image_size": 8,
    "pixels.small_size": 4,
    "pixels.palette_size": 6,
    "pixels.columns": 2,
    "pixels.label_column": "label",
    "model.hidden_size": 16,
    "model.num_hidden_layers": 1,
    "model.num_attention_heads": 2,
    "sample.max_new_tokens": 0,
}
TINY_CLIPS = {
    **TINY_GAN,
    "num_frames": 4,
    "sprite_size": 8,
    "clips_per_image": 2,
    "tokenizer_vocab_size": 270,
    "model.hidden_size": 16,
    "model.motion_dim": 3,
    "model.motion_hidden_size": 8,
    "model.video_discriminator_width": 4,
}
# The command that trains each family whose name is not that of its command.
_COMMANDS = {"pixels": "lm", "clips": "gan"}


def text(sentences: int) -> str:
    """A text that is the same everywhere and does not repeat soon."""
    return "".join(SENTENCES[(i * i + i // 7) % len(SENTENCES)] for i in range(sentences))


def tiny_run(train_file: Path | str | None = None, **options: Any) -> list[str]:
    """The command line of a small run; `model__hidden_size=8` means --model.hidden_size 8."""
    return _command("lm", TINY, train_file, options)


def tiny_translation(train_file: Path | str | None = None, **options: Any) -> list[str]:
    """The same for pairs."""
    return _command("seq2seq", TINY_PAIRS, train_file, options)


def tiny_gan(train_file: Path | str | None = None, **options: Any) -> list[str]:
    """The same for images."""
    return _command("gan", TINY_GAN, train_file, options)


def tiny_lm_adversarial(train_file: Path | None = None, **options: Any) -> list[str]:
    """The same for texts and their adversary; without a checkpoint one is made beside the text."""
    if train_file is not None and "model_name_or_path" not in options:
        folder = train_file.with_name("writer")
        if not folder.is_dir():
            random_writer(folder)
        options = {"model_name_or_path": folder, **options}
    return _command("lm-adversarial", TINY_LM_ADVERSARIAL, train_file, options)


def tiny_pixels(train_file: Path | str | None = None, **options: Any) -> list[str]:
    """The same for a language model that draws."""
    return _command("pixels", TINY_PIXELS, train_file, options)


def tiny_clips(train_file: Path | str | None = None, **options: Any) -> list[str]:
    """The same for a GAN of clips."""
    return _command("clips", TINY_CLIPS, train_file, options)


_FAMILIES: dict[str, Callable[..., list[str]]] = {
    "lm": tiny_run,
    "seq2seq": tiny_translation,
    "gan": tiny_gan,
    "pixels": tiny_pixels,
    "lm-adversarial": tiny_lm_adversarial,
    "clips": tiny_clips,
}


def command_of(family: str, data: Path | str | None = None, **options: Any) -> list[str]:
    """The same for a family by its name."""
    return _FAMILIES[family](data, **options)


def resume_of(family: str, folder: Path | str, **options: Any) -> list[str]:
    """The command line that goes on with a run of a family."""
    return _command(family, {"resume": folder}, None, options)


def pairs(count: int) -> str:
    """JSON lines of texts and what is to be made of them: the words backwards."""
    words = [word for sentence in SENTENCES for word in sentence.split()]
    rows = []
    for number in range(count):
        source = [
            words[(number * 3 + place * place) % len(words)] for place in range(2 + number % 4)
        ]
        rows.append({"source": " ".join(source), "target": " ".join(reversed(source))})
    return "".join(json.dumps(row) + "\n" for row in rows)


def write_images(folder: Path) -> Path:
    """Write sixty small pictures of bars, and a table of their classes, attributes and captions."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0)
    rows = []
    for number in range(60):
        pixels = random.integers(60, size=(16, 16), dtype=np.uint8)
        is_left, is_top = number % 2, number // 2 % 2
        pixels[:, 4 - 4 * is_left :][:, :8] += 120
        pixels[8 - 8 * is_top :][:8] += 60
        Image.fromarray(pixels).save(folder / f"{number:02d}.png")
        words = f"a bar {'left' if is_left else 'inside'} and {'above' if is_top else 'below'}"
        rows.append({"file_name": f"{number:02d}.png", "label": ["inside", "left"][is_left],
                     "is_left": is_left, "is_top": is_top, "caption": words})  # fmt: skip
    table = folder / "images.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return table


def _command(
    family: str, defaults: dict[str, Any], train_file: Path | str | None, options: dict[str, Any]
) -> list[str]:
    given = {name.replace("__", "."): value for name, value in options.items()}
    arguments = ["train", _COMMANDS.get(family, family)]
    if train_file is not None:
        arguments += ["--train_file", str(train_file)]
    for name, value in {**defaults, **given}.items():
        values = value if isinstance(value, list) else [value]
        if value is not None:
            arguments += [f"--{name}", *map(str, values)]
    return arguments


def random_writer(folder: Path, **options: Any) -> Path:
    """Save a language model with random weights, and a tokenizer of bytes."""
    import torch

    from hf_genmodels import GenGPTConfig, GenGPTForCausalLM
    from hf_genmodels.tokenization.saving import save_tokenizer
    from tests.hub.conftest import byte_tokenizer

    tokenizer = byte_tokenizer()
    fields = {
        "vocab_size": len(tokenizer),
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 32,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        **options,
    }
    torch.manual_seed(0)
    model = GenGPTForCausalLM(GenGPTConfig(**fields))
    model.save_pretrained(folder)
    save_tokenizer(tokenizer, folder)
    return folder


def random_translator(folder: Path, *, recurrent: bool = False, **options: Any) -> Path:
    """Save a sequence-to-sequence model with random weights, and a tokenizer of bytes."""
    import torch

    import hf_genmodels
    from hf_genmodels.tokenization.pairs import for_pairs
    from hf_genmodels.tokenization.saving import save_tokenizer
    from tests.hub.conftest import byte_tokenizer

    tokenizer = for_pairs(byte_tokenizer(), 32)
    name, own = "GenSeq2Seq", {"num_attention_heads": 2, "max_position_embeddings": 32}
    if recurrent:
        name, own = "GenRNNSeq2Seq", {}
    fields = {
        "vocab_size": len(tokenizer),
        "hidden_size": 16,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "decoder_start_token_id": tokenizer.bos_token_id,
        **own,
        **options,
    }
    torch.manual_seed(0)
    config = getattr(hf_genmodels, f"{name}Config")(**fields)
    model = getattr(hf_genmodels, f"{name}ForConditionalGeneration")(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    model.generation_config.max_new_tokens = 12
    model.save_pretrained(folder)
    save_tokenizer(tokenizer, folder)
    return folder


@dataclass
class Outcome:
    """How a command ended."""

    status: int
    output: str

    @property
    def error(self) -> str:
        """The one line that says what was wrong."""
        assert self.status == 2, f"status {self.status}:\n{self.output}"
        assert "Traceback" not in self.output, self.output
        lines = [line for line in self.output.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, self.output
        return self.output[self.output.index("error: ") :]

    def succeeded(self) -> Outcome:
        """Fail the test with the command's output unless it ended well."""
        assert self.status == 0, f"status {self.status}:\n{self.output}"
        return self


def forget_accelerator() -> None:
    """Let accelerate begin anew in this process, as it does in a new one."""
    from accelerate.state import AcceleratorState, GradientState

    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def call(arguments: Sequence[str]) -> Outcome:
    """Run `genmodels ...` in this process."""
    from hf_genmodels.cli import main

    forget_accelerator()
    output, status = io.StringIO(), 0
    with redirect_stdout(output), redirect_stderr(output):
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as ending:
            status = _status_of(ending)
    return Outcome(status, output.getvalue())


@dataclass
class Process:
    """A `genmodels` command that runs in a process of its own."""

    handle: Any
    log: Path

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        os.kill(self.handle.pid, number)

    def wait(self, timeout: float = 240.0) -> Outcome:
        """Wait for the end."""
        self.handle.join(timeout)
        output = self.log.read_text(encoding="utf-8", errors="replace")
        if self.handle.is_alive():
            self.handle.kill()
            raise AssertionError(f"still running after {timeout} s:\n{output}")
        return Outcome(self.handle.exitcode, output)


def start(
    arguments: Sequence[str],
    log: Path,
    *,
    prepare: Callable[..., None] | None = None,
    prepare_arguments: tuple[Any, ...] = (),
    environment: dict[str, str] | None = None,
) -> Process:
    """Start `genmodels ...`.

    Args:
        arguments: The command line.
        log: File for what it prints.
        prepare: Module-level function that the process calls first.
        prepare_arguments: Its arguments.
        environment: Additional variables.
    """
    variables = {**_cache_variables(), **(environment or {})}
    handle = _fork_server().Process(
        target=_child, args=(list(arguments), str(log), variables, prepare, prepare_arguments)
    )
    handle.start()
    return Process(handle, log)


def run(arguments: Sequence[str], log: Path, **options: Any) -> Outcome:
    """Run `genmodels ...` in a process of its own and wait for it."""
    return start(arguments, log, **options).wait()


def start_group(
    arguments: Sequence[str],
    log: Path,
    size: int,
    prepares: dict[int, tuple[Any, ...]] | None = None,
) -> list[Process]:
    """Start the processes of one distributed run, as a launcher would.

    Args:
        arguments: The command line.
        log: File for what rank 0 prints.
        size: Number of processes.
        prepares: Rank -> (function, *arguments) that it calls first.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    processes = []
    for rank in range(size):
        variables = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        variables |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "ACCELERATE_USE_CPU": "true"}
        function, *values = (prepares or {}).get(rank, (None,))
        processes.append(
            start(
                arguments,
                log.with_suffix(f".{rank}"),
                prepare=function,
                prepare_arguments=tuple(values),
                environment=variables,
            )
        )
    return processes


def run_group(arguments: Sequence[str], log: Path, size: int, **options: Any) -> list[Outcome]:
    """Run the processes of one distributed run and wait for all."""
    return [process.wait() for process in start_group(arguments, log, size, **options)]


def signal_at_step(step: int, number: int) -> None:
    """Let this process get a signal while it is in a step."""
    from hf_genmodels.engine.run import Run

    original = Run.agree

    def agree(self: Run, loss: Any) -> float:
        if self.state.step + 1 == step:
            os.kill(os.getpid(), number)
        return original(self, loss)

    Run.agree = agree  # type: ignore[method-assign]


def die_at_event(count: int, place: str = "") -> None:
    """Let this process get SIGKILL at its nth write that must last: a flush, a rename, a removal.

    Only those whose path contains `place` count.
    """
    events = iter(range(1, count + 1))

    def path_of(first: Any) -> str:
        return str(Path(f"/proc/self/fd/{first}").readlink() if isinstance(first, int) else first)

    def dying(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*arguments: Any, **options: Any) -> Any:
            if place in path_of(arguments[0]) and next(events, count) == count:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return wrapper

    for name in ("fsync", "rename", "replace", "unlink", "rmdir"):
        setattr(os, name, dying(getattr(os, name)))


def losses(folder: Path) -> list[tuple[Any, ...]]:
    """What metrics.jsonl says, without times."""
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    untimed = []
    for line in lines:
        values = json.loads(line)
        values.pop("time")
        for speed in ("tokens_per_second", "images_per_second", "clips_per_second"):
            values.pop(speed, None)
        untimed.append(tuple(sorted(values.items())))
    return untimed


def weights(folder: Path) -> bytes:
    """The published weights."""
    return (folder / "model.safetensors").read_bytes()


def states(folder: Path) -> dict[str, bytes]:
    """All tensors that a finished run leaves: published, averages, moments, random states."""
    newest = sorted(folder.glob("checkpoints/step-*"))[-1]
    files = [folder / "config.json", folder / "model.safetensors"]
    files += [*newest.glob("*.safetensors"), *folder.rglob("discriminator/*")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def saved_steps(folder: Path) -> list[int]:
    """Steps of the checkpoints in a run's folder."""
    return sorted(int(p.name.removeprefix("step-")) for p in folder.glob("checkpoints/step-*"))


@lru_cache(maxsize=1)
def _fork_server() -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["hf_genmodels.cli", "training.train_lm", "training.train_seq2seq",
         "training.train_gan", "training.train_lm_adversarial", "matplotlib.backends.backend_agg", "datasets",
         "accelerate", "torch.distributed", "torch._dynamo"]
    )  # fmt: skip
    return context


def _cache_variables() -> dict[str, str]:
    names = ("HF_GENMODELS_CACHE", "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")
    return {name: os.environ[name] for name in names if name in os.environ}


def _child(
    arguments: list[str],
    log: str,
    variables: dict[str, str],
    prepare: Callable[..., None] | None,
    prepare_arguments: tuple[Any, ...],
) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
    os.environ.update(variables)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Workers of a run start as they do where no fork server is.
    multiprocessing.set_start_method("fork", force=True)
    from hf_genmodels.cli import main
    from hf_genmodels.engine import publishing

    if "VERIFY" not in variables:
        publishing.verify_folder = lambda _folder: "not verified"
    if prepare is not None:
        prepare(*prepare_arguments)
    try:
        main(arguments)
    except SystemExit as ending:
        os._exit(_status_of(ending))
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def _status_of(ending: SystemExit) -> int:
    return ending.code if isinstance(ending.code, int) else int(ending.code is not None)
