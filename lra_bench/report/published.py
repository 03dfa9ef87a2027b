"""The published accuracies of published.json, each with its source. Tables keep them apart from measured ones."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from statistics import fmean
from typing import Literal, get_args

from pydantic import Field, model_validator

from lra_bench.published_status import STATUS_MARKS, PublishedStatus
from lra_bench.registry import cli_name, task_module, task_names
from lra_bench.report.table import MARKS, Accuracy, Cell, rounded
from lra_bench.spec import Frozen

SCALING = "pathfinder256"
"""The one task beside the six that papers also report, as PathX-256."""

Family = Literal["attention", "convolution", "recurrence", "hybrid", "state space"]
"""What a model mixes the positions of a sequence with. hybrid: attention with a recurrence or a moving average."""

FAMILIES: tuple[str, ...] = get_args(Family)
"""The families in the order of the tables' rows."""


class Reference(Frozen):
    """A source of published numbers: a short label for tables, and the full reference."""

    label: str
    reference: str


class Quoted(Frozen):
    """One published accuracy in %."""

    value: float | None = Field(gt=0, lt=100, description="accuracy in %; None where the paper says the model failed")
    std: float | None = Field(description="standard deviation in points, where the paper gives one")
    sources: list[str] = Field(min_length=1, description="keys of the sources that give the number")
    status: PublishedStatus = Field(
        description="read in a results table of a named paper; read second-hand; or read nowhere"
    )
    marks: str = Field(description="footnote letters of table.MARKS beside the one of the status")

    def cell(self, sources: dict[str, Reference]) -> Cell:
        """Return the table's cell, with the full references as its hint."""
        marks = self.status_mark + self.marks
        hint = "; ".join(sources[key].reference for key in self.sources)
        if self.value is None:
            return Cell("✗", marks=marks, hint=hint)
        deviation = "" if self.std is None else f" ({rounded(self.std, 2)})"
        accuracy = Accuracy(self.value, self.std)
        return Cell(f"{rounded(self.value, 2)}{deviation}", self.value, marks=marks, hint=hint, accuracy=accuracy)

    @property
    def status_mark(self) -> str:
        """The footnote letter of the status; "" where the number was read in a table of a named paper."""
        return STATUS_MARKS[self.status]


class QuotedRow(Frozen):
    """The published accuracies of one model by task."""

    name: str
    family: Family
    model: str | None = Field(description="model of lra-bench that the numbers belong to, as typed on a command line")
    year: int = Field(description="the year in which the work that the numbers are of first appeared")
    link: str | None = Field(description="its address, where one is known")
    average: float | None = Field(description="average printed in the paper, by the paper's own rule")
    note: str
    cells: dict[str, Quoted]

    def average_of(self, tasks: tuple[str, ...]) -> float | None:
        """Return the mean in % over the tasks by the rule of the measured rows, or None where one is missing.

        A failed task counts as chance, 50 for two classes, as in the papers that average all six tasks.
        """
        if any(task not in self.cells for task in tasks):
            return None
        values = {task: self.cells[task].value for task in tasks}
        return fmean(100 / task_module(task).TASK.classes if value is None else value for task, value in values.items())

    def marks_of(self, tasks: tuple[str, ...]) -> str:
        """Return the footnote letters of an average over the tasks: those of all its cells."""
        letters = {letter for task in tasks for letter in self.cells[task].status_mark + self.cells[task].marks}
        return "".join(sorted(letters))


class Published(Frozen):
    """The content of published.json: the sources by key, and the rows in the order of the table."""

    about: str
    sources: dict[str, Reference]
    rows: list[QuotedRow]

    @model_validator(mode="after")
    def _known(self) -> Published:
        for row in self.rows:
            for task, quoted in row.cells.items():
                if (
                    task not in (*task_names(), SCALING)
                    or set(quoted.marks) - set(MARKS)
                    or set(quoted.sources) - set(self.sources)
                ):
                    raise ValueError(f"{row.name}, {task}: unknown task, mark or source")
        return self

    def labels(self, row: QuotedRow) -> str:
        """Return the labels of the row's sources, in order of appearance."""
        keys = dict.fromkeys(self.sources[key].label for quoted in row.cells.values() for key in quoted.sources)
        return ", ".join(keys)

    def without_accuracy(self, model: str, task: str) -> str:
        """Return the label of a recipe without a published accuracy; `model` as typed on a command line.

        It says what is published of the model for the task in another form, so that no quoted number contradicts it.
        """
        cells = [row.cells[task] for row in self.rows if row.model == model and task in row.cells]
        if not cells:
            return "no published accuracy"
        if all(cell.value is None for cell in cells):
            return "published as failed"
        if all("c" in cell.marks for cell in cells if cell.value is not None):
            return "published for color only"
        return "published for other settings only"

    def marks_of_recipe(self, model: str, task: str, value: float) -> str:
        """Return the footnote letters of a recipe's published accuracy in %; `model` as typed on a command line.

        They are those of the quoted cell with this number, and "" where no row of the model has it: then the recipe
        quotes the repository of its authors.
        """
        cells = [row.cells[task] for row in self.rows if row.model == model and task in row.cells]
        same = [cell.status_mark + cell.marks for cell in cells if cell.value == value]
        return min(same, key=len, default="")


@cache
def published() -> Published:
    """Read the published numbers that come with the package. Raises ValueError for a mistake in published.json."""
    return Published.model_validate_json(
        files("lra_bench.report").joinpath("published.json").read_text(encoding="utf-8")
    )


def family_place(model: str) -> int:
    """The place among `FAMILIES` of a model by its name in records. One without a row in published.json comes last."""
    found = (FAMILIES.index(row.family) for row in published().rows if row.model == cli_name(model))
    return next(found, len(FAMILIES))
