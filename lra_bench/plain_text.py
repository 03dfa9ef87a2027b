"""Text from files without what a terminal would obey: control characters, directions of writing, lone surrogates."""

from __future__ import annotations

import unicodedata

LONGEST = 300
"""The most characters of one value of a file that an error message quotes."""


def one_line(text: str) -> str:
    """Return `text` on one line, without line breaks, control characters and invisible characters that format.

    Every text that may come from a file passes through here, or through `plain`, before it is printed. An escape code
    could otherwise move the cursor, recolor the terminal or hide a line.
    """
    return " ".join("".join(c if unicodedata.category(c)[0] != "C" else " " for c in text).split())


def plain(text: str) -> str:
    """Return `text` with its lines, and with `�` for every other character that a terminal would obey."""
    if text.isascii() and text.replace("\n", "").isprintable():
        return text
    return "".join(c if c in "\n\t" or unicodedata.category(c)[0] != "C" else "�" for c in text)


def shortened(text: str) -> str:
    """Return `text` on one line, cut after `LONGEST` characters."""
    short = one_line(text[: 2 * LONGEST])
    return short if len(short) <= LONGEST and len(text) <= 2 * LONGEST else f"{short[:LONGEST]}…"
