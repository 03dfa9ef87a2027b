"""The records of further tests of trained runs: which of them are of runs alike, and what those are called."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from lra_bench.records.schema import NoisePoint, RobustnessRecord, WindowRecord
from lra_bench.registry import model_title
from lra_bench.report.select import joined, labeled, precision_labels
from lra_bench.spec import Precision

Tested = RobustnessRecord | WindowRecord
"""A record of a further test of a trained run."""

TestedRuns = tuple[str, str, str, Precision]
"""What runs share that are tested alike: task, model, digest and precision."""


def tested_runs(record: Tested) -> TestedRuns:
    """Return what the run shares with those whose means it may enter."""
    return record.data.task, record.model, record.digest, record.system.precision


def tested_names(records: Iterable[Tested]) -> dict[TestedRuns, str]:
    """Return the name of the runs that are tested alike.

    It has the digest where the recipe is not the published one, and where the same recipe ran on other examples, too.
    """
    found = {tested_runs(record): record for record in records}
    labels = precision_labels(precision for *_, precision in found)
    published = [place for place, record in found.items() if record.published_recipe]
    alike = Counter((task, model, precision) for task, model, _, precision in published)
    names = {}
    for (task, model, digest, precision), record in found.items():
        alone = record.published_recipe and alike[task, model, precision] == 1
        settings = joined("" if alone else digest, labels[precision])
        names[task, model, digest, precision] = labeled(model_title(model), settings)
    return names


def noise_points(records: Iterable[RobustnessRecord]) -> list[NoisePoint]:
    """Return the points of records that are of runs tested alike, each noise of a run once, though several have it."""
    found: dict[Any, NoisePoint] = {}
    for record in records:
        found |= {(record.seed, *noise): point for noise, point in zip(record.noises, record.points, strict=True)}
    return list(found.values())
