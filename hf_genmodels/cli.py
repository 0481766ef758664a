"""The `genmodels` command: finds what the user named and hands the rest of the line to it."""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Callable, Sequence

from hf_genmodels.errors import UserError, suggest
from hf_genmodels.plain_text import printable

# The disk or the user's share of it is full.
FULL = (errno.ENOSPC, errno.EDQUOT)
TRAINING = "hf_genmodels.training"
# Command -> (module, function, what it does). Modules are imported when they are named.
COMMANDS = {
    "tokenizer": (f"{TRAINING}.train_tokenizer", "main", "train, import and inspect tokenizers"),
    "train lm": (
        f"{TRAINING}.train_lm",
        "main",
        "train a language model, of texts or pictures, and publish it",
    ),
    "train lm-adversarial": (
        f"{TRAINING}.train_lm_adversarial",
        "main",
        "go on with a language model against a discriminator of its texts",
    ),
    "train seq2seq": (
        f"{TRAINING}.train_seq2seq",
        "main",
        "train a translator, summariser or the like and publish it",
    ),
    "train judge": (
        f"{TRAINING}.train_judge",
        "main",
        "train a small classifier by whose features generated images are measured",
    ),
    "train gan": (
        f"{TRAINING}.train_gan",
        "main",
        "train a generator of images or clips and publish it",
    ),
    "generate": (
        f"{TRAINING}.generate",
        "main",
        "continue a prompt, translate, summarise, draw images and clips",
    ),
    "evaluate": (
        f"{TRAINING}.evaluate",
        "main",
        "measure perplexity, BLEU, image quality and more",
    ),
    "demo": ("hf_genmodels.demo.command", "main", "try a model in the browser"),
    "export": ("hf_genmodels.hub.export", "main", "write a model in another format, verified"),
    "card": ("hf_genmodels.hub.card_command", "main", "write the model card of a folder again"),
    "push": ("hf_genmodels.hub.push", "main", "upload a published folder to a model hub"),
    "env": ("hf_genmodels.environment", "main", "print what a bug report needs"),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run `genmodels`; a user's mistake ends it with one line and status 2."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    run_command(lambda: _dispatch(arguments))


def run_command(command: Callable[[], None]) -> None:
    """Call a command and turn a user's mistake into one line instead of a traceback.

    Args:
        command: What to run.

    Raises:
        SystemExit: With status 2 after a user's mistake, 130 after Ctrl-C.
    """
    try:
        command()
    except UserError as error:
        _complain(str(error))
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        raise SystemExit(130) from None
    except BrokenPipeError:  # the reader of our output, such as `head`, is gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        if error.errno not in FULL:
            raise
        _complain(
            f"{error.strerror}: {error.filename or 'while writing'}. Make room and try again."
        )
        raise SystemExit(2) from None


def _complain(message: str) -> None:
    """Print what went wrong; several processes that train together have the same to say."""
    rank = os.environ.get("RANK", "0")
    start = "error" if rank == "0" else f"process {rank}"
    print(f"{start}: {printable(message)}", file=sys.stderr)


def _dispatch(arguments: list[str]) -> None:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_usage())
        return
    if arguments[0] == "--version":
        from hf_genmodels import __version__

        print(__version__)
        return
    for words in (2, 1):
        name = " ".join(arguments[:words])
        if name in COMMANDS:
            module, function, _ = COMMANDS[name]
            main_function = getattr(importlib.import_module(module), function)
            main_function(arguments[words:])
            return
    if arguments[0] == "train":
        families = [name.removeprefix("train ") for name in COMMANDS if name.startswith("train ")]
        given = arguments[1] if len(arguments) > 1 else ""
        if given in ("-h", "--help", "help"):
            print(_usage())
            return
        raise UserError(
            f"genmodels train {given}: what is to be trained? {suggest(given, families)}"
            f"Choose from: {', '.join(families)}."
        )
    raise UserError(
        f"There is no command {arguments[0]!r}. {suggest(arguments[0], COMMANDS)}"
        "See: genmodels --help"
    )


def _usage() -> str:
    lines = [f"  {name:<20} {what}" for name, (_, _, what) in COMMANDS.items()]
    return "\n".join(
        [
            "genmodels COMMAND ...: train compact generative models, publish them, use them",
            "",
            *lines,
            "",
            "Each command explains itself: genmodels train lm --help",
        ]
    )
