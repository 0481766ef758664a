"""Command lines with positional arguments, parsed into a dataclass."""

from __future__ import annotations

import dataclasses
import re
import sys
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from jsonargparse import ArgumentError, ArgumentParser, set_parsing_settings

from hf_genmodels.errors import UserError, suggest

T = TypeVar("T")
WORDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "NoneType": "null",
}
set_parsing_settings(docstring_parse_attribute_docstrings=True)


def parse_command(
    options_class: type[T],
    argv: Sequence[str] | None,
    *,
    command: str,
    description: str,
    positionals: Mapping[str, str],
    lists: Mapping[str, str] | None = None,
) -> T:
    """Parse a command line into a dataclass whose other fields are flags.

    Args:
        options_class: Dataclass; its docstring explains the flags.
        argv: The arguments after the command. `None`: those of the process.
        command: What the user typed before them.
        description: First paragraph of `--help`.
        positionals: Fields that are given without a flag, in order -> their help. A field of type
            list takes any number of arguments, one with a default may be left out.
        lists: Flags that take several values, as in `--file a b` -> their help.

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
    lists = lists or {}
    for name, text in lists.items():
        parser.add_argument(f"--{name}", nargs="+", type=str, default=[], help=text)
    parser.add_class_arguments(options_class, skip={*positionals, *lists})
    _bare_switches(parser)
    try:
        values = parser.parse_args(list(sys.argv[1:] if argv is None else argv)).as_dict()
    except ArgumentError as error:
        raise UserError(_explain(str(error), parser)) from None
    return options_class(**values)


def _positional(field: dataclasses.Field[Any], hint: Any) -> dict[str, Any]:
    if typing.get_origin(hint) is list:
        return {"nargs": "*", "type": str, "default": []}
    if field.default is not dataclasses.MISSING:
        return {"nargs": "?", "type": str, "default": field.default}
    return {"type": str}


def _bare_switches(parser: ArgumentParser) -> None:
    """Let switches stand without a value: `--greedy` means `--greedy true`."""
    for action in parser._actions:
        if getattr(action, "_typehint", None) is bool:
            action.nargs, action.const = "?", True


def _explain(message: str, parser: ArgumentParser) -> str:
    """Say what jsonargparse found in one line, with a suggestion for an unknown option."""
    key = re.search(r'Parser key "([\w.]+)"', message)
    value = re.search(r"Given value: (.*)", message)
    if key and value:
        names = [WORDS[word] for word in re.findall(r"Expected an? <class '(\w+)'>", message)]
        wanted = f" It must be {' or '.join(dict.fromkeys(names))}." if names else ""
        return f"--{key[1]} is {value[1]!r}.{wanted} See: {parser.prog} --help"
    message = re.sub(r"^tip:.*?\n", "", message.strip())
    known = [option for action in parser._actions for option in action.option_strings]
    unknown = re.search(r"nrecognized arguments?: (--[\w-]+)", message)
    hint = suggest(unknown[1], known) if unknown else ""
    return f"{message.rstrip('.')}. {hint}See: {parser.prog} --help"
