"""Uploads what a run publishes, beside the training."""

from __future__ import annotations

import logging
import os
import shutil
import threading
from pathlib import Path

from tqdm import tqdm

from hf_genmodels.config.hub import HubConfig
from hf_genmodels.errors import UserError
from hf_genmodels.hub.folder import WEIGHTS, published_files
from hf_genmodels.hub.push import PushReport, push_folder

logger = logging.getLogger("hf_genmodels")
SNAPSHOTS = ".uploading"
# Whoever stops a run often ends it by force soon.
STOP_SECONDS = 15.0


class Uploads:
    """Uploads each version of a published folder in a thread; no failure reaches the training.

    What is uploaded is a copy of its own (of weights, a second name), so that the folder can be
    published again meanwhile. Versions that are superseded before their turn are left out.

    Args:
        folder: The published folder.
        config: The repository.
    """

    def __init__(self, folder: Path, config: HubConfig):
        self.folder = folder
        self.repo_id = str(config.hub_model_id)
        self.private = config.hub_private
        self._next: tuple[int, Path] | None = None
        self._has_warned = self._is_over = False
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._quiet = _Quiet()
        shutil.rmtree(folder / SNAPSHOTS, ignore_errors=True)  # of a process that was killed

    def begin(self, step: int) -> None:
        """Upload the folder as it is now, as soon as what is under way is done.

        Args:
            step: Optimizer steps done.
        """
        try:
            snapshot = take_snapshot(self.folder, self.folder / SNAPSHOTS / f"step-{step}")
        except (OSError, ValueError) as error:
            self._warn(step, error)
            return
        with self._lock:
            if self._next is not None:
                shutil.rmtree(self._next[1], ignore_errors=True)
            self._next = (step, snapshot)
            if self._thread is None:
                self._quiet.begin()
                self._thread = threading.Thread(target=self._work, name="upload", daemon=True)
                self._thread.start()

    def finish(self) -> PushReport | None:
        """Wait for what is under way, and upload the folder as it is at last; report a failure.

        Returns:
            What was uploaded; `None` if that failed.
        """
        self._end(None)
        try:
            report = push_folder(self.folder, self.repo_id, private=self.private)
        except Exception as error:  # the network and the hub fail in many ways
            logger.warning(
                "The model is not on the hub: %s\nIt is complete in %s; upload it later with:\n"
                "  genmodels push %s %s%s",
                _line(error),
                self.folder,
                self.folder,
                self.repo_id,
                " --private" if self.private else "",
            )
            return None
        logger.info("%s", report)
        return report

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Give what is under way a moment to end, and leave the rest to the run that goes on.

        Args:
            seconds: How long.
        """
        if not self._is_over and not self._end(seconds):
            logger.warning(
                "The upload to %s was not finished; the run uploads again when it goes on.",
                self.repo_id,
            )

    def _end(self, seconds: float | None) -> bool:
        """Begin nothing new and wait for the thread; tell whether it ended in time."""
        with self._lock:
            self._next = None
            thread = self._thread
        if thread is not None:
            thread.join(1.0 if seconds is None else seconds)
            if seconds is None and thread.is_alive():
                logger.info("waiting for the upload to %s ...", self.repo_id)
                thread.join()
        self._is_over = True
        self._quiet.end()
        shutil.rmtree(self.folder / SNAPSHOTS, ignore_errors=True)
        return thread is None or not thread.is_alive()

    def _work(self) -> None:
        """Upload until nothing waits."""
        while True:
            with self._lock:
                if self._next is None:
                    self._thread = None
                    return
                (step, snapshot), self._next = self._next, None
            try:
                report = push_folder(
                    snapshot,
                    self.repo_id,
                    private=self.private,
                    message=f"Model after {step} steps",
                )
            except Exception as error:  # whatever it is, training goes on
                self._warn(step, error)
            else:
                logger.info("step %d: %s", step, report)
            finally:
                shutil.rmtree(snapshot, ignore_errors=True)

    def _warn(self, step: int, error: Exception) -> None:
        if not self._has_warned and not self._is_over:
            logger.warning(
                "The model of step %d was not uploaded: %s Training goes on; the upload is tried again "
                "with every model that is published, and when the run ends.",
                step,
                _line(error),
            )
        self._has_warned = True


def take_snapshot(folder: Path, snapshot: Path) -> Path:
    """Copy the published files of a folder; weights get a second name where the disk allows it.

    A new version of the weights is another file, which takes the name of the earlier one; small
    files may be written anew as they are.

    Args:
        folder: The published folder.
        snapshot: Folder for the copy, on the same disk; made if need be.

    Returns:
        The copy.

    Raises:
        OSError: If the disk is full.
    """
    for name in published_files(folder):
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        if WEIGHTS.fullmatch(name.name) and name.suffix == ".safetensors":
            try:
                os.link(folder / name, snapshot / name)
                continue
            except OSError:  # a file system without second names
                (snapshot / name).unlink(missing_ok=True)
        shutil.copyfile(folder / name, snapshot / name)
    return snapshot


def _line(error: Exception) -> str:
    return str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}."


class _Quiet:
    """Keeps bars and warnings of the hub's client away from the lines of training."""

    def __init__(self) -> None:
        self._before: tuple[bool, int] | None = None

    def begin(self) -> None:
        from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars
        from huggingface_hub.utils import logging as hub_logging
        from huggingface_hub.utils import tqdm as hub_bar

        # All bars are kept in one list. The client guards it by a lock of its own, others by tqdm's.
        hub_bar.set_lock(tqdm.get_lock())
        if self._before is None:
            self._before = (are_progress_bars_disabled(), hub_logging.get_verbosity())
            disable_progress_bars()
            hub_logging.set_verbosity(logging.CRITICAL)

    def end(self) -> None:
        from huggingface_hub.utils import enable_progress_bars
        from huggingface_hub.utils import logging as hub_logging

        if self._before is not None:
            were_disabled, verbosity = self._before
            self._before = None
            hub_logging.set_verbosity(verbosity)
            if not were_disabled:
                enable_progress_bars()
