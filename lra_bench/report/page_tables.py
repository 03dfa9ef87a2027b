"""The tables as the page shows them: sorted by average, with numbers for the ids of records, and where lines break."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup, escape

from lra_bench.report.published import FAMILIES, family_place, published
from lra_bench.report.select import Loaded
from lra_bench.report.table import Block, Cell, Column, Table

_BREAKS = re.compile(r"(?<=[=/])(?=\S)")
"""The places inside a word at which a name may break: behind `=` or `/`, never inside a number."""

LONGEST_WORD = 24
"""The longest word in letters that is kept on one line."""


@dataclass(frozen=True)
class ShownRow:
    """One row, whose cells name records by their numbers. `family` is that of its model, "" where it is not known."""

    cells: tuple[Cell, ...]
    family: str


@dataclass(frozen=True)
class ShownBlock:
    """The rows under one heading."""

    title: str
    quoted: bool
    rows: tuple[ShownRow, ...]


@dataclass(frozen=True)
class ShownTable:
    """One table of the page. `sorted` is the index of the column that its blocks are sorted by, from the highest."""

    name: str
    title: str
    columns: tuple[Column, ...]
    blocks: tuple[ShownBlock, ...]
    notes: tuple[str, ...]
    footnotes: tuple[tuple[str, str], ...]
    sorted: int | None


def shown_tables(tables: Sequence[Table], loaded: Sequence[Loaded]) -> list[ShownTable]:
    """Return the tables as the page shows them at first. Their cells name a record by its place in `loaded`.

    The ids of files that could not be read are dropped.
    """
    numbers = {item.id: i for i, item in enumerate(loaded)}
    names = (*FAMILIES, "")  # a model of the user's own has no family
    places = {model: family_place(model) for model in {item.record.model for item in loaded}}
    families: dict[str, str] = {row.name: row.family for row in published().rows}
    families |= {item.id: names[places[item.record.model]] for item in loaded}
    return [_shown(table, numbers, families) for table in tables]


def _shown(table: Table, numbers: Mapping[str, int], families: Mapping[str, str]) -> ShownTable:
    """Return one table. `families` has the family of each quoted row by its name, and of each record by its id."""
    averages = [i for i, column in enumerate(table.columns) if column.title.startswith("Avg(")]
    blocks = [
        ShownBlock(
            block.title,
            block.quoted,
            tuple(
                ShownRow(_numbered(row, numbers), _family(row, block.quoted, families))
                for row in _by_average(block, averages)
            ),
        )
        for block in table.blocks
        if block.rows
    ]
    return ShownTable(
        table.name,
        table.title,
        table.columns,
        tuple(blocks),
        tuple(table.notes_with(table.blocks)),
        tuple(table.footnotes),
        averages[-1] if averages else None,
    )


def _by_average(block: Block, averages: Sequence[int]) -> list[tuple[Cell, ...]]:
    """Return the rows from the highest of the last average; rows without it follow, by the average before it."""

    def key(row: tuple[Cell, ...]) -> list[float]:
        values = [row[i].value for i in reversed(averages)]
        return [float("inf") if value is None else -value for value in values]

    return sorted(block.rows, key=key)


def _family(row: Sequence[Cell], quoted: bool, families: Mapping[str, str]) -> str:
    """Return the family of a row's model: by its name where it is quoted, otherwise by the first of its records."""
    keys = [row[0].text] if quoted else [run for cell in row for run in cell.runs]
    return families[keys[0]] if keys and keys[0] in families else ""


def _numbered(row: Sequence[Cell], numbers: Mapping[str, int]) -> tuple[Cell, ...]:
    """Return the cells with numbers for the ids in `Cell.runs`."""
    return tuple(
        replace(cell, runs=tuple(str(numbers[run]) for run in cell.runs if run in numbers)) if cell.runs else cell
        for cell in row
    )


def is_word(text: str) -> bool:
    """Whether the text is one short word, such as a date or a digest, whose line never breaks."""
    return " " not in text and len(text) <= LONGEST_WORD


def breakable(text: str) -> Markup:
    """Return text as HTML that may break inside long words such as `layer.dt_min=0.001`, but not inside a number."""
    return Markup("<wbr>").join(escape(part) for part in _BREAKS.split(text))
