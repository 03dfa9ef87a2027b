"""Everything a run needs before it is trained or evaluated: data, network, optimizer, compiled programs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optax
from jax.sharding import Mesh

from lra_bench.data.integrity import open_checked
from lra_bench.machine.environment import start_jax
from lra_bench.machine.memory import memory_needed
from lra_bench.machine.mesh import data_mesh
from lra_bench.machine.precision import matmul_precision
from lra_bench.machine.xla import Cost, use_compilation_cache
from lra_bench.models.layers import DataShape
from lra_bench.paths import cache_folder
from lra_bench.progress import print_line
from lra_bench.registry import cli_name, task_module
from lra_bench.runs.run import Run
from lra_bench.spec import Placement, SplitName
from lra_bench.training.functional import FunctionalNetwork, initialized
from lra_bench.training.input_pipeline import InputPipeline, make_pipelines
from lra_bench.training.mesh import replicate
from lra_bench.training.optimizer import make_optimizer
from lra_bench.training.result import Score
from lra_bench.training.state import Totals, TrainState, stream_key
from lra_bench.training.steps import EvalProgram, TrainProgram, compile_training, evaluation_program, initial_state


@dataclass(frozen=True)
class EvaluationSetup:
    """A run that is ready to be evaluated: its devices, network, evaluation program and data."""

    run: Run
    mesh: Mesh
    network: FunctionalNetwork
    score: EvalProgram
    data: dict[SplitName, InputPipeline]

    def evaluate(self, params: Any, stats: Any, split: SplitName) -> Score:
        """Mean loss and accuracy over a whole split, and which examples are classified correctly."""
        totals, pieces = replicate(Totals.zero(), self.mesh), []
        for rows, count in self.data[split].in_order():
            with matmul_precision(self.run.precision):
                totals, correct = self.score(params, stats, totals, rows)
            pieces.append((correct, count))
        every = np.concatenate([np.asarray(correct).reshape(-1)[:count] for correct, count in pieces])
        return Score(float(totals.loss) / every.size, int(totals.correct) / every.size, every)

    def within(self, params: Any, stats: Any, window: int) -> EvaluationSetup:
        """The same run with every layer cut to a window. Raises UserError where a layer cannot be cut."""
        network = self.network.within(params, stats, window, cli_name(self.run.model))
        score = evaluation_program(self.run, network, self.mesh)
        return EvaluationSetup(self.run, self.mesh, network, score, self.data)


@dataclass(frozen=True)
class TrainingSetup(EvaluationSetup):
    """A run that is ready to be trained, too: `train` is its training program, `cost` what the compiler says of it."""

    train: TrainProgram
    cost: Cost


def data_shape(run: Run) -> DataShape:
    """What the network must know of prepared data."""
    task = task_module(run.data.task).TASK
    return DataShape(run.data.length, run.data.classes, task.documents, task.variable_length, task.channels)


def set_up(
    run: Run,
    data_folder: Path,
    placement: Placement = "auto",
    remat: bool = False,
    microbatch: int | None = None,
    cached: bool = True,
) -> tuple[TrainingSetup, TrainState]:
    """Set up as `set_up_evaluation`, and compile the training program, or find it in the cache on disk.

    Raises as that, and UserError where the network cannot be trained in parts of `microbatch` examples.
    """
    ready, optimizer, state = _set_up(run, data_folder, placement, remat, cached)
    batches, _ = ready.data["train"].take(0, 0, 1)
    print_line(f"{run.data.task} {run.model}: compiling the training step…")
    train, cost = compile_training(run, ready.network, optimizer, state, batches, ready.mesh, microbatch)
    print_line(f"{run.data.task} {run.model}: {memory_needed(cost)}.")
    return TrainingSetup(run, ready.mesh, ready.network, ready.score, ready.data, train, cost), state


def set_up_evaluation(run: Run, data_folder: Path) -> tuple[EvaluationSetup, TrainState]:
    """Open the data and initialize the network; the evaluation program is compiled at its first call.

    Raises UserError where the data is not what was prepared, or a batch is larger than the training split.
    """
    ready, _, state = _set_up(run, data_folder, "auto", remat=False, cached=True)
    print_line(f"{run.data.task} {run.model}: compiling the evaluation…")
    return ready, state


def _set_up(
    run: Run, data_folder: Path, placement: Placement, remat: bool, cached: bool
) -> tuple[EvaluationSetup, optax.GradientTransformation, TrainState]:
    """Return what both set-ups share, the optimizer, and the state before the first step.

    cached: whether compiled programs are kept on disk. Raises as `set_up_evaluation`.
    """
    start_jax()
    if cached:
        use_compilation_cache(cache_folder() / "xla")
    mesh = data_mesh()
    packed = open_checked(data_folder, run.data.fingerprint)
    run.refuse_large_batch()
    data = make_pipelines(packed, stream_key(run.seed, 1), mesh, run.recipe.batch_size, placement)
    network, params, stats = initialized(run, data_shape(run), remat)
    optimizer = make_optimizer(params, run.recipe, run.steps_per_epoch)
    state = initial_state(params, stats, optimizer, mesh)
    score = evaluation_program(run, network, mesh)
    return EvaluationSetup(run, mesh, network, score, data), optimizer, state
