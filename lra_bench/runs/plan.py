"""Planning `train`: from a command line to the runs, each with its data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lra_bench.data.manifest import Manifest, find_prepared, prepared_sets
from lra_bench.data.prepare import prepare
from lra_bench.errors import UserError
from lra_bench.registry import canonical_model, custom_path, recipes_of, task_module, task_names
from lra_bench.runs.run import Run, make_run
from lra_bench.spec import Precision, Protocol


class PlannedRun(NamedTuple):
    """A run and the folder of the prepared data it trains on."""

    run: Run
    data_folder: Path

    @property
    def state(self) -> str:
        """The state of the run: `finished`, `started` or `new`."""
        if (self.run.folder / "result.json").exists():
            return "finished"
        return "started" if (self.run.folder / "checkpoints").exists() else "new"


def plan_runs(
    model: str,
    *,
    tasks: Sequence[str],
    seeds: Sequence[int],
    overrides: Mapping[str, Any],
    protocol: Protocol | None,
    size: str | None,
    data: str | None,
    precision: Precision,
    smoke: bool,
) -> list[PlannedRun]:
    """Plan one run for each task and seed.

    No tasks, or `all`, means every prepared task that the model has a recipe for; with `smoke`, all six. Raises
    UserError for an unknown name, a repeated seed, a task that is not prepared, or a setting that is not legal.
    """
    model = canonical_model(model)
    if len(set(seeds)) < len(seeds):
        raise UserError(f"each seed once, please; got {', '.join(map(str, seeds))}.")
    if smoke:
        protocol, size = protocol or "s4", size or "tiny"
    names = [] if list(tasks) == ["all"] else list(tasks)
    names = names or _default_tasks(model, smoke)
    planned = []
    for name in names:
        task_module(name)
        if smoke and size == "tiny":
            prepare(name, size="tiny", protocol=protocol or "s4")
        folder, manifest = find_prepared(name, protocol, size, data)
        for seed in seeds:
            run = make_run(manifest.data_info, model, seed, overrides, precision, smoke, data)
            _check_vocabulary(run, manifest)
            planned.append(PlannedRun(run, folder))
    return planned


def _check_vocabulary(run: Run, manifest: Manifest) -> None:
    """Check that every token has a row in the table. Raises UserError where one has none.

    JAX would silently give such a token the last row.
    """
    rows, tokens = run.recipe.embedding, len(manifest.vocabulary or ())
    if rows is not None and rows < tokens:
        raise UserError(
            f"the {run.data.protocol} data of {run.data.task} has {tokens} tokens, but embedding = {rows} rows. "
            f"Type --set embedding={tokens}."
        )


def _default_tasks(model: str, smoke: bool) -> list[str]:
    """The tasks of the benchmark that the model has a recipe for, and without `smoke` only those that are prepared."""
    have_recipe = [name for name in task_names() if custom_path(model) or model in recipes_of(name)]
    names = have_recipe if smoke else [name for name in have_recipe if prepared_sets(name)]
    if not names:
        raise UserError("no task is prepared. Type `lra-bench prepare listops`, or add --smoke to try on tiny data.")
    return names
