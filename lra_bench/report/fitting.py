"""Which training records an accuracy table may show: by protocol, and by the split on which a checkpoint was chosen."""

from __future__ import annotations

from typing import Literal

from lra_bench.records.schema import Record
from lra_bench.registry import task_module, task_names
from lra_bench.spec import PUBLISHED_PRECISIONS, Protocol

SELECTED_ON_TEST = frozenset(name for name in task_names() if task_module(name).TASK.selects_on_test)
"""The tasks whose published protocol chooses the checkpoint on the test set (S5 `s5/train.py`: no validation split)."""

SelectionProtocol = Literal["paper", "holdout"]
"""The split on which checkpoints were chosen: as published, or always held-out validation data."""


def selected_on_test(record: Record) -> bool:
    """Whether the run's checkpoint was chosen on the test set."""
    return record.data.validation_is_test or record.accuracy.selection == "test"


def unfit(record: Record, protocol: Protocol, selection: SelectionProtocol) -> str:
    """Return the reason why no accuracy table may show the record, or "". Other records play no part in it."""
    task = record.data.task
    if record.status == "completed" and record.accuracy.test is None:
        return "incomplete: it has no test accuracy"
    if record.data.protocol != protocol:
        return f"other protocol: {record.data.protocol}, this table is of {protocol}"
    if selected_on_test(record) and task not in SELECTED_ON_TEST:
        return "the checkpoint was chosen on the test set, which the published protocol of this task does not do"
    full = record.data.size == "full"  # the table of reduced data is one for both
    if full and task in SELECTED_ON_TEST and selected_on_test(record) != (selection == "paper"):
        chosen_on = "the test set" if selected_on_test(record) else "a held-out validation set"
        return f"other selection: the checkpoint was chosen on {chosen_on}, this table is of the {selection} protocol"
    return ""


def only_held_out(record: Record) -> bool:
    """Whether a run differs from its published recipe only in validation data that was cut off the training split."""
    data = record.data
    if data.task not in SELECTED_ON_TEST or selected_on_test(record) or record.recipe.published is None:
        return False
    splits = task_module(data.task).TASK.splits
    whole = data.counts["train"] + data.counts["val"] == splits["train"] and data.counts["test"] == splits["test"]
    unchanged = not record.overrides and record.pretraining is None
    return data.size == "full" and whole and unchanged and record.system.precision in PUBLISHED_PRECISIONS
