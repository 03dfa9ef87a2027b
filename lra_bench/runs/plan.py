"""Planning `train`: from a command line to the runs, each with its data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lra_bench.data.manifest import FILE, find_prepared, prepared_sets
from lra_bench.data.prepare import prepare
from lra_bench.data.sources import SourceAttempt, attempts_for, request_for
from lra_bench.errors import UserError
from lra_bench.paths import data_folder
from lra_bench.progress import print_line
from lra_bench.registry import canonical_model, cli_name, custom_path, model_names, recipes_of, task_module, task_names
from lra_bench.runs.pretraining import Objective
from lra_bench.runs.run import SMOKE, Run, make_run
from lra_bench.spec import DataInfo, Precision, Protocol

UNENDING = ("constant", "warmup-constant", "rsqrt")
"""The schedules of the learning rate that do not end with an epoch."""


class PlannedRun(NamedTuple):
    """A run and the folder of the prepared data it trains on; None in a dry run whose data is not made yet."""

    run: Run
    data_folder: Path | None
    typed: frozenset[str] = frozenset()
    """The settings that the user typed. `--smoke` overrides others, too."""

    @property
    def steps(self) -> int:
        """The steps of the whole run."""
        return self.run.steps_of(self.run.recipe.epochs)

    @property
    def pretraining_steps(self) -> int:
        """The steps of the self-pretraining before the run; 0 without one."""
        pretraining = self.run.pretraining
        return 0 if pretraining is None else self.run.steps_of(pretraining.pretrain_epochs)

    @property
    def schedule_note(self) -> str:
        """What a user may not expect of a schedule whose epochs alone were changed; else ""."""
        recipe, changed = self.run.recipe, self.typed & self.run.overrides.keys()
        if "epochs" not in changed or "decay_epochs" in self.typed or recipe.schedule in UNENDING:
            return ""
        return (
            f"{cli_name(self.run.model)} on {self.run.data.task}: --set epochs={recipe.epochs:g} does not move the "
            f"schedule of the learning rate, a warm-up to epoch {recipe.warmup_epochs:g} and an end at epoch "
            f"{recipe.decay_epochs:g}. To move it: --set decay_epochs={recipe.epochs:g} --set warmup_epochs=…"
        )

    @property
    def state(self) -> str:
        """The state of the run: `finished`, `started` or `new`."""
        if (self.run.folder / "result.json").exists():
            return "finished"
        return "started" if (self.run.folder / "checkpoints").exists() else "new"


def plan_runs(
    models: Sequence[str],
    *,
    tasks: Sequence[str],
    seeds: Sequence[int],
    overrides: Mapping[str, Any],
    protocol: Protocol | None,
    size: str | None,
    data: str | None,
    precision: Precision,
    smoke: bool,
    dry_run: bool = False,
    pretrain: Objective | None = None,
) -> list[PlannedRun]:
    """Plan one run for each model, task and seed, with `pretrain` each after a self-pretraining.

    The model `all` means lra-bench's own. No tasks, or `all`, means every prepared task that the model has a recipe
    for; with `smoke`, all of these, whose tiny data is made unless `dry_run`. Raises UserError for an unknown name, one
    that is given twice, a task that is not prepared, a setting that is not legal, or a run that cannot train.
    """
    for kind, given in (("model", models), ("task", tasks), ("seed", seeds)):
        if len(set(given)) < len(given):
            raise UserError(f"each {kind} once, please; got {', '.join(map(str, given))}.")
    if smoke:
        protocol, size = protocol or "s4", size or "tiny"
    typed = frozenset(key for key, value in overrides.items() if not smoke or SMOKE.get(key) != value)
    planned = []
    everything = list(models) == ["all"]
    for model in model_names() if everything else [canonical_model(name) for name in models]:
        names = [] if list(tasks) == ["all"] else list(tasks)
        for name in names or _default_tasks(model, smoke):
            task_module(name)
            if everything and model not in recipes_of(name):
                continue
            folder, info, vocabulary = _prepared(name, protocol, size, data, smoke, dry_run)
            for seed in seeds:
                run = make_run(info, model, seed, overrides, precision, smoke, data, pretrain)
                _check_vocabulary(run, vocabulary)
                run.refuse_large_batch()
                planned.append(PlannedRun(run, folder, typed))
    return planned


def _prepared(
    task: str, protocol: Protocol | None, size: str | None, data: str | None, smoke: bool, dry_run: bool
) -> tuple[Path | None, DataInfo, int]:
    """The folder of the data of a task, what a run records of it, and its number of tokens. Raises UserError.

    With `smoke`, tiny data is made unless a set is named; in a dry run it is only described, one line says so, and
    there is no folder.
    """
    if smoke and size == "tiny" and data is None:
        (attempt,) = attempts_for(task, request_for(protocol or "s4", "tiny", 0, None), None, "generated")
        there = (data_folder() / task / attempt.name / FILE).exists()
        if there or not dry_run:
            prepare(task, size="tiny", protocol=protocol or "s4")
        elif not any(m.size == "tiny" and m.protocol == protocol for _, m in prepared_sets(task)):
            print_line(f"{task}: the tiny set is not prepared yet; without --dry-run it is made first.")
            return None, _tiny_data(task, protocol or "s4", attempt), 0
    folder, manifest = find_prepared(task, protocol, size, data)
    return folder, manifest.data_info, len(manifest.vocabulary or ())


def _tiny_data(task: str, protocol: Protocol, attempt: SourceAttempt) -> DataInfo:
    """What a run will record of tiny data that is not made yet, except its fingerprint."""
    assert attempt.generator is not None
    layout = attempt.generator.layout
    return DataInfo(
        task=task,
        version=task_module(task).TASK.version,
        protocol=protocol,
        source="generated",
        size="tiny",
        fingerprint="not made yet",
        length=layout.length,
        classes=layout.classes,
        counts=dict(layout.counts),
        validation_is_test=layout.validation_is_test,
    )


def _check_vocabulary(run: Run, tokens: int) -> None:
    """Check that every token has a row in the table. Raises UserError where one has none.

    JAX would silently give such a token the last row.
    """
    rows = run.recipe.embedding
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
