"""The tables of the report, independent of their output format: cells, columns, blocks, marks and ranks."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import Literal

from lra_bench.published_status import STATUS_MEANINGS

Rank = Literal["", "best", "second"]

Use = Literal["terminal", "latex", "csv", "folded"]
"""A use of a table: on the terminal, in leaderboard.tex, in a CSV file of its own, or closed at first on the page."""

USES: dict[str, tuple[Use, ...]] = {
    "accuracy-paper": ("terminal", "latex"),
    "accuracy-holdout": ("terminal", "latex", "csv"),
    "reduced": ("terminal", "csv"),
    "cells": ("latex", "csv", "folded"),
    "differences": ("latex", "csv", "folded"),
    "throughput": ("terminal", "latex", "csv"),
    "training-speed": ("terminal", "latex", "csv", "folded"),
    "robustness": ("terminal", "latex", "csv"),
    "windows": ("terminal", "latex", "csv"),
    "coverage": ("folded",),
    "provenance": ("folded",),
    "left-out": ("terminal", "folded"),
}
"""The uses of each table by its name. leaderboard.md and the page show all tables."""

PARTS: dict[str, tuple[str, ...]] = {
    "accuracy": ("accuracy-paper", "accuracy-holdout"),
    "reduced": ("reduced",),
    "cells": ("cells",),
    "differences": ("differences",),
    "speed": ("throughput", "training-speed"),
    "robustness": ("robustness",),
    "windows": ("windows",),
    "coverage": ("coverage",),
    "provenance": ("provenance",),
    "left-out": ("left-out",),
}
"""The tables that `lra-bench report PART` prints, by the name of the part."""

MARKS = {
    "a": "cannot be told apart from the best of its column at 95 %, over seeds and test examples, or where a seed "
    "failed by the share of seeds that solved the task; one seed never can; an average with a failed seed has no a",
    "g": "generated here with the task's own generator; not the official files",
    "u": "read from the user's own files, whose origin lra-bench cannot know",
    "o": "read from the user's own files, which by their fingerprint have the contents of the official ones",
    "m": "from a mirror of the official files",
    "t": "the checkpoint was chosen on the test set, as the published protocol of this task does",
    "d": "some seeds diverged or were stopped below a health mark: they count as the majority class",
    "e": "memory as the compiler estimates it, not as the device measured it",
    **STATUS_MEANINGS,
    "c": "color images, not the grayscale ones of the benchmark",
    "v": "reported as validation accuracy",
}
"""The meaning of each footnote letter, the same in every table."""

STYLES = "Best bold, second underlined"
"""How notes on ranks begin. A terminal that shows neither leaves these notes out."""

_PARTS = re.compile(r"(?<=,) | (?=\()")
"""The places at which the line of a numeric cell may break: behind a comma and before a bracket."""

ABSENT = "–"
"""The text of a cell that has no value."""


@dataclass(frozen=True)
class Accuracy:
    """The numbers of an accuracy cell in %, for formats that write them in their own way.

    `std` is None for a single seed, and where no seed solved the task. `solved` of the `seeds` solved it. `difference`
    is the mean minus the published number of the recipe, None where there is none, and `difference_marks` are the
    letters of `MARKS` that this published number has.
    """

    mean: float
    std: float | None = None
    solved: int = 1
    seeds: int = 1
    difference: float | None = None
    difference_marks: str = ""

    @property
    def note(self) -> str:
        """The difference with its footnote letters, such as `Δ +0.35` or `Δ +1.30 n`; "" where there is none."""
        if self.difference is None:
            return ""
        letters = f" {','.join(self.difference_marks)}" if self.difference_marks else ""
        return f"Δ {signed(self.difference, 2)}{letters}"

    def parts(self, digits: int) -> tuple[str, str, str]:
        """Return mean, deviation and "k/n" with so many decimals; the latter two are "" where they say nothing.

        A deviation below 1 has no leading zero, one of 10 or more has a decimal less, and k/n is given only where
        k < n. The mean is ✗ where k = 0.
        """
        if self.solved == 0:
            return "✗", "", f"0/{self.seeds}"
        deviation = ""
        if self.std is not None:
            deviation = rounded(self.std, digits - (self.std >= 9.95)).removeprefix("0")
        return rounded(self.mean, digits), deviation, f"{self.solved}/{self.seeds}" if self.solved < self.seeds else ""

    def short(self, digits: int = 1) -> str:
        """Return the numbers as plain text, such as `62.2±.2` or `86.8±20.5 4/5`."""
        mean, deviation, count = self.parts(digits)
        return mean + (f"±{deviation}" if deviation else "") + (f" {count}" if count else "")


@dataclass(frozen=True)
class Cell:
    """One cell of a table.

    The column sorts by `value`. `marks` are letters of `MARKS`, and `runs` the ids of the records behind the cell.
    `note` follows the text in brackets in Markdown, CSV, JSON and HTML, but not in LaTeX or on a terminal. The page
    shows `hint` while the pointer is on the cell. `accuracy` has the numbers of an accuracy cell, where it has any.
    A cell that is not `ranked` has no rank among the others of its column.
    """

    text: str
    value: float | None = None
    rank: Rank = ""
    marks: str = ""
    runs: tuple[str, ...] = ()
    note: str = ""
    hint: str = ""
    accuracy: Accuracy | None = None
    ranked: bool = True

    @property
    def long(self) -> str:
        """The text, with the note in brackets where there is one."""
        return f"{self.text} ({self.note})" if self.note else self.text


@dataclass(frozen=True)
class Column:
    """One column of a table, with its name after `--columns` and what stands under its title, such as a length.

    `marks` are letters of `MARKS` that every measured cell of the column has, in place of the same in each cell. LaTeX
    omits a `quoted_only` column where it shows measured rows.
    """

    title: str
    numeric: bool = True
    quoted_only: bool = False
    name: str = ""
    detail: str = ""
    marks: str = ""


@dataclass(frozen=True)
class Block:
    """The rows under one heading. `quoted` rows were not measured here, and every format shows them differently.

    `settings` says that the rows were measured with other settings than the published recipes'.
    """

    title: str
    rows: tuple[tuple[Cell, ...], ...]
    quoted: bool = False
    note: str = ""
    settings: bool = False

    @property
    def marks(self) -> set[str]:
        """The footnote letters of all cells."""
        return {mark for row in self.rows for cell in row for mark in cell.marks}


@dataclass(frozen=True)
class Table:
    """One table: its name in `USES`, title, columns, blocks of rows, and notes under it."""

    name: str
    title: str
    columns: tuple[Column, ...]
    blocks: tuple[Block, ...]
    notes: tuple[str, ...] = ()

    @property
    def footnotes(self) -> list[tuple[str, str]]:
        """The footnote letters of the headings and of all blocks with their meaning, in alphabetical order."""
        return footnotes(self.blocks, self.columns)

    @property
    def measured(self) -> bool:
        """Whether the table has a row that is not quoted."""
        return any(block.rows for block in self.blocks if not block.quoted)

    @property
    def empty(self) -> bool:
        """Whether the table has no rows."""
        return not any(block.rows for block in self.blocks)

    def notes_with(self, blocks: Iterable[Block]) -> list[str]:
        """Return the table's notes, then those of the given blocks that have rows."""
        return [*self.notes, *(block.note for block in blocks if block.note and block.rows)]


def tables_with(use: Use) -> list[str]:
    """Return the names of the tables with this use, in the order of `USES`."""
    return [name for name, uses in USES.items() if use in uses]


def rounded(value: float, digits: int) -> str:
    """Return the number with so many decimals, halves away from zero.

    A half is one in the shortest decimal text of the number: 62.15 is 62.2, although its nearest float is below.
    """
    return str(Decimal(repr(float(value))).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP))


def parts(text: str) -> list[str]:
    """Return the parts of a numeric cell between which its line may break."""
    return _PARTS.split(text)


def signed(value: float, digits: int) -> str:
    """Return a difference with its sign, which is absent where it rounds to zero."""
    text = rounded(abs(value), digits)
    return text if float(text) == 0 else ("−" if value < 0 else "+") + text


def footnotes(blocks: Iterable[Block], columns: Iterable[Column] = ()) -> list[tuple[str, str]]:
    """Return the footnote letters in these blocks and headings with their meaning, in alphabetical order."""
    used = {mark for block in blocks for mark in block.marks} | {mark for column in columns for mark in column.marks}
    return [(mark, MARKS[mark]) for mark in sorted(used)]


def ranks(values: Iterable[float | None], *, smallest: bool = False) -> list[Rank]:
    """Return the rank of each value: best, second or none; equal values share their rank.

    All ranks are "" where fewer than two values are not None.
    """
    values = list(values)
    present = sorted({value for value in values if value is not None}, reverse=not smallest)
    if len([value for value in values if value is not None]) < 2:
        return ["" for _ in values]
    names: dict[float, Rank] = dict(zip(present, ("best", "second"), strict=False))
    return ["" if value is None else names.get(value, "") for value in values]
