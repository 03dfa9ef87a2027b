"""Printing tables on a terminal with rich. Text from records is printed as it is, without reading rich markup in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table as RichTable
from rich.text import Text

from lra_bench.plain_text import one_line
from lra_bench.report.table import ABSENT, Block, Cell, Table, footnotes

LONGEST_WORD = 16
"""The longest word of a text column that is kept on one line, in letters. A number is never broken."""


def show(table: Table, console: Console, *, models: frozenset[str] | None = None) -> None:
    """Print one table, a part per block, with quoted rows dim. With `models`, only quoted rows of these names."""
    console.print(Text(table.title, style="bold"))
    keep = _filled(table)
    shown = [_only(block, models) for block in table.blocks]
    for block in shown:
        if block.rows:
            _show_block(table, block, keep, console)
    for note in table.notes_with(shown):
        console.print(Text(note, style="dim"))
    for mark, meaning in footnotes(shown):
        console.print(Text(f"{mark}: {meaning}", style="dim"))
    hidden = sum(len(block.rows) for block in table.blocks) - sum(len(block.rows) for block in shown)
    if hidden:
        console.print(Text(f"{hidden} more quoted rows are in leaderboard.md.", style="dim"))
    console.print()


def _only(block: Block, models: frozenset[str] | None) -> Block:
    """Return the block with only those quoted rows that have a name in `models`."""
    if not block.quoted or models is None:
        return block
    return replace(block, rows=tuple(row for row in block.rows if row[0].text in models))


def _filled(table: Table) -> list[int]:
    """Return the indices of the columns that have a value in a measured row, to save width."""
    measured = [row for block in table.blocks if not block.quoted for row in block.rows]
    return [i for i in range(len(table.columns)) if not measured or any(row[i].text != ABSENT for row in measured)]


def _show_block(table: Table, block: Block, keep: Sequence[int], console: Console) -> None:
    """Print one block as a table if no number is broken, otherwise as a list with a line per row."""
    made = RichTable(title=Text(block.title), title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for i in keep:
        column = table.columns[i]
        words = [
            word
            for text in (column.title, *(_text(row[i], False).plain for row in block.rows))
            for word in text.split()
        ]
        least = max(map(len, words))
        width = least if column.numeric else min(least, LONGEST_WORD)
        made.add_column(
            Text(column.title), justify="right" if column.numeric else "left", overflow="fold", min_width=width
        )
    for row in block.rows:
        made.add_row(*(_text(row[i], block.quoted) for i in keep))
    # Measured with ample width, because rich caps the least width of a table at the width it is given.
    if Measurement.get(console, console.options.update(max_width=10_000), made).minimum <= console.width:
        console.print(made)
        return
    console.print(Text(block.title, style="italic"))
    for row in block.rows:
        line = Text("  ").append_text(_text(row[keep[0]], block.quoted))
        for i in keep[1:]:
            line.append(f"; {table.columns[i].title} ", style="dim").append_text(_text(row[i], block.quoted))
        console.print(line)


def _text(cell: Cell, quoted: bool) -> Text:
    """Return the cell's text with the style of its rank and its footnote letters."""
    style = {"best": "bold", "second": "underline", "": "dim italic" if quoted else ""}[cell.rank]
    text = Text(one_line(cell.text), style=style)
    if cell.marks:
        text.append(f" {','.join(cell.marks)}", style="dim")
    return text
