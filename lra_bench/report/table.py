"""What a table is before it is Markdown, LaTeX, CSV, HTML or a terminal: text, sort value and marks of every cell."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Rank = Literal["", "best", "second"]

MARKS = {
    "g": "generated here with the task's own generator; not the official files",
    "u": "read from the user's own files, whose origin lra-bench cannot know",
    "m": "from a mirror of the official files",
    "t": "the checkpoint was chosen on the test set, as the published protocol of this task does",
    "d": "some seeds diverged: they count as not solved and are in no mean",
    "e": "memory as the compiler estimates it, not as the device measured it",
    "s": "secondary: read in another work than the model's own paper",
    "n": "not verified: no source was read for this number",
    "c": "color images, not the grayscale ones of the benchmark",
    "v": "reported as validation accuracy",
}
"""Footnote letters and what they say, the same in every table."""


@dataclass(frozen=True)
class Cell:
    """`value` is what the column sorts by; `runs` are the ids of the records behind the cell.

    `note` stands in brackets after the text where there is room: not in LaTeX, not on a terminal. `hint` is told by the
    HTML page to who points at the cell.
    """

    text: str
    value: float | None = None
    rank: Rank = ""
    marks: str = ""
    runs: tuple[str, ...] = ()
    note: str = ""
    hint: str = ""

    @property
    def long(self) -> str:
        return f"{self.text} ({self.note})" if self.note else self.text


@dataclass(frozen=True)
class Column:
    """`quoted_only`: in LaTeX the column is left out of the tables of measured rows."""

    title: str
    numeric: bool = True
    quoted_only: bool = False


@dataclass(frozen=True)
class Block:
    """Rows under one heading. Quoted rows were not measured here and look different everywhere."""

    title: str
    rows: tuple[tuple[Cell, ...], ...]
    quoted: bool = False
    note: str = ""

    @property
    def marks(self) -> set[str]:
        return {mark for row in self.rows for cell in row for mark in cell.marks}


@dataclass(frozen=True)
class Table:
    name: str
    title: str
    columns: tuple[Column, ...]
    blocks: tuple[Block, ...]
    notes: tuple[str, ...] = ()

    @property
    def footnotes(self) -> list[tuple[str, str]]:
        return footnotes(self.blocks)

    @property
    def measured(self) -> bool:
        """Whether there is a row that is not quoted."""
        return any(block.rows for block in self.blocks if not block.quoted)

    @property
    def empty(self) -> bool:
        return not any(block.rows for block in self.blocks)


def footnotes(blocks: Iterable[Block]) -> list[tuple[str, str]]:
    """The marks these rows use, with their meaning, in alphabetical order."""
    used = {mark for block in blocks for mark in block.marks}
    return [(mark, MARKS[mark]) for mark in sorted(used)]


def ranks(values: Iterable[float | None], *, smallest: bool = False) -> list[Rank]:
    """Best and second best of the values, ties sharing their rank; nothing where fewer than two values are there."""
    values = list(values)
    present = sorted({value for value in values if value is not None}, reverse=not smallest)
    if len([value for value in values if value is not None]) < 2:
        return ["" for _ in values]
    names: dict[float, Rank] = dict(zip(present, ("best", "second"), strict=False))
    return ["" if value is None else names.get(value, "") for value in values]
