"""From the command line and YAML presets to checked dataclasses, for training scripts."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional, TypeVar

import yaml
from jsonargparse import ArgumentError, ArgumentParser

from hf_genmodels.config.flags import explain, flag_types, spell_out
from hf_genmodels.errors import UserError, suggest

_MAX_BYTES = 1 << 20
_MAX_VALUES = 100_000
T = TypeVar("T")
C = TypeVar("C")


def parse_config(
    config_class: type[T],
    argv: Sequence[str],
    *,
    command: str,
    description: str,
    presets: Path | None = None,
    default_preset: str | None = None,
) -> T:
    """Parse a command line into a dataclass.

    Values are taken from, later ones winning: the defaults of the dataclass, the preset or file of
    `--config`, the flags. `--resume OUT` starts from `OUT/config.yaml`.

    Args:
        config_class: Dataclass; nested dataclasses become `--section.key` flags. Its
            `__post_init__` checks the values.
        argv: The arguments after the command.
        command: What the user typed before them, for messages.
        description: First paragraph of `--help`.
        presets: Folder whose `NAME.yaml` files `--config NAME` means.
        default_preset: Preset used when neither `--config` nor `--resume` is given.

    Returns:
        An instance of the dataclass.

    Raises:
        UserError: If an option is unknown (with a suggestion) or a value cannot work.
    """
    parser = build_parser(config_class, command=command, description=description)
    fields = flag_types(config_class)
    arguments = spell_out(argv, fields)
    arguments, files = _with_base_config(arguments, presets, default_preset)
    for file in files:
        _check_sections(read_yaml(file), fields, file)
    try:
        namespace = parser.parse_args(arguments)
        namespace.pop("config", None)
        values = parser.instantiate(namespace).as_dict()
    except ArgumentError as error:
        raise UserError(explain(str(error), fields, command)) from None
    return config_class(**{name: values[name] for name in _field_names(config_class)})


def build_parser(config_class: type, *, command: str, description: str) -> ArgumentParser:
    """Return the parser of a dataclass; `--print_config` shows the resolved values."""
    parser = ArgumentParser(
        prog=command, description=description, exit_on_error=False, allow_abbrev=False
    )
    parser.add_argument("--config", action="config", help="YAML file, or name of a preset.")
    parser.add_class_arguments(config_class)
    return parser


def write_yaml(config: Any, path: Path) -> None:
    """Write a dataclass as YAML that `--config` reads, whole or not at all."""
    text = yaml.safe_dump(dataclasses.asdict(config), sort_keys=False, allow_unicode=True)
    staged = path.with_name(f".{path.name}.partial")
    with staged.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    staged.replace(path)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping.

    Raises:
        UserError: If the file is missing or holds something else.
    """
    if not path.is_file():
        raise UserError(f"There is no file {path}.")
    if path.stat().st_size > _MAX_BYTES:
        raise UserError(f"{path} has more than {_MAX_BYTES:,} bytes: these are no options.")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is not YAML: {error}") from None
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise UserError(f"{path} must hold `key: value` lines.")
    if not _is_small(values):
        raise UserError(f"{path} holds more than {_MAX_VALUES:,} values, aliases written out.")
    return values


def options_of(
    config_class: type, name: str, *, without: Sequence[str] = (), optional: Sequence[str] = ()
) -> type:
    """Return a dataclass with the own fields of a model's configuration class.

    Args:
        config_class: A strict `PreTrainedConfig`.
        name: Name of the new dataclass.
        without: Fields that are not the user's to set.
        optional: Fields that may be left out and are then `None`.
    """
    inherited = set(_field_names(config_class.__mro__[1]))
    fields: list[Any] = [
        (field.name, Optional[field.type], dataclasses.field(default=None))  # noqa: UP045
        if field.name in optional
        else (field.name, field.type, dataclasses.field(default=field.default))
        for field in dataclasses.fields(config_class)
        if field.name not in inherited and field.name not in without
    ]
    options = dataclasses.make_dataclass(name, fields)
    options.__doc__ = config_class.__doc__
    return options


def model_config_of(config_class: type[C], options: Any, section: str, **fields: Any) -> C:
    """Return a model's configuration with the options that the user gave.

    Args:
        config_class: Configuration class of the model.
        options: Instance of what `options_of` made of it.
        section: Name of the section of options, for messages.
        **fields: Fields that are not the user's to set, or that win over the options.

    Raises:
        UserError: If the values do not fit together.
    """
    # Not dataclasses.asdict: its copies of a dataclass that was made at run time lack checks.
    given = {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}
    try:
        return config_class(**{**given, **fields})
    except Exception as error:
        cause = str(error.__cause__ or error)
        raise UserError(f"The section `{section}` cannot work: {cause}") from None


def _field_names(config_class: type) -> list[str]:
    return [field.name for field in dataclasses.fields(config_class)]


def _with_base_config(
    arguments: list[str], presets: Path | None, default_preset: str | None
) -> tuple[list[str], list[Path]]:
    """Put files of options first, so that flags win on either side of them.

    The options of a resumed run come before those of `--config`; a preset is meant by its name.

    Returns:
        The arguments, and the files.
    """
    base: list[Path] = []
    resumed: list[Path] = []
    flags: list[str] = []
    waiting = iter(arguments)
    for argument in waiting:
        flag, equals, value = argument.partition("=")
        if flag == "--config":
            value = value if equals else next(waiting, "")
            if not value:
                raise UserError("--config needs a YAML file or the name of a preset.")
            base.append(_config_path(value, presets))
            continue
        if flag == "--resume":
            if not (Path(value) / "config.yaml").is_file():
                raise UserError(
                    f"--resume {value}: there is no run in this folder (no config.yaml). "
                    "Give the --output_dir of the run that should go on."
                )
            resumed.append(Path(value) / "config.yaml")
        flags.append(argument)
    asks_for_help = any(flag in ("-h", "--help") for flag in flags)
    if not base and not resumed and not asks_for_help and default_preset is not None:
        base.append(_config_path(default_preset, presets))
    files = [*resumed, *base]
    return [*(f"--config={path}" for path in files), *flags], files


def _config_path(value: str, presets: Path | None) -> Path:
    path = Path(value)
    names = sorted(p.stem for p in presets.glob("*.yaml")) if presets is not None else []
    if not path.is_file() and presets is not None and value in names:
        path = presets / f"{value}.yaml"
    if not path.is_file():
        raise UserError(
            f"--config {value}: no such file or preset. {suggest(value, names)}"
            + (f"Presets: {', '.join(names)}." if names else "")
        )
    return path


def _check_sections(values: dict[str, Any], fields: dict[str, Any], file: Path) -> None:
    """Refuse what would have jsonargparse read other files or import modules that a file names."""
    if "config" in values:
        raise UserError(f"{file}: the option 'config' names another file. Give it on its own.")
    waiting: list[tuple[str, Any]] = list(values.items())
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, dict):
            if named := {"class_path", "init_args", "dict_kwargs", "__path__"} & value.keys():
                raise UserError(f"{file}: {name} must not hold {sorted(named)[0]!r}.")
            waiting += [(f"{name}.{key}", inner) for key, inner in value.items()]
        elif dataclasses.is_dataclass(fields.get(name)) and value is not None:
            raise UserError(f"{file}: {name} must hold `key: value` lines, not {value!r}.")
        elif isinstance(value, list):
            waiting += [(name, inner) for inner in value if isinstance(inner, (dict, list))]


def _is_small(values: Any) -> bool:
    """Tell whether a value is small when every alias in it is written out."""
    waiting, count = [values], 1
    while waiting and count <= _MAX_VALUES:
        value = waiting.pop()
        if isinstance(value, (dict, list)):
            count += len(value)
            if count <= _MAX_VALUES:
                waiting += value.values() if isinstance(value, dict) else value
    return count <= _MAX_VALUES
