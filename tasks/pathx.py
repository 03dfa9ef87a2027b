"""The task Path-X: Pathfinder in 128 × 128 pixels, 16,384 positions.

Images are generated here by the parameters of the released images, or read from LRA's images.
"""

from __future__ import annotations

from lra_bench.spec import HealthMark, Task

from . import pathfinder

TASK = Task(
    name="pathx",
    title="Path-X",
    version="1.0.0",
    description="Whether two discs are joined by one of many dashed curves, in 128 × 128 pixels read one by one.",
    citation=pathfinder.TASK.citation,
    inputs="pixels",
    documents=1,
    length=16_384,
    classes=2,
    variable_length=False,
    splits={"train": 160_000, "val": 20_000, "test": 20_000},
    majority=0.5,
    selects_on_test=False,
    column=6,
    like=None,
    health=(HealthMark(epoch=5, accuracy=55),),
)

CLASSES = pathfinder.CLASSES


DATA = pathfinder.PathfinderData(TASK, 128)
