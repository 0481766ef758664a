"""Folders of prepared data: built beside their place and renamed when complete."""

from __future__ import annotations

import errno
import json
import logging
import os
import secrets
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from hf_genmodels.errors import UserError

logger = logging.getLogger(__name__)

Cache = TypeVar("Cache")

# A staging folder nobody wrote to for this long (seconds) was left behind by a killed process.
_ABANDONED_AFTER = 3600.0


def default_cache_dir(kind: str = "tokens") -> Path:
    """Return ``$HF_GENMODELS_CACHE``, or ``~/.cache/hf_genmodels/KIND`` where that is not set."""
    configured = os.environ.get("HF_GENMODELS_CACHE")
    if configured:
        return Path(configured).expanduser()
    return Path.home() / ".cache" / "hf_genmodels" / kind


def open_or_build(
    target: Path, open_folder: Callable[[Path], Cache], write_folder: Callable[[Path], None]
) -> Cache:
    """Open what an earlier call built, or build it.

    The work is done in a staging folder that is renamed when complete, so several processes may ask
    for the same folder at once. A folder that cannot be opened is built again.

    Args:
        target: The finished folder.
        open_folder: Maps a finished folder; raises ValueError if it is damaged.
        write_folder: Fills an empty folder.

    Returns:
        What ``open_folder`` returns.

    Raises:
        UserError: If the disk is full or the folder cannot be made.
    """
    if target.exists():
        try:
            cache = open_folder(target)
            logger.info("Reusing what was prepared in %s", target)
            return cache
        except ValueError as error:
            logger.warning("%s It is built again.", error)
    staging = _staging_folder(target)
    try:
        write_folder(staging)
        return _publish(staging, target, open_folder)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise _cannot_write(target.parent, error) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def write_json(file: Path, content: Any) -> None:
    """Write what JSON can hold to a file and wait until it is on the disk."""
    with file.open("w", encoding="utf-8") as stream:
        json.dump(content, stream, indent=2)
        stream.flush()
        os.fsync(stream.fileno())


def _staging_folder(target: Path) -> Path:
    """Make an empty folder beside the target, and remove those that killed processes left."""
    staging = target.with_name(f"{target.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(target.parent)
        staging.mkdir()
    except OSError as error:
        raise _cannot_write(target.parent, error) from error
    return staging


def _cannot_write(root: Path, error: OSError) -> UserError:
    return UserError(
        f"Cannot write the cache in {root}: {error.strerror}. Make room there, or choose "
        f"another folder with the environment variable HF_GENMODELS_CACHE."
    )


def _publish(staging: Path, target: Path, open_folder: Callable[[Path], Cache]) -> Cache:
    """Rename a complete staging folder to its final name, unless another process was faster."""
    try:
        staging.rename(target)
    except OSError:
        if not target.exists():
            raise
        try:
            return open_folder(target)
        except ValueError:
            damaged = staging.with_suffix(".damaged")
            target.rename(damaged)
            staging.rename(target)
            shutil.rmtree(damaged, ignore_errors=True)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return open_folder(target)


def _remove_abandoned(root: Path) -> None:
    """Delete staging folders of processes that were killed."""
    now = time.time()
    for folder in [*root.glob("*.tmp"), *root.glob("*.damaged")]:
        times = [path.stat().st_mtime for path in (folder, *folder.glob("*")) if path.exists()]
        if times and now - max(times) > _ABANDONED_AFTER:
            shutil.rmtree(folder, ignore_errors=True)
