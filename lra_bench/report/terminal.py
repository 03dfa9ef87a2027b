"""Tables on a terminal, by rich. Text from records is printed as it is: no rich markup is read in it."""

from __future__ import annotations

from typing import Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from lra_bench.report.formats import one_line
from lra_bench.report.table import Cell, Table


def show(table: Table, console: Console, *, models: frozenset[str] | None = None) -> None:
    """Print one table, a part per block. Quoted rows are dim; where `models` is given, only those of these names."""
    console.print(Text(table.title, style="bold"))
    keep = _filled(table)
    hidden = 0
    for block in (block for block in table.blocks if block.rows):
        rows = [row for row in block.rows if not block.quoted or models is None or row[0].text in models]
        hidden += len(block.rows) - len(rows)
        if not rows:
            continue
        shown = RichTable(title=Text(block.title), title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
        for column in keep:
            title = table.columns[column].title
            justify: Literal["left", "right"] = "right" if table.columns[column].numeric else "left"
            least = max(map(len, title.split()))
            shown.add_column(Text(title), justify=justify, overflow="fold", no_wrap=column == 0, min_width=least)
        for row in rows:
            shown.add_row(*(_text(row[column], block.quoted) for column in keep))
        console.print(shown)
    for note in (*table.notes, *(block.note for block in table.blocks if block.note and block.rows)):
        console.print(Text(note, style="dim"))
    for mark, meaning in table.footnotes:
        console.print(Text(f"{mark}: {meaning}", style="dim"))
    if hidden:
        console.print(Text(f"{hidden} more quoted rows are in leaderboard.md.", style="dim"))
    console.print()


def _filled(table: Table) -> list[int]:
    """The columns with something in a measured row: a terminal has no room for the rest."""
    measured = [row for block in table.blocks if not block.quoted for row in block.rows]
    return [i for i in range(len(table.columns)) if not measured or any(row[i].text != "–" for row in measured)]


def _text(cell: Cell, quoted: bool) -> Text:
    style = {"best": "bold", "second": "underline", "": "dim italic" if quoted else ""}[cell.rank]
    text = Text(one_line(cell.text), style=style)
    if cell.marks:
        text.append(f" {','.join(cell.marks)}", style="dim")
    return text
