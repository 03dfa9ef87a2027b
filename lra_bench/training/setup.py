"""Everything a run needs before its first step: data, network, optimizer, compiled programs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from lra_bench.data.integrity import open_checked
from lra_bench.data.packed import PackedSplit
from lra_bench.errors import UserError
from lra_bench.machine.environment import start_jax
from lra_bench.machine.mesh import data_mesh
from lra_bench.machine.precision import matmul_precision
from lra_bench.machine.xla import use_compilation_cache
from lra_bench.models.layers import DataShape
from lra_bench.paths import cache_folder
from lra_bench.progress import print_line
from lra_bench.registry import task_module
from lra_bench.runs.run import Run
from lra_bench.spec import Placement, SplitName
from lra_bench.training.functional import FunctionalNetwork, initialized
from lra_bench.training.input_pipeline import InputPipeline, make_pipelines
from lra_bench.training.mesh import replicate
from lra_bench.training.optimizer import make_optimizer
from lra_bench.training.result import Score
from lra_bench.training.state import Totals, TrainState, stream_key
from lra_bench.training.steps import Programs, compile_programs, initial_state


@dataclass(frozen=True)
class TrainingSetup:
    """A run that is ready to train: its devices, network, programs and data."""

    run: Run
    mesh: Mesh
    network: FunctionalNetwork
    programs: Programs
    data: dict[SplitName, InputPipeline]

    @property
    def steps_per_epoch(self) -> int:
        """The steps in one pass over the training examples. A last, smaller batch is dropped."""
        return len(self.data["train"].labels) // self.run.recipe.batch_size

    @property
    def total_steps(self) -> int:
        """The steps in the whole run."""
        return max(1, round(self.run.recipe.epochs * self.steps_per_epoch))

    def evaluate(self, params: Any, stats: Any, split: SplitName) -> Score:
        """Mean loss and accuracy over a whole split."""
        totals, seen = replicate(Totals.zero(), self.mesh), 0
        for rows, count in self.data[split].in_order():
            with matmul_precision(self.run.precision):
                totals = self.programs.evaluate(params, stats, totals, rows)
            seen += count
        return float(totals.loss) / seen, int(totals.correct) / seen


def data_shape(run: Run, split: PackedSplit) -> DataShape:
    """What the network must know of prepared data."""
    variable_length = task_module(run.data.task).TASK.variable_length
    return DataShape(split.inputs.shape[-1], run.data.classes, 2 if split.inputs.ndim == 3 else 1, variable_length)


def set_up(
    run: Run,
    data_folder: Path,
    placement: Placement = "auto",
    remat: bool = False,
    microbatch: int | None = None,
    cached: bool = True,
) -> tuple[TrainingSetup, TrainState]:
    """Open the data, initialize the network and compile the training program, or find it in the cache on disk.

    cached: whether compiled programs are kept there.

    Raises UserError where the data is not what was prepared, a batch is larger than the training split, or the network
    cannot be trained in parts of `microbatch` examples.
    """
    start_jax()
    if cached:
        use_compilation_cache(cache_folder() / "xla")
    mesh = data_mesh()
    packed = open_checked(data_folder, run.data.fingerprint)
    n = len(packed["train"].labels)
    if n < run.recipe.batch_size:
        raise UserError(f"batch_size must not exceed the {n} training examples, got {run.recipe.batch_size}.")
    data = make_pipelines(packed, stream_key(run.seed, 1), mesh, run.recipe.batch_size, placement)
    network, params, stats = initialized(run, data_shape(run, packed["train"]), remat)
    optimizer = make_optimizer(params, run.recipe, n // run.recipe.batch_size)
    state = initial_state(params, stats, optimizer, mesh)
    batches, _ = data["train"].take(0, 0, 1)
    print_line(f"{run.data.task} {run.model}: compiling the training step…")
    programs = compile_programs(run, network, optimizer, state, batches, mesh, microbatch)
    return TrainingSetup(run, mesh, network, programs, data), state
