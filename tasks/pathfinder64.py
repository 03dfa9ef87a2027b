"""The task Pathfinder-64: Pathfinder in 64 × 64 pixels, 4,096 positions.

The size is meant for scaling studies. It is not in the paper's table. The images made here have the parameters that
LRA documents, which are not quite those of the released images (docs/references.md, "Pathfinder").
"""

from __future__ import annotations

from lra_bench.spec import Task

from . import pathfinder

TASK = Task(
    name="pathfinder64",
    title="Pathfinder-64",
    version="1.0.0",
    description="Whether two discs are joined by one of many dashed curves, in 64 × 64 pixels read one by one.",
    citation=pathfinder.TASK.citation,
    inputs="pixels",
    documents=1,
    length=4_096,
    classes=2,
    variable_length=False,
    splits={"train": 160_000, "val": 20_000, "test": 20_000},
    majority=0.5,
    selects_on_test=False,
    column=None,
    like="pathfinder",
    generated_differs="released images have brighter curves, with smaller gaps, than LRA documents",
)

CLASSES = pathfinder.CLASSES


DATA = pathfinder.PathfinderData(TASK, 64)
