"""Command lines with positional arguments, parsed into a dataclass."""

from __future__ import annotations

import dataclasses
import sys
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from jsonargparse import ArgumentError, ArgumentParser

from hf_genmodels.config.flags import explain, spell_out
from hf_genmodels.errors import UserError

T = TypeVar("T")


def parse_command(
    options_class: type[T],
    argv: Sequence[str] | None,
    *,
    command: str,
    description: str,
    positionals: Mapping[str, str],
) -> T:
    """Parse a command line into a dataclass whose other fields are flags.

    Args:
        options_class: Dataclass; its docstring explains the flags.
        argv: The arguments after the command. `None`: those of the process.
        command: What the user typed before them.
        description: First paragraph of `--help`.
        positionals: Fields that are given without a flag, in order -> their help. A field of type
            list takes any number of arguments, one with a default may be left out.

    Returns:
        An instance of the dataclass.

    Raises:
        UserError: If an option is unknown (with a suggestion) or a value cannot be read.
    """
    parser = ArgumentParser(
        prog=command, description=description, exit_on_error=False, allow_abbrev=False
    )
    hints = typing.get_type_hints(options_class)
    for field in dataclasses.fields(options_class):  # type: ignore[arg-type]
        if field.name in positionals:
            arguments = _positional(field, hints[field.name])
            parser.add_argument(field.name, help=positionals[field.name], **arguments)
    parser.add_class_arguments(options_class, skip=set(positionals))
    flags = {name: hint for name, hint in hints.items() if name not in positionals}
    line = spell_out(sys.argv[1:] if argv is None else argv, flags)
    # argparse takes positional arguments in one piece only.
    line.sort(key=lambda argument: not argument.startswith("--"))
    try:
        values = parser.parse_args(line).as_dict()
    except ArgumentError as error:
        raise UserError(explain(str(error), flags, command)) from None
    return options_class(**values)


def refuse_options(options: Any, names: Mapping[str, str], model: str) -> None:
    """Refuse options that mean nothing to the model that was given.

    Args:
        options: What `parse_command` returned.
        names: Fields that must have their default -> what to do instead.
        model: What the model is, in words.

    Raises:
        UserError: If one of them was given.
    """
    for field in dataclasses.fields(options):
        if field.name not in names:
            continue
        made = field.default_factory
        default = field.default if made is dataclasses.MISSING else made()
        if getattr(options, field.name) != default:
            raise UserError(
                f"--{field.name} has no meaning here: '{options.model}' is {model}. "
                f"{names[field.name]}".strip()
            )


def _positional(field: dataclasses.Field[Any], hint: Any) -> dict[str, Any]:
    if typing.get_origin(hint) is list:
        return {"nargs": "*", "type": str, "default": []}
    if field.default is not dataclasses.MISSING:
        return {"nargs": "?", "type": str, "default": field.default}
    return {"type": str}
