"""Cut a text into its opening and its continuation."""

from __future__ import annotations

import re

# A line end, or the marks that end a sentence with the quotes and brackets that close after them.
# Western marks end one only before white space, so that 3.14 and U.S.A. stay whole.
_ENDS = re.compile(r"\n+|[。！？；…]+[」』”’）》】]*|[.!?;…]+[\"'”’)\]]*(?=\s)")  # noqa: RUF001


def split_opening(text: str, share: float) -> tuple[str, str] | None:
    """Cut a text at the line or sentence end nearest to a share of its length.

    Args:
        text: A poem or another text.
        share: Which part of it is the opening, between 0 and 1.

    Returns:
        The opening and the continuation, without white space around them; None if the text has only one
        line or sentence.
    """
    text = text.strip()
    places = [place.end() for place in _ENDS.finditer(text) if place.end() < len(text)]
    if not places:
        return None
    place = min(places, key=lambda place: abs(place - share * len(text)))
    return text[:place].rstrip(), text[place:].lstrip()
