"""Printing tables on a terminal with rich. Text from records is printed as it is, without reading rich markup in it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table as RichTable
from rich.text import Text

from lra_bench.paths import default_results_dir
from lra_bench.plain_text import one_line
from lra_bench.report.compact import DIFFERENCE_LABEL, seeds_note, without
from lra_bench.report.table import ABSENT, PARTS, STYLES, Block, Cell, Table, parts, tables_with

LONGEST_WORD = 16
"""The longest word of a text column that is kept on one line, in letters. A number is never broken."""


SHORT_NAME = 12
"""The letters of the first column of the compact table that are kept on one line."""

NARROWER: tuple[tuple[str, ...], ...] = (
    (),
    ("speed",),
    ("speed", "parameters"),
    ("speed", "parameters", "wins"),
    ("speed", "parameters", "wins", "avg5"),
)
"""The columns that the compact table is without on a narrow terminal, the widest table first."""

FIRST_RECORD = (
    "Next: `lra-bench quickstart` trains a small model in about a minute and prints its table. Or `lra-bench prepare "
    "listops`, then `lra-bench train --model s5 --task listops`: it writes a record, and `lra-bench report` shows it."
)
"""What to type where there are no records."""

ASCII = str.maketrans({"±": "+-", "✗": "x", "–": "-", "−": "-", "×": "x", "Δ": "diff.", "²": "2", "ω": "w", "—": "-"})
"""The letters of tables that a terminal of ASCII does not have, and what it shows."""


def print_report(
    tables: Sequence[Table],
    compact: Table,
    console: Console,
    results_dir: Path,
    *,
    part: str | None = None,
    verbose: bool = False,
) -> None:
    """Print the compact accuracy table, or the tables of a part, or with `verbose` every main table.

    Without accuracies the first main table that has measured rows stands for it; without any, quoted rows and what to
    type next.
    """
    command = report_command(results_dir)
    there = {table.name: table for table in tables}
    main = [there[name] for name in tables_with("terminal") if name in there and there[name].measured]
    measured = [table for table in main if table.name != "left-out"]
    if part is not None:
        chosen = [there[name] for name in PARTS[part] if name in there]
        for table in chosen:
            show(table, console)
        if not chosen:
            _say(console, f"No record in {results_dir} has what `{command} {part}` shows.")
        return
    if not measured:
        _say(console, f"No record in {results_dir} can be shown yet. These accuracies are quoted from papers:")
        show_compact(compact, console)
        _say(console, f"All that are quoted: `{command} accuracy`.")
        _say(console, FIRST_RECORD)
    elif verbose:
        for table in main:
            show(table, console)
    elif measured[0].name == "accuracy-paper":
        show_compact(compact, console)
    else:
        show(measured[0], console)
    if not verbose:
        _say_what_else(there, console, command)


def report_command(results_dir: Path, out_dir: Path | None = None) -> str:
    """Return the command that makes the report of this folder, and writes it into another one if it is named."""
    place = [] if results_dir.resolve() == default_results_dir().resolve() else ["--results-dir", str(results_dir)]
    return shlex.join(["lra-bench", "report", *place, *(["--out", str(out_dir)] if out_dir else [])])


def _say_what_else(there: dict[str, Table], console: Console, command: str) -> None:
    """Print how many records were left out, and the commands for the tables that are there."""
    left_out = sum(len(block.rows) for block in there["left-out"].blocks) if "left-out" in there else 0
    if left_out:
        _say(
            console,
            f"{left_out} record{'s' if left_out > 1 else ''} left out, with reasons: `{command} left-out`.",
        )
    parts = [part for part, names in PARTS.items() if part != "left-out" and any(name in there for name in names)]
    if parts == ["accuracy"]:
        return
    _say(console, f"In full: `{command} PART`, where PART is one of {', '.join(parts)}; or `--verbose`.")


def _say(console: Console, text: str, style: str = "") -> None:
    if text:
        console.print(Text(_letters(one_line(text), console), style=style))


def _letters(text: str, console: Console) -> str:
    """Return the text in the letters that the terminal has."""
    return text.translate(ASCII) if console.options.ascii_only else text


def show_compact(table: Table, console: Console) -> None:
    """Print the compact table with the blocks' columns aligned, as wide as the terminal allows.

    A narrow terminal shows fewer columns, then no deviations, then a list.
    """
    forms = [without(table, names) for names in NARROWER]
    forms.append(_without_deviations(forms[-1]))
    fitting = next((form for form in forms if _width(form, console) <= console.width), None)
    if fitting is None:
        show(table, console)
        return
    console.print(Text(_letters(table.title, console), style="bold"))
    widths = [_column_width(fitting, i, console) for i in range(len(fitting.columns))]
    widths[0] = min(widths[0], console.width - sum(widths[1:]) - len(widths))
    for n, block in enumerate(fitting.blocks):
        grid = RichTable(
            title=Text(_letters(block.title, console)),
            title_justify="left",
            box=SIMPLE_HEAD,
            pad_edge=False,
            padding=0,
            show_header=n == 0,
            show_edge=False,
        )
        for i, column in enumerate(fitting.columns):
            grid.add_column(
                Text("\n".join(_heading(fitting, i, console))),
                justify="right" if column.numeric else "left",
                no_wrap=column.numeric,
                overflow="fold",
                width=widths[i],
            )
        for row in block.rows:
            dim = block.quoted or row[0].text == DIFFERENCE_LABEL
            grid.add_row(*(_text(cell, dim, console, "") for cell in row))
        console.print(grid)
    _say(console, " ".join(_shown_notes(fitting.notes, console)), "dim")
    _say(console, "; ".join(f"{mark}: {meaning}" for mark, meaning in fitting.footnotes), "dim")
    console.print()


def _without_deviations(table: Table) -> Table:
    """Return the compact table without standard deviations."""

    def shorter(cell: Cell) -> Cell:
        return replace(cell, text=replace(cell.accuracy, std=None).short()) if cell.accuracy else cell

    blocks = [replace(block, rows=tuple(tuple(map(shorter, row)) for row in block.rows)) for block in table.blocks]
    long, short = (seeds_note(table.blocks, deviations) for deviations in (True, False))
    notes = tuple(short if note == long else note for note in table.notes)
    return replace(table, blocks=tuple(blocks), notes=notes)


def _heading(table: Table, i: int, console: Console) -> list[str]:
    """Return the lines of a heading: its title with its footnote letters, and its detail."""
    column = table.columns[i]
    lines = [line for line in (column.title, column.detail) if line]
    if column.marks:
        lines[-1] += f" {','.join(column.marks)}"
    return [_letters(one_line(line), console) for line in lines]


def _column_width(table: Table, i: int, console: Console) -> int:
    cells = [_text(row[i], block.quoted, console, "").cell_len for block in table.blocks for row in block.rows]
    return max([*map(len, _heading(table, i, console)), *cells])


def _width(table: Table, console: Console) -> int:
    """Return the least width of the compact table: names of rows may break, and a space is behind each column."""
    columns = [_column_width(table, i, console) for i in range(len(table.columns))]
    return min(columns[0], SHORT_NAME) + sum(columns[1:]) + len(columns)


def show(table: Table, console: Console) -> None:
    """Print one table, a part per block, with quoted rows dim."""
    console.print(Text(_letters(table.title, console), style="bold"))
    keep = _filled(table)
    for block in table.blocks:
        if block.rows:
            _show_block(table, block, keep, console)
    _show_notes(table, console)


def _shown_notes(notes: Sequence[str], console: Console) -> list[str]:
    """Return the notes that are true of what is printed: a pipe or a file shows nothing bold or underlined."""
    return [note for note in notes if console.color_system is not None or not note.startswith(STYLES)]


def _show_notes(table: Table, console: Console) -> None:
    """Print the notes and the footnotes of a table, and an empty line."""
    for note in _shown_notes(table.notes_with(table.blocks), console):
        console.print(Text(_letters(note, console), style="dim"))
    for mark, meaning in table.footnotes:
        console.print(Text(_letters(f"{mark}: {meaning}", console), style="dim"))
    console.print()


def _filled(table: Table) -> list[int]:
    """Return the indices of the columns that have a value in a measured row, to save width."""
    measured = [row for block in table.blocks if not block.quoted for row in block.rows]
    return [i for i in range(len(table.columns)) if not measured or any(row[i].text != ABSENT for row in measured)]


def _show_block(table: Table, block: Block, keep: Sequence[int], console: Console) -> None:
    """Print one block as a table if no number is broken, otherwise as a list with a line per row.

    In a table too wide for the terminal, the numbers in brackets and behind commas are on lines of their own.
    """
    for separator in (" ", "\n"):
        made = _block_table(table, block, keep, console, separator)
        # Measured with ample width, because rich caps the least width of a table at the width it is given.
        if Measurement.get(console, console.options.update(max_width=10_000), made).minimum <= console.width:
            console.print(made)
            return
    console.print(Text(_letters(block.title, console), style="italic"))
    for row in block.rows:
        _show_as_list(table, row, block.quoted, keep, console)


def _show_as_list(table: Table, row: Sequence[Cell], quoted: bool, keep: Sequence[int], console: Console) -> None:
    """Print one row as a list of its columns, of which each is on one line where it fits."""
    line = Text("  ").append_text(_text(row[keep[0]], quoted, console))
    for i in keep[1:]:
        item = Text().append(_letters(f"{table.columns[i].title} ", console), style="dim")
        item.append_text(_text(row[i], quoted, console))
        if line.cell_len + len("; ;") + item.cell_len <= console.width:
            line.append("; ", style="dim").append_text(item)
        else:
            console.print(line.append(";", style="dim"))
            line = Text("    ").append_text(item)
    console.print(line)


def _block_table(table: Table, block: Block, keep: Sequence[int], console: Console, separator: str) -> RichTable:
    """Return one block as a table. A line of a number breaks only where the separator of its parts is a line's end."""
    made = RichTable(title=Text(_letters(block.title, console)), title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for i in keep:
        column, heading = table.columns[i], "\n".join(_heading(table, i, console))
        words = [
            word
            for text in (heading, *(_text(row[i], False, console).plain for row in block.rows))
            for word in text.split()
        ]
        lines = [line for row in block.rows for line in _number(row[i], False, console, separator).plain.splitlines()]
        width = max(map(len, lines)) if column.numeric else min(max(map(len, words)), LONGEST_WORD)
        made.add_column(
            Text(heading),
            justify="right" if column.numeric else "left",
            overflow="fold",
            min_width=max(width, max(map(len, heading.split()))) if column.numeric else width,
        )
    for row in block.rows:
        made.add_row(
            *(
                _number(row[i], block.quoted, console, separator)
                if table.columns[i].numeric
                else _text(row[i], block.quoted, console)
                for i in keep
            )
        )
    return made


def _number(cell: Cell, quoted: bool, console: Console, separator: str) -> Text:
    """Return the text of a numeric cell with this separator between its parts."""
    text = _text(cell, quoted, console)
    text.plain = separator.join(parts(text.plain))
    return text


def _text(cell: Cell, quoted: bool, console: Console, separator: str = " ") -> Text:
    """Return the cell's text with the style of its rank, and behind the separator its footnote letters."""
    style = {"best": "bold", "second": "underline", "": "dim italic" if quoted else ""}[cell.rank]
    text = Text(_letters(one_line(cell.text), console), style=style)
    if cell.marks:
        text.append(separator + ("," if separator else "").join(cell.marks), style="dim")
    return text
