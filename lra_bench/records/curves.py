"""The learning curve of a run, as its `metrics.jsonl` has it: a line per evaluation, also while the run trains."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from lra_bench.errors import UserError
from lra_bench.records.schema import CurvePoint

FILE = "metrics.jsonl"
"""The name of the file in the run's folder."""


def read_curve(folder: Path) -> list[CurvePoint]:
    """Read the curve of the run in `folder`; it is empty before the first evaluation.

    Raises UserError where a line is damaged.
    """
    path = folder / FILE
    if not path.exists():
        return []
    points = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            points.append(CurvePoint.model_validate_json(line))
        except ValidationError:
            raise UserError(f"{path} is damaged: line {number} is no point of a curve.") from None
    return points


def best_step(curve: Sequence[CurvePoint], best_epoch: float | None) -> int | None:
    """The step after which the best parameters were saved; None before the first evaluation."""
    return next((point.step for point in curve if point.epoch == best_epoch), None)
