"""Show how far a tokenizer's training is: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterable, Iterator
from types import TracebackType

from tqdm import tqdm

_LINE_SECONDS = 10.0
_TICK_SECONDS = 0.5


def show_reading(texts: Iterable[str], total_bytes: int | None) -> Iterator[str]:
    """Pass texts on and show on standard error how many bytes of them have been read.

    Args:
        texts: The texts.
        total_bytes: About how many bytes there will be, for the time that is left; None if unknown.
    """
    terminal = sys.stderr.isatty()
    started = shown = time.monotonic()
    done = 0
    with tqdm(
        desc="Reading text", total=total_bytes, unit="B", unit_scale=True, disable=not terminal
    ) as bar:
        for text in texts:
            yield text
            size = len(text.encode("utf-8", "replace"))
            done += size
            if bar.total is not None:
                bar.total = max(bar.total, done)
            bar.update(size)
            now = time.monotonic()
            if not terminal and now - shown >= _LINE_SECONDS:
                shown = now
                _print(f"Reading text: {_amount(done, total_bytes, now - started)}")
        bar.total = done
        bar.refresh()
    if not terminal:
        _print(f"Read {done / 1e6:.1f} MB of text in {time.monotonic() - started:.0f} s.")


def _amount(done: int, total: int | None, seconds: float) -> str:
    if not total:
        return f"{done / 1e6:.1f} MB in {seconds:.0f} s"
    total = max(total, done)
    left = seconds * (total - done) / max(done, 1)
    return f"{100 * done / total:.0f} % of {total / 1e6:.1f} MB, about {left:.0f} s left"


class Ticker:
    """Shows that work goes on whose length is not known in advance.

    A clock runs on a terminal; elsewhere a line is printed every ten seconds.

    Args:
        what: What is being done, for example ``"Learning 8,192 tokens"``.
        show: Whether anything is shown.
    """

    def __init__(self, what: str, show: bool = True) -> None:
        self.what = what
        self.show = show
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._tick, daemon=True)

    def start(self) -> None:
        """Begin to show the clock."""
        self._started = time.monotonic()
        if self.show:
            self._thread.start()

    def _tick(self) -> None:
        terminal = sys.stderr.isatty()
        while not self._done.wait(_TICK_SECONDS if terminal else _LINE_SECONDS):
            text = f"{self.what}: {time.monotonic() - self._started:.0f} s"
            _print(f"\r{text} ", end="") if terminal else _print(text)

    def __enter__(self) -> Ticker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._done.set()
        if self._thread.ident is None:
            return
        self._thread.join()
        start = "\r" if sys.stderr.isatty() else ""
        _print(f"{start}{self.what}: {time.monotonic() - self._started:.1f} s")


def _print(text: str, end: str = "\n") -> None:
    sys.stderr.write(text + end)
    sys.stderr.flush()
