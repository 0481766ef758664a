"""Errors that a user can cause, and the words that help to mend them."""

from __future__ import annotations

import difflib
import importlib
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import ModuleType


class UserError(ValueError):
    """A mistake in what the user gave: a flag, a file, a folder, a value.

    The message says what was given, what is allowed and how to mend it. The command line prints it
    as one line and exits with status 2; no traceback is shown.
    """


def suggest(word: str, allowed: Iterable[str]) -> str:
    """Return ``"Did you mean 'x'? "`` for the closest allowed word, or an empty string.

    Args:
        word: What the user typed.
        allowed: The words that would have been accepted.
    """
    close = difflib.get_close_matches(word, list(allowed), n=1)
    return f"Did you mean {close[0]!r}? " if close else ""


@contextmanager
def naming_flags(section: str, names: Iterable[str]) -> Iterator[None]:
    """Let mistakes name flags of a section: `--size` becomes `--section.size`.

    Options of several commands are checked by the same code, and are called differently in some.

    Args:
        section: The section of the command's options.
        names: Flags that stand in it.
    """
    try:
        yield
    except UserError as error:
        flags = "|".join(map(re.escape, names))
        message = re.sub(rf"(?<![\w-])--({flags})(?![\w-]|\.\w)", rf"--{section}.\1", str(error))
        raise UserError(message) from error.__cause__


def require_extra(module: str, extra: str) -> ModuleType:
    """Import an optional module.

    Args:
        module: Name of the module, such as ``"matplotlib"``.
        extra: The extra of this package that installs it.

    Raises:
        UserError: If the module is not installed; the message names the extra.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(
            f"This needs the optional library {module!r}, which is not installed. "
            f'Install it with: pip install "hf_genmodels[{extra}]"'
        ) from error
