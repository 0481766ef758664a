"""Text from files and models that does nothing to the terminal or page that shows it."""

from __future__ import annotations

# Without these, joined emoji and words of several scripts fall apart.
_JOINERS = "\u200c\u200d"


def printable(text: str) -> str:
    """Return text with control characters replaced, all but line ends and tabs.

    Escape sequences of terminals and marks that turn the direction of writing are among them.

    Args:
        text: Any text.
    """
    if text.isprintable():
        return text
    return "".join(
        c if c in "\n\t" or c in _JOINERS or c.isprintable() else "\N{REPLACEMENT CHARACTER}"
        for c in text
    )
