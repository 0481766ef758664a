"""How every command line of this package is read: lists, switches, and words for mistakes.

jsonargparse does the work; here stand the few things that users expect beyond it: flags without a
value, lists without brackets, dashes for underscores, and a suggestion for a typo.
"""

from __future__ import annotations

import dataclasses
import json
import re
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jsonargparse import set_parsing_settings

from hf_genmodels.errors import suggest

KINDS = {
    "bool": "true or false",
    "float": "a number",
    "int": "a whole number",
    "str": "text",
    "list": "a list",
}
set_parsing_settings(docstring_parse_attribute_docstrings=True)


def flag_types(config_class: Any, prefix: str = "") -> dict[str, Any]:
    """Return the type of every flag of a dataclass, `section.key` for nested dataclasses."""
    hints = typing.get_type_hints(config_class)
    types: dict[str, Any] = {}
    for field in dataclasses.fields(config_class):
        hint = hints[field.name]
        types[prefix + field.name] = hint
        if dataclasses.is_dataclass(hint):
            types.update(flag_types(hint, f"{prefix}{field.name}."))
    return types


def spell_out(arguments: Sequence[str], types: Mapping[str, Any]) -> list[str]:
    """Turn `--flag` into `--flag=true` and `--list a b` into `--list=["a", "b"]`.

    A list that is given more than once goes on. A switch takes `true` or `false` only, so that
    something else may follow it.

    Args:
        arguments: What the user typed.
        types: Flag -> its type. Other flags are left alone.
    """
    spelled: list[str] = []
    lists: dict[str, list[str]] = {}
    waiting = list(arguments)
    while waiting:
        argument = waiting.pop(0)
        name, equals, inline = argument.partition("=")
        name = name.removeprefix("--").replace("-", "_") if name.startswith("--") else ""
        kind = types.get(name)
        if kind is None:
            spelled.append(argument)
            continue
        values = [inline] if equals else []
        while not equals and waiting and not _is_flag(waiting[0]):
            values.append(waiting.pop(0))
        if kind is bool and not equals and not _is_truth(values[:1]):
            values.insert(0, "true")
        if typing.get_origin(kind) in (list, Sequence) and values and not _is_json_list(values):
            lists.setdefault(name, []).extend(values)
            continue
        spelled += [f"--{name}={values[0]}", *values[1:]] if values else [f"--{name}"]
    return spelled + [f"--{name}={json.dumps(values)}" for name, values in lists.items()]


def explain(message: str, flags: Iterable[str], command: str) -> str:
    """Say in one line what jsonargparse found wrong, with a suggestion for an unknown option.

    Args:
        message: What jsonargparse said.
        flags: The flags that there are, without dashes.
        command: What the user typed before them.
    """
    known = list(flags)
    message = re.sub(r"^tip:.*?\n", "", message.strip())
    key = re.search(r'Parser key "([\w.]+)"', message)
    value = re.search(r"(?:Given|Got) value: (.*)", message)
    if key and value:
        names = [KINDS[word] for word in re.findall(r"<class '(\w+)'>", message) if word in KINDS]
        wanted = f" It must be {' or '.join(dict.fromkeys(names))}." if names else ""
        if choices := re.search(r"Literal\[([^]]*)]", message):
            wanted = f" Allowed: {choices[1].replace(chr(39), '')}."
        return f"--{key[1]} is {value[1].strip()!r}.{wanted} See: {command} --help"
    in_group = re.search(r"[Gg]roup '([\w.]+)' does not accept option '([\w.]+)'", message)
    in_file = re.search(r"[Oo]ption '([\w.]+)'|Key '([\w.]+)'", message)
    typed = re.search(r"nrecognized arguments?: --([\w.-]+)", message)
    hint = ""
    if typed:
        hint = _meant(typed[1].replace("-", "_"), known, "--")
    elif in_group:
        hint = _meant(f"{in_group[1]}.{in_group[2]}", known) or _meant(in_group[2], known)
    elif in_file:
        hint = _meant(in_file[1] or in_file[2], known)
    return f"{' '.join(message.split()).rstrip('.')}. {hint}See: {command} --help"


def _meant(word: str, known: Sequence[str], dashes: str = "") -> str:
    """Suggest a flag; the last part of a flag's name is enough to mean it."""
    sections = {name.rsplit(".", 1)[-1]: name for name in known}
    return suggest(dashes + sections.get(word, word), [dashes + name for name in known])


def _is_flag(argument: str) -> bool:
    return re.match(r"--?[A-Za-z]", argument) is not None


def _is_truth(values: Sequence[str]) -> bool:
    return len(values) == 1 and values[0].lower() in ("true", "false")


def _is_json_list(values: Sequence[str]) -> bool:
    return len(values) == 1 and values[0].startswith("[")
