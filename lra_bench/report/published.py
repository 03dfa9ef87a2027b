"""The published accuracies: quoted with their source, never mixed with measured ones."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from statistics import fmean
from typing import Literal

from pydantic import Field, model_validator

from lra_bench.report.select import LRA
from lra_bench.report.table import MARKS, Cell
from lra_bench.spec import Frozen

FAILED = 50.0
"""What a failed Path-X counts for in an average, as in the papers that average all six tasks."""


class Reference(Frozen):
    label: str
    reference: str


class Quoted(Frozen):
    """One number in %. `value` None means the paper says the model failed the task."""

    value: float | None = Field(gt=0, lt=100)
    std: float | None
    sources: list[str] = Field(min_length=1)
    status: Literal["read", "secondary", "memory"]
    marks: str

    def cell(self, sources: dict[str, Reference]) -> Cell:
        """As it stands in the table, with the full references as a hint."""
        marks = {"read": "", "secondary": "s", "memory": "n"}[self.status] + self.marks
        hint = "; ".join(sources[key].reference for key in self.sources)
        if self.value is None:
            return Cell("✗", marks=marks, hint=hint)
        deviation = "" if self.std is None else f" ({self.std:.2f})"
        return Cell(f"{self.value:.2f}{deviation}", self.value, marks=marks, hint=hint)


class QuotedRow(Frozen):
    name: str
    model: str | None = Field(description="the lra-bench model these numbers are of, if there is one")
    average: float | None = Field(description="as printed, by whatever rule the paper has")
    note: str
    cells: dict[str, Quoted]

    def average_of(self, tasks: tuple[str, ...]) -> float | None:
        """Our average, by our rule: of all these tasks or none, a failed one counting as chance."""
        if any(task not in self.cells for task in tasks):
            return None
        values = [self.cells[task].value for task in tasks]
        return fmean(FAILED if value is None else value for value in values)


class Published(Frozen):
    about: str
    sources: dict[str, Reference]
    rows: list[QuotedRow]

    @model_validator(mode="after")
    def _known(self) -> Published:
        for row in self.rows:
            for task, quoted in row.cells.items():
                if task not in LRA or set(quoted.marks) - set(MARKS) or set(quoted.sources) - set(self.sources):
                    raise ValueError(f"{row.name}, {task}: unknown task, mark or source")
                if quoted.value is None and task != "pathx":
                    raise ValueError(f"{row.name}, {task}: only Path-X is reported as failed")
        return self

    def labels(self, row: QuotedRow) -> str:
        """The short names of the row's sources, in order of appearance."""
        keys = dict.fromkeys(self.sources[key].label for quoted in row.cells.values() for key in quoted.sources)
        return ", ".join(keys)


@cache
def published() -> Published:
    """The table of published numbers that comes with the package."""
    return Published.model_validate_json(
        files("lra_bench.report").joinpath("published.json").read_text(encoding="utf-8")
    )
