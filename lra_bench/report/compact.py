"""The compact accuracy table: what a paper prints, and what `lra-bench report` shows on a terminal.

It has the measured rows and some quoted ones of the full table, in cells of one line, and a line of differences to the
published numbers under each measured row.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from lra_bench.registry import task_names
from lra_bench.report.published import SCALING
from lra_bench.report.table import STYLES, Block, Cell, Column, Table, signed
from lra_bench.spec import unknown

SELECTED = (
    "Transformer", "LRU", "MEGA", "MEGALODON", "S4-LegS (v2)", "S4D-LegS", "S4-PTD", "S5", "S5-PTD", "Liquid-S4",
)  # fmt: skip
"""The quoted rows that are shown where `--rows` does not say which: those of lra-bench's models, and the best known."""

DIFFERENCE = "difference"
"""The name after `--columns` of the lines of differences to the published numbers."""

DIFFERENCE_LABEL = "Δ published"
"""The first cell of such a line."""

BESIDE = ("wins", "parameters", "speed")
"""The names of the columns that are no accuracies; nobody publishes the first, and we know few of the others."""

TITLE = "Long Range Arena"
DEVIATION = " ± standard deviation"
FAILED = "k/n: only k of n seeds solved the task; one that failed in whatever way counts as the majority class."
DELTA = "Δ: the mean minus the published number of the recipe."
WINS = (
    "Wins: the share of comparisons with the other rows, on each task that both have, that the row wins; ranked among "
    "the rows with all tasks that the row with most tasks has."
)
ALSO_HIDDEN = (
    "Ranks, wins and the mark a are among all {} rows measured here with published recipes, also those not shown."
)
RANKS = f"{STYLES}, of the rows measured here with published recipes."
QUOTED = "Quoted rows were not measured here."
NOT_SHOWN = "with other settings not shown; report accuracy and appendix.tex have all, --rows chooses some."

MOST_SETTINGS = 10
"""The most rows with other settings that are shown where nothing with a published recipe was measured."""


def compact_table(table: Table, columns: Sequence[str] = (), rows: Sequence[str] = ()) -> Table:
    """Return the compact form of an accuracy table with these columns and rows, in the order in which they are named.

    By default it has the columns that say something, the rows measured with published recipes and the quoted rows
    `SELECTED`. Where no published recipe was measured, the first rows with other settings stand for them. A name of a
    row chooses the rows of that name in every block. Raises UserError with the legal names for one that is unknown.
    """
    named = {column.name: i for i, column in enumerate(table.columns) if column.name}
    for name in columns:
        if name not in (*named, DIFFERENCE):
            raise unknown("column", name, [*named, DIFFERENCE])
    blocks = _chosen_blocks(table, rows)
    kept = [0, *(named[name] for name in columns or _default_columns(blocks, named) if name != DIFFERENCE)]
    beside = {named[name] for name in BESIDE}
    with_differences = not columns or DIFFERENCE in columns
    hidden = _hidden(table.blocks, blocks, bool(rows))
    blocks = [_compact_block(block, kept, beside, with_differences) for block in blocks]
    shared = _shared_marks(blocks, len(kept))
    blocks = [block if block.quoted else _without_marks(block, shared) for block in blocks]
    heads = [replace(table.columns[i], marks=marks) for i, marks in zip(kept, shared, strict=True)]
    return Table("compact", TITLE, tuple(heads), tuple(blocks), (*_notes(table, heads, blocks), *hidden))


def seeds_note(blocks: Iterable[Block], deviations: bool = True) -> str:
    """Return the note on the numbers: how many seeds the measured cells are of, and which ones are of a single seed.

    The tables show `deviations` or not. Quoted rows have those of the papers, which do not always name their seeds.
    """
    measured = [row for block in blocks if not block.quoted for row in block.rows]
    counts = sorted({cell.accuracy.seeds for row in measured for cell in row if cell.accuracy and cell.runs})
    spread = DEVIATION if deviations else ""
    if counts == [1]:
        return "Test accuracy in %, of one seed."
    several = [count for count in counts if count > 1] if deviations else counts
    single = "; without ± or k/n, of one seed" if deviations and 1 in counts else ""
    if not several:
        return f"Test accuracy in %, mean{spread} over seeds."
    span = f"{several[0]}" if len(several) == 1 else f"{several[0]} to {several[-1]}"
    return f"Test accuracy in %, mean{spread} over {span} seeds{single}."


def without(table: Table, names: Iterable[str]) -> Table:
    """Return the compact table without the columns of these names and the notes on them."""
    dropped = set(names)
    kept = [i for i, column in enumerate(table.columns) if column.name not in dropped]
    blocks = [replace(block, rows=tuple(tuple(row[i] for i in kept) for row in block.rows)) for block in table.blocks]
    gone = tuple(f"{column.title}:" for column in table.columns if column.name in dropped)
    notes = tuple(note for note in table.notes if not gone or not note.startswith(gone))
    return replace(table, columns=tuple(table.columns[i] for i in kept), blocks=tuple(blocks), notes=notes)


def _chosen_blocks(table: Table, rows: Sequence[str]) -> list[Block]:
    """Return the blocks with the rows of these names, or the default ones; blocks without rows are left out."""
    if not rows:
        return [block for block in _default_blocks(table.blocks) if block.rows]
    legal = list(dict.fromkeys(row[0].text for block in table.blocks for row in block.rows))
    by_name = {name.casefold(): name for name in legal}
    for name in rows:
        if name.casefold() not in by_name:
            raise unknown("row", name, legal)
    wanted = [by_name[name.casefold()] for name in rows]
    blocks = [
        _only(block, [row for name in wanted for row in block.rows if row[0].text == name]) for block in table.blocks
    ]
    return [block for block in blocks if block.rows]


def _default_blocks(blocks: Sequence[Block]) -> list[Block]:
    """Return the blocks with their default rows. Rows with other settings may be too many for a page or a terminal."""
    published = any(block.rows for block in blocks if not block.quoted and not block.settings)
    most = 0 if published else MOST_SETTINGS
    return [
        _only(block, [row for row in block.rows if row[0].text in SELECTED])
        if block.quoted
        else _only(block, block.rows[:most] if block.settings else block.rows)
        for block in blocks
    ]


def _hidden(full: Sequence[Block], shown: Sequence[Block], by_name: bool) -> list[str]:
    """Return the notes on measured rows that are not shown. Those that `--rows` does not name are not counted."""

    def count(blocks: Sequence[Block], settings: bool) -> int:
        return sum(len(block.rows) for block in blocks if not block.quoted and block.settings == settings)

    published, there = count(full, False), count(shown, False)
    if by_name:
        return [ALSO_HIDDEN.format(published)] if 0 < there < published else []
    others = count(full, True) - count(shown, True)
    return [f"{others} row{'s' if others > 1 else ''} {NOT_SHOWN}"] if others else []


def _only(block: Block, rows: Sequence[tuple[Cell, ...]]) -> Block:
    return replace(block, rows=tuple(rows))


def _default_columns(blocks: Sequence[Block], named: dict[str, int]) -> list[str]:
    """Return the columns that have a value in a measured row: tasks, one average, parameters, speed.

    The wins are there where a published recipe's row lacks a task that another one has. Where nothing is measured,
    the columns are those of the quoted rows without PathX-256, which hardly any has.
    """
    measured = [block for block in blocks if not block.quoted]
    rows = [row for block in measured or blocks for row in block.rows]
    filled = [name for name, i in named.items() if any(row[i].value is not None for row in rows)]
    if not measured:
        return [name for name in filled if name not in (SCALING, "avg5")]
    tasks = [name for name in filled if name in task_names()]  # wins are over these alone
    missing = any(row[named[name]].value is None for row in measured[0].rows for name in tasks)
    dropped = set() if missing else {"wins"}
    dropped |= {"avg5"} if "avg6" in filled else set()
    return [name for name in filled if name not in dropped]


def _compact_block(block: Block, kept: Sequence[int], beside: Collection[int], with_differences: bool) -> Block:
    """Return the block with these columns in cells of one line, and with lines of differences.

    The columns `beside` accuracies are empty in quoted rows.
    """
    rows = []
    for row in block.rows:
        cells = [row[i] for i in kept]
        rows.append(tuple(_short(cell, i in beside and block.quoted) for i, cell in zip(kept, cells, strict=True)))
        if with_differences and any(cell.accuracy and cell.accuracy.difference is not None for cell in cells):
            rows.append((Cell(DIFFERENCE_LABEL), *map(_difference, cells[1:])))
    return replace(block, rows=tuple(rows), note="")


def _short(cell: Cell, blank: bool) -> Cell:
    """Return the cell with one decimal and without what the full table has beside; `blank` ones are empty."""
    if blank:
        return Cell("")
    marks = cell.marks.replace("d", "")  # k/n says it
    if cell.accuracy is None:
        return replace(cell, marks=marks, note="")
    return replace(cell, text=cell.accuracy.short(), marks=marks, note="")


def _difference(cell: Cell) -> Cell:
    """Return the cell below this one: its difference to the published number."""
    if cell.accuracy is None or cell.accuracy.difference is None:
        return Cell("")
    return Cell(signed(cell.accuracy.difference, 1), marks=cell.accuracy.difference_marks)


def _shared_marks(blocks: Sequence[Block], columns: int) -> list[str]:
    """Return, by column, the footnote letters that every measured cell with a value has: they go to the heading."""
    rows = [row for block in blocks if not block.quoted for row in block.rows if row[0].text != DIFFERENCE_LABEL]
    shared = []
    for i in range(columns):
        marks = [set(row[i].marks) for row in rows if row[i].value is not None]
        shared.append("".join(sorted(set.intersection(*marks) - {"a"})) if marks else "")
    return shared


def _without_marks(block: Block, shared: Sequence[str]) -> Block:
    """Return the block without those footnote letters that stand in the headings."""
    rows = [
        tuple(replace(cell, marks=cell.marks.translate({ord(mark): None for mark in marks})) for cell, marks in pairs)
        for pairs in (list(zip(row, shared, strict=True)) for row in block.rows)
    ]
    return replace(block, rows=tuple(rows))


def _notes(table: Table, heads: Sequence[Column], blocks: Sequence[Block]) -> list[str]:
    """Return the notes that the table needs."""
    measured = [row for block in blocks if not block.quoted for row in block.rows]
    cells = [cell for row in measured for cell in row]
    names = {head.name for head in heads}
    failed = any(cell.accuracy and cell.accuracy.solved < cell.accuracy.seeds for cell in cells)
    speed = [note for note in table.notes if note.startswith("Ex/s:")]
    conditions = (
        (seeds_note(blocks), True),
        (FAILED, failed),
        (DELTA, any(row[0].text == DIFFERENCE_LABEL for row in measured)),
        (RANKS, any(cell.rank for cell in cells)),
        (WINS, "wins" in names),
        ("".join(speed), "speed" in names),
        (QUOTED, any(block.quoted for block in blocks)),
    )
    return [note for note, needed in conditions if needed and note]
