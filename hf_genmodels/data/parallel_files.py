"""Text files of which line i of one belongs to line i of the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from hf_genmodels.data import text_files
from hf_genmodels.errors import UserError


def check(sources: Sequence[Path], targets: Sequence[Path]) -> None:
    """Find what keeps files from belonging together; counts their lines.

    Args:
        sources: Files of one side.
        targets: Files of the other side, in the same order.

    Raises:
        UserError: If their numbers differ, a file stands on both sides or is no text, or two files have
            different numbers of lines.
    """
    if len(sources) != len(targets):
        raise UserError(
            f"There are {len(sources)} source files and {len(targets)} target files. Give as many "
            "of one as of the other, in the same order."
        )
    for source, target in zip(sources, targets, strict=True):
        if source.resolve() == target.resolve():
            raise UserError(f"The file '{source}' was given for both sides. Give two files.")
        for file in (source, target):
            _check_text(file)
        counts = text_files.count_lines(source), text_files.count_lines(target)
        if counts[0] != counts[1]:
            raise UserError(
                f"The files do not belong together line by line: '{source}' has {counts[0]:,} lines "
                f"and '{target}' has {counts[1]:,}. Line i of one must belong to line i of the other; "
                "an empty line keeps the place of a missing one."
            )


def _check_text(file: Path) -> None:
    if (file_format := text_files.common_format([file])) != "text":
        raise UserError(
            f"Parallel files are plain text, and '{file}' is {file_format}. Give tables with "
            "--train_file."
        )
    text_files.check_file(file, "text")


def lines(sources: Sequence[Path], targets: Sequence[Path]) -> Iterator[tuple[str, str]]:
    """Yield the lines of both sides that belong together, in order.

    Args:
        sources: Files of one side.
        targets: Files of the other side; see `check`.
    """
    for source, target in zip(sources, targets, strict=True):
        yield from zip(text_files.text_lines(source), text_files.text_lines(target), strict=True)
