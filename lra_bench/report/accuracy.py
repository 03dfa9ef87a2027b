"""The accuracy tables: measured rows with mean and deviation over seeds, and quoted rows in a block of their own."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from statistics import fmean, median

from lra_bench.published_status import STATUS_MEANINGS, with_meaning
from lra_bench.registry import has_official_contents, published_mark, task_title
from lra_bench.report.fitting import SelectionProtocol, selected_on_test
from lra_bench.report.published import FAMILIES, SCALING, QuotedRow, family_place, published
from lra_bench.report.seeds import CellStatistics, like_the_best
from lra_bench.report.select import (
    HEADINGS,
    LRA,
    Entry,
    RowKey,
    Section,
    SelectedRecords,
    row_label,
    threshold,
)
from lra_bench.report.standing import (
    SpeedPlace,
    averages_like_the_best,
    best_covered,
    length_of,
    parameters_cell,
    row_order,
    speed_cell,
    speed_place,
    win_rates,
)
from lra_bench.report.statistics import summarize
from lra_bench.report.table import ABSENT, STYLES, Accuracy, Block, Cell, Column, Rank, Table, ranks, rounded
from lra_bench.spec import DataInfo

FIVE = LRA[:5]
"""The tasks of Avg(5): all but Path-X, which is the last column."""

AVERAGES = (
    "Avg(5) is the mean of the five tasks without Path-X (LRA paper), Avg(6) of all six (state space papers); each is "
    "given only where all its tasks are. A failed task (✗: no seed solved it) counts as the majority class; a quoted "
    "one as chance, 50 where there are two classes. The standard error of an average is "
    "that of its cells, taken as independent."
)
SELECTIONS: dict[SelectionProtocol, str] = {
    "paper": "Selection protocol: paper. The checkpoint is the best on validation data; on Text, which has none as "
    "published, the best on the test set.",
    "holdout": "Selection protocol: holdout. The checkpoint is the best on validation data held out from training, on "
    "every task. Never to be compared with the paper protocol on Text.",
}
SEEDS = (
    "Test accuracy in %, mean ± sample standard deviation over seeds; in brackets how many of the seeds solved the "
    "task. A seed that failed in whatever way counts as the majority class, in means, averages and ranks; where some "
    "did, the median of those that solved the task stands beside the mean."
)
RANKS = f"{STYLES}, among the rows measured here with published recipes."
DIFFERENCE = (
    "Δ: the mean minus the published number of the recipe, in points. Letters behind it are those of that number: "
    f"{'; '.join(map(with_meaning, STATUS_MEANINGS))}."
)
ORDER = (
    f"Rows by family ({', '.join(FAMILIES)}), then by Avg(6), Avg(5) and wins: the share of comparisons with the "
    "other rows measured here with published recipes, on each of the six tasks that both have, in which the row's mean "
    "is the higher one (Borda count); it is there also where cells are missing, and ranked among the rows with all "
    "tasks that the row with most tasks has."
)
QUOTED = "Quoted rows were not measured here; a standard deviation is the paper's. They are not ranked."


def accuracy_table(chosen: SelectedRecords, cells: Sequence[CellStatistics]) -> Table:
    """Return the accuracy table of one selection protocol. `cells` are the statistics of its cells.

    Its blocks are rows measured with published recipes, with other settings, after a self-pretraining where there are
    any, and quoted rows.
    """
    sections: tuple[Section, ...] = ("published", "settings", "pretrained")
    tasks = list(dict.fromkeys([*LRA, SCALING, *chosen.tasks(sections)]))
    measured = _rows(chosen, "published", tasks, like_the_best(cells))
    place = _speed_place(chosen)
    return Table(
        f"accuracy-{chosen.selection}",
        "Accuracy" if chosen.selection == "paper" else "Accuracy, holdout protocol",
        (
            Column("Model", numeric=False),
            *(Column(task_title(task), name=task, detail=length_of(chosen, task)) for task in tasks),
            Column("Avg(5)", name="avg5"),
            Column("Avg(6)", name="avg6"),
            Column("Wins", name="wins", detail="%"),
            Column("Params", name="parameters", detail="million"),
            Column("Ex/s", name="speed", detail=task_title(place.task) if place else ""),
            Column("Source", numeric=False, quoted_only=True),
        ),
        (
            Block("Measured here, published recipes", tuple(_ranked(measured, len(tasks) + 3))),
            Block("Measured here, other settings (not ranked)", tuple(_rows(chosen, "settings", tasks)), settings=True),
            *_pretrained_block(chosen, tasks),
            Block("Quoted from papers, not measured here (not ranked)", _quoted_rows(tasks), True, QUOTED),
        ),
        (
            SELECTIONS[chosen.selection],
            SEEDS,
            _thresholds(chosen, tasks, sections),
            AVERAGES,
            DIFFERENCE,
            ORDER,
            RANKS,
            *([place.note] if place else []),
            *_displaced(chosen, ["full"]),
        ),
    )


def _pretrained_block(chosen: SelectedRecords, tasks: Sequence[str]) -> tuple[Block, ...]:
    """Return the block of rows after a self-pretraining; none where there are no such rows."""
    rows = tuple(_rows(chosen, "pretrained", tasks))
    title = f"Measured here, {HEADINGS['pretrained'][0].lower()}{HEADINGS['pretrained'][1:]} (not ranked)"
    return (Block(title, rows, settings=True),) if rows else ()


def reduced_table(chosen: SelectedRecords) -> Table:
    """Return the table of runs on less than the full data, which show that training works and are not the benchmark."""
    tasks = [
        task
        for task in chosen.tasks(["reduced"])
        if any(place == task and key.section == "reduced" for key, place in chosen.cells)
    ]
    return Table(
        "reduced",
        HEADINGS["reduced"],
        (
            Column("Model", numeric=False),
            *(Column(task_title(task)) for task in tasks),
            *(Column(f"{task_title(task)}: majority class") for task in tasks),
            Column("Source", numeric=False),
        ),
        (Block("Measured here, reduced data (not ranked)", tuple(_reduced_rows(chosen, tasks))),),
        (
            "These runs used small or partial data: compare them with the majority class, never with the benchmark.",
            SEEDS,
            *_displaced(chosen, {item.size for item in chosen.displaced} - {"full"}),
        ),
    )


def accuracy_cell(runs: Sequence[Entry]) -> Cell:
    """Return the cell "mean ± standard deviation (solved/seeds)" in %, with ✗ where no seed solved the task.

    A seed that failed counts as the majority class. Where some did, the median of the others follows the mean. The
    difference to the published number is the note of runs of a published recipe.
    """
    solved = [100 * run.counted for run in runs if run.solved]
    found = summarize([100 * run.counted for run in runs])
    text = rounded(found.mean, 2) + ("" if found.std is None or not solved else f" ± {rounded(found.std, 2)}")
    if 0 < len(solved) < len(runs):
        text += f", median {rounded(median(solved), 2)}"
    text += f" ({len(solved)}/{len(runs)})"
    marks, ids = "".join(sorted(_marks(runs))), tuple(run.id for run in runs)
    published = runs[0].record.recipe.published if runs[0].record.published_recipe else None
    difference = None if published is None else found.mean - published
    of_published = "" if published is None else published_mark(runs[0].record.model, runs[0].record.data.task)
    std = found.std if solved else None
    accuracy = Accuracy(found.mean, std, len(solved), len(runs), difference, of_published)
    return Cell(
        text if solved else f"✗ {text}", found.mean, marks=marks, runs=ids, note=accuracy.note, accuracy=accuracy
    )


def average(chosen: SelectedRecords, key: RowKey, tasks: Sequence[str]) -> float | None:
    """Return the row's mean over the tasks in %, or None where the row has no cell for one of them."""
    if any((key, task) not in chosen.cells for task in tasks):
        return None
    # fmean, because Python 3.12's sum() rounds differently from 3.11's, and the tables are compared byte by byte.
    return fmean(fmean(100 * run.counted for run in chosen.cells[key, task]) for task in tasks)


def _rows(
    chosen: SelectedRecords,
    section: Section,
    tasks: Sequence[str],
    like_best: frozenset[tuple[RowKey, str]] = frozenset(),
) -> list[tuple[Cell, ...]]:
    """Return the measured rows of a section, unranked. Cells `like_best`, and averages by that rule, get the mark a."""
    rows = []
    keys, place = chosen.rows(section), _speed_place(chosen)
    wins, covered = (win_rates(chosen, keys) if section == "published" else {}), best_covered(chosen, keys)
    average_like_best = [
        averages_like_the_best(chosen, keys, group) if section == "published" else set() for group in (FIVE, LRA)
    ]
    averages = {key: (average(chosen, key, LRA), average(chosen, key, FIVE), wins.get(key)) for key in keys}
    for key in sorted(keys, key=lambda key: (row_order(family_place(key.model), averages[key]), key)):
        cells = [
            accuracy_cell(chosen.cells[key, task]) if (key, task) in chosen.cells else Cell(ABSENT) for task in tasks
        ]
        cells = [
            replace(cell, marks=f"a{cell.marks}") if (key, task) in like_best else cell
            for task, cell in zip(tasks, cells, strict=True)
        ]
        of_five, of_six = (
            _measured_average(value, there, key in like)
            for value, there, like in zip(averages[key][1::-1], (cells[:5], cells[:6]), average_like_best, strict=True)
        )
        beside = (
            replace(_average_cell(wins.get(key), 1), ranked=key in covered),
            parameters_cell(chosen, key, place),
            speed_cell(chosen, key, place),
            Cell(_source(chosen, key)),
        )
        rows.append((Cell(row_label(key)), *cells, of_five, of_six, *beside))
    return rows


def _speed_place(chosen: SelectedRecords) -> SpeedPlace | None:
    """Return the place of the column of speed; rows of published recipes decide where there are any."""
    return speed_place(chosen, chosen.rows("published") or chosen.rows("settings") or chosen.rows("pretrained"))


def _measured_average(value: float | None, cells: Sequence[Cell], like_best: bool) -> Cell:
    """Return the average of these cells, with their marks, and its difference to that of the published numbers where
    each has one.

    The mark a says that it is `like_best`, not that one of the cells is.
    """
    if value is None:
        return Cell(ABSENT)
    differences = [cell.accuracy.difference if cell.accuracy else None for cell in cells]
    known = [found for found in differences if found is not None]
    difference = fmean(known) if len(known) == len(cells) else None
    letters = {mark for cell in cells if cell.accuracy for mark in cell.accuracy.difference_marks}
    accuracy = Accuracy(
        value, difference=difference, difference_marks="" if difference is None else "".join(sorted(letters))
    )
    marks = "".join(sorted({mark for cell in cells for mark in cell.marks} - {"a"}))
    marks = f"a{marks}" if like_best else marks
    return Cell(rounded(value, 2), value, marks=marks, note=accuracy.note, accuracy=accuracy)


def _reduced_rows(chosen: SelectedRecords, tasks: Sequence[str]) -> list[tuple[Cell, ...]]:
    """Return the rows of reduced data, with the majority class of each task beside its accuracy."""
    rows = []
    for key in chosen.rows("reduced"):
        found = [chosen.cells.get((key, task), []) for task in tasks]
        cells = [accuracy_cell(runs) if runs else Cell(ABSENT) for runs in found]
        majority = [_average_cell(100 * runs[0].record.accuracy.majority if runs else None) for runs in found]
        rows.append((Cell(row_label(key)), *cells, *majority, Cell(_source(chosen, key))))
    return rows


def _average_cell(value: float | None, digits: int = 2) -> Cell:
    return Cell(ABSENT) if value is None else Cell(rounded(value, digits), value)


def _quoted_rows(tasks: Sequence[str]) -> tuple[tuple[Cell, ...], ...]:
    """Return the rows of published numbers."""
    book = published()
    rows = []
    for row in sorted(book.rows, key=_quoted_order):
        cells = [row.cells[task].cell(book.sources) if task in row.cells else Cell(ABSENT) for task in tasks]
        averages = [_quoted_average(row, group) for group in (FIVE, LRA)]
        name = Cell(row.name, note=str(row.year), hint=row.link or "")
        beside = [Cell(ABSENT)] * 3
        rows.append((name, *cells, *averages, *beside, Cell(book.labels(row), note=row.note)))
    return tuple(rows)


def _quoted_order(row: QuotedRow) -> tuple[float, ...]:
    """Return the sorting key of a row of published numbers."""
    return row_order(FAMILIES.index(row.family), [row.average_of(LRA), row.average_of(FIVE)])


def _quoted_average(row: QuotedRow, tasks: tuple[str, ...]) -> Cell:
    """Return the mean of a row of published numbers, with the marks of all that are in it."""
    value = row.average_of(tasks)
    return (
        Cell(ABSENT)
        if value is None
        else Cell(rounded(value, 2), value, marks=row.marks_of(tasks), accuracy=Accuracy(value))
    )


def _ranked(rows: Sequence[tuple[Cell, ...]], last: int) -> list[tuple[Cell, ...]]:
    """Return the rows with best and second marked in each column up to the last one; a failed cell has no rank."""
    if not rows:
        return []
    columns = []
    for i, column in enumerate(zip(*rows, strict=True)):
        if i > last:
            columns.append(list(column))
            continue
        values = [None if cell.text.startswith("✗") or not cell.ranked else cell.value for cell in column]
        columns.append([_with_rank(cell, rank) for cell, rank in zip(column, ranks(values), strict=True)])
    return list(zip(*columns, strict=True))


def _with_rank(cell: Cell, rank: Rank) -> Cell:
    return replace(cell, rank=rank)


def _marks(runs: Sequence[Entry]) -> set[str]:
    """Return the footnote letters of a cell: the data's source, selection on the test set, seeds that ended early."""
    found = {_source_mark(run.record.data) for run in runs}
    found |= {"t" for run in runs if selected_on_test(run.record)}
    found |= {"d" for run in runs if run.record.status != "completed"}
    return found - {""}


def _source_mark(data: DataInfo) -> str:
    """Return the footnote letter of the data's source; "" for the official one."""
    if data.source == "user" and has_official_contents(data.task, data.protocol, data.fingerprint):
        return "o"
    return {"generated": "g", "user": "u", "mirror": "m", "official": ""}[data.source]


def _thresholds(chosen: SelectedRecords, tasks: Sequence[str], sections: Sequence[Section]) -> str:
    """Return the note with the accuracy in each column from which a task counts as solved."""
    parts = []
    for task in tasks:
        found = [
            runs[0].record for (key, place), runs in chosen.cells.items() if place == task and key.section in sections
        ]
        if found:
            parts.append(f"{task_title(task)} {100 * threshold(found[0]):.1f}")
    return (
        f"Solved: a tenth of the way from the majority class to 100 %, or better ({', '.join(parts) or 'no runs yet'})."
    )


def _displaced(chosen: SelectedRecords, sizes: Collection[str]) -> list[str]:
    """Return a note for each column of these sizes that does not show records of other examples."""
    notes = []
    for item in chosen.displaced:
        if item.size in sizes:
            size = "" if item.size == "full" else f", {item.size}"
            claim = "" if item.proved else ", as its records say of themselves"
            notes.append(
                f"{task_title(item.task)}{size} shows {item.shown}{claim}. Records of other examples, which are not "
                f"comparable: {item.records}, listed under the records left out."
            )
    return notes


def _source(chosen: SelectedRecords, key: RowKey) -> str:
    """Return the number of the row's runs and their device kinds."""
    runs = [run for (place, _), cell in chosen.cells.items() if place == key for run in cell]
    kinds = sorted({run.record.system.device_kind for run in runs})
    return f"{len(runs)} run{'s' if len(runs) != 1 else ''}, {', '.join(kinds)}"
