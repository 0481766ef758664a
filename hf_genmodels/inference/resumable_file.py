"""A file of results that grows, and goes on where it stopped when the process was killed."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from hf_genmodels.data.cache_folder import write_json
from hf_genmodels.errors import UserError


class ResumableFile:
    """Appends lines; a small file beside it says what is certain, and goes when all is done.

    The small file is replaced after each piece, when the piece is on the disk. What a killed process
    wrote behind that, such as half a line, is cut off.

    Args:
        path: The file of results. Without a small file beside it, it is replaced.
        identity: What decides the results, JSON-able, by the words of a message: name -> value.

    Raises:
        UserError: If the file was begun with another identity, has been changed since, or cannot be
            written.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any]):
        self.path = path
        self.done = 0
        self.counts: dict[str, int] = {}
        self._state_file = path.with_name(f"{path.name}.progress")
        self._identity = json.loads(json.dumps(identity))
        size = self._read_state()
        try:
            self._write_state(size)
            self._file: BinaryIO = path.open("r+b" if path.exists() else "w+b")
        except (PermissionError, IsADirectoryError) as error:
            raise UserError(f"--output {path} cannot be written: {error.strerror}.") from error
        self._file.truncate(size)
        self._file.seek(size)

    def append(self, lines: str, count: int, **counts: int) -> None:
        """Write the results of some sources, and make sure that they stay.

        Args:
            lines: Whole lines.
            count: Number of sources.
            **counts: Further numbers that are summed up over all pieces, in `counts`.
        """
        self._file.write(lines.encode("utf-8"))
        self._file.flush()
        os.fsync(self._file.fileno())
        self.done += count
        for name, number in counts.items():
            self.counts[name] = self.counts.get(name, 0) + number
        self._write_state(self._file.tell())

    def finish(self) -> None:
        """Say that all is written."""
        self.close()
        self._state_file.unlink()

    def close(self) -> None:
        """Close the file; a later run goes on from here."""
        self._file.close()

    def _read_state(self) -> int:
        """Return how many bytes of the file are certain."""
        if not self._state_file.exists():
            return 0
        anew = f"Delete '{self._state_file}' to begin anew."
        try:
            state = json.loads(self._state_file.read_text(encoding="utf-8"))
            begun, size = state["identity"], int(state["size"])
            self.done, self.counts = int(state["done"]), dict(state["counts"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"'{self._state_file}' cannot be used: {error}. {anew}") from error
        if different := _differences(begun, self._identity):
            raise UserError(
                f"'{self.path}' was begun with {different}. Finish it that way, or choose another "
                f"--output. {anew}"
            )
        found = self.path.stat().st_size if self.path.exists() else 0
        if found < size:
            raise UserError(
                f"'{self.path}' has {found:,} bytes, but {size:,} had been written when the work "
                f"stopped: it has been changed. {anew}"
            )
        return size

    def _write_state(self, size: int) -> None:
        staged = self._state_file.with_name(f".{self._state_file.name}.{os.getpid()}")
        state = {"done": self.done, "size": size, "counts": self.counts}
        write_json(staged, {**state, "identity": self._identity})
        staged.replace(self._state_file)


def _differences(begun: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Say in what two identities differ; nothing if they do not."""
    found = []
    for name in {**begun, **now}:
        old, new = begun.get(name), now.get(name)
        if old == new:
            continue
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
            values = ", ".join(f"{key} {old.get(key)}, now {new.get(key)}" for key in keys)
            found.append(f"other {name} ({values})")
        else:
            found.append(f"another {name}")
    return " and ".join(found)
