"""The plan that `train` prints before it trains: which runs, with which settings, and what each will take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lra_bench.commands.options import wide_console

if TYPE_CHECKING:
    from lra_bench.runs.plan import PlannedRun
    from lra_bench.runs.run import Run
    from lra_bench.spec import Placement
    from lra_bench.training.estimate import Estimate


def estimates(
    planned: Sequence[PlannedRun],
    measure: bool = False,
    placement: Placement = "auto",
    remat: bool = False,
    microbatch: int | None = None,
) -> dict[str, Estimate]:
    """What each kind of run takes, by digest: by an earlier run here, or with `measure` by a few steps on its data."""
    from lra_bench.training.estimate import earlier_estimate, measured_estimate

    found: dict[str, Estimate] = {}
    for item in planned:
        if item.run.digest in found:
            continue
        estimate = earlier_estimate(item.run, remat, microbatch and min(microbatch, item.run.recipe.batch_size))
        if estimate is None and measure and item.data_folder is not None:
            estimate = measured_estimate(item.run, item.data_folder, placement, remat, microbatch)
        if estimate is not None:
            found[item.run.digest] = estimate
    return found


def print_plan(planned: Sequence[PlannedRun], results_dir: Path, takes: Mapping[str, Estimate]) -> None:
    """Print a line for each run: its data, model, steps, and what it `takes`, by digest, where that is known.

    Below are the place of the results, the changes of the recipes, and what may not be expected.
    """
    from rich.table import Table

    from lra_bench.progress import print_line
    from lra_bench.registry import model_title

    title = ", ".join(["Plan", *sorted({item.run.precision for item in planned})])
    numbers = ("Seed", "Epochs", "Steps", "Batch", "Parameters", "Memory", "Time")
    table = Table("Task", "Data", "Model", title=title)
    for name in numbers:
        table.add_column(name, justify="right")
    for name in ("Recipe", "State"):
        table.add_column(name)
    for item in planned:
        run, estimate = item.run, takes.get(item.run.digest)
        table.add_row(
            run.data.task,
            f"{run.data.source}, {run.data.protocol}, {run.data.size}",
            model_title(run.model),
            str(run.seed),
            f"{run.recipe.epochs:g}",
            f"{item.steps:,}",
            str(run.recipe.batch_size),
            *described(estimate, item.steps),
            recipe_state(run),
            item.state,
        )
    wide_console(stderr=True).print(table)
    print_line(f"Results: {results_dir.absolute()}")
    print_line("Time is that of the training steps, by an earlier run here or a few steps; –: known once it trains.")
    for text in dict.fromkeys(text for item in planned for text in notes_of(item) if text):
        print_line(text)


def described(estimate: Estimate | None, steps: int) -> tuple[str, str, str]:
    """The parameters, the memory and the time of a run as text."""
    from lra_bench.progress import bytes_in_words

    if estimate is None:
        return "–", "–", "–"
    memory = "–" if estimate.peak_bytes is None else bytes_in_words(estimate.peak_bytes)
    return f"{estimate.parameters:,}", memory, duration(steps * estimate.seconds_per_step)


def duration(seconds: float) -> str:
    """The seconds in words, as in 40 s, 12 min or 3.5 h."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:,.1f} h"


def notes_of(item: PlannedRun) -> tuple[str, ...]:
    """The sentences below the plan that a run gives rise to; some are ""."""
    return changes_of(item.run), item.schedule_note, pretraining_note(item)


def pretraining_note(item: PlannedRun) -> str:
    """What the self-pretraining before a run is, which the table and its time leave out; "" where there is none."""
    pretraining = item.run.pretraining
    if pretraining is None:
        return ""
    hidden = "" if pretraining.mask_ratio is None else f" of {pretraining.mask_ratio:.0%} of the inputs"
    return (
        f"{item.run.data.task} {item.run.model}: first {pretraining.label}{hidden}, {pretraining.pretrain_loss}, "
        f"{pretraining.pretrain_epochs:g} epochs ({item.pretraining_steps:,} steps), learning rate "
        f"{pretraining.pretrain_lr:g}. Its steps and its time are not in the table."
    )


def changes_of(run: Run) -> str:
    """The settings that differ from the recipe's, as a sentence; "" where there are none."""
    changed = ", ".join(f"{key}={value}" for key, value in run.overrides.items())
    return f"Changed from the recipe: {changed}." if changed else ""


def recipe_state(run: Run) -> str:
    """Say whether the run's settings are `published`, `changed` or `pretrained`.

    Those of a user's layer are `default`, and those of a recipe without a published accuracy `unpublished`.
    """
    from lra_bench.spec import PUBLISHED_PRECISIONS

    if run.overrides or run.precision not in PUBLISHED_PRECISIONS:
        return "changed"
    if run.pretraining is not None:
        return "pretrained"
    if run.code is not None:
        return "default"
    return "unpublished" if run.recipe.published is None else "published"
