"""Self-pretraining: the stage before a run in which its network learns to predict the run's own training inputs.

The settings are those of `runs/pretraining.py`, and the network is that of `models/pretraining.py`. The stage has
checkpoints of its own, so it continues where it stopped, bit for bit, as the run does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.sharding import Mesh

from lra_bench.errors import UserError
from lra_bench.machine.emulation import emulated
from lra_bench.machine.precision import matmul_precision
from lra_bench.machine.xla import Cost, compiler_options
from lra_bench.progress import Progress, print_line
from lra_bench.records.schema import Pretrained, PretrainingPoint
from lra_bench.runs.pretraining import Pretraining
from lra_bench.runs.run import Run
from lra_bench.runs.standing import PositionWriter
from lra_bench.spec import Recipe
from lra_bench.training.checkpoint import PretrainingCheckpoints
from lra_bench.training.epoch import Epochs
from lra_bench.training.functional import FunctionalNetwork, initialized, reseed
from lra_bench.training.history import PretrainingHistory
from lra_bench.training.input_pipeline import InputPipeline
from lra_bench.training.mesh import replicate
from lra_bench.training.optimizer import make_optimizer
from lra_bench.training.saving import Saver
from lra_bench.training.setup import TrainingSetup, data_shape
from lra_bench.training.state import EvalRows, Examples, Totals, TrainState, stream_key
from lra_bench.training.steps import Gradient, TrainProgram, compile_training, gather, initial_state
from lra_bench.training.stopping import StopRequest


class PretrainingDivergedError(Exception):
    """A loss of the stage is not finite, as its message says."""


class PositionTotals(NamedTuple):
    """Sums over the predicted positions seen: of their losses, and of their number."""

    loss: Array
    positions: Array


Scores = Callable[[Any, Any, PositionTotals, EvalRows, Array, Array], PositionTotals]
"""parameters, statistics, totals, rows, number of the first batch, key of the masks → totals with the rows counted."""


@dataclass(frozen=True)
class _Stage:
    """The stage, ready to be trained."""

    run: Run
    mesh: Mesh
    train: TrainProgram
    scores: Scores
    cost: Cost
    validation: InputPipeline
    total_steps: int

    def validation_loss(self, state: TrainState) -> float:
        """The mean loss of a predicted position over the validation split, with the same masks at every call."""
        zero, batch_size = jnp.zeros((), jnp.float32), self.run.recipe.batch_size
        totals, first = replicate(PositionTotals(zero, zero), self.mesh), 0
        key = replicate(stream_key(self.run.seed, 4), self.mesh)
        for rows, count in self.validation.in_order():
            with matmul_precision(self.run.precision):
                number = replicate(jnp.asarray(first, jnp.int32), self.mesh)
                totals = self.scores(state.params, state.stats, totals, rows, number, key)
            first += -(-count // batch_size)
        return float(totals.loss) / max(float(totals.positions), 1.0)


def refuse_microbatch(run: Run, microbatch: int | None) -> None:
    """Check that a run with a self-pretraining trains on whole batches. Raises UserError where it does not."""
    if run.pretraining is not None and microbatch is not None:
        raise UserError(
            "--microbatch does not go with --pretrain, whose loss is a mean over the positions of the whole batch. "
            "Leave it out, and type --remat for half the memory."
        )


def pretrain(
    run: Run,
    setup: TrainingSetup,
    state: TrainState,
    stop: StopRequest,
    devices: str,
    remat: bool,
) -> tuple[TrainState, Pretrained]:
    """Pretrain the network of a run whose first state is `state`, or go on with it.

    Returns that state with the encoder, the blocks and their statistics after the epoch of least validation loss. Where
    the stage has ended before, nothing is trained. `devices` says what its clocks are measured on.

    Raises PretrainingDivergedError where a loss is not finite, and Interrupted or OutOfTime after saving.
    """
    assert run.pretraining is not None
    stage, own = _set_up(run, run.pretraining, setup, remat)
    checkpoints = PretrainingCheckpoints(run.folder / "checkpoints")
    history = PretrainingHistory()
    resumed = checkpoints.restore_last(own)
    if resumed is not None:
        own, history = resumed
        checkpoints.mend_best(history, own)
    history = history.on(devices, stage.cost.compile_seconds)
    own, history = _train(stage, setup, own, history, Saver(checkpoints), stop)
    best = history.best
    assert best is not None, "the last step ends an epoch, and each epoch is evaluated"
    params, stats = checkpoints.restore_best(best.step, own)
    checkpoints.close()
    state = replicate(carried_over(state, params, stats), setup.mesh)
    return state, Pretrained(
        steps=history.curve[-1].step,
        seconds=history.train_seconds,
        best_epoch=best.epoch,
        best_val_loss=best.val_loss,
        curve=history.curve,
    )


def _train(
    stage: _Stage,
    setup: TrainingSetup,
    state: TrainState,
    history: PretrainingHistory,
    saver: Saver[PretrainingHistory],
    stop: StopRequest,
) -> tuple[TrainState, PretrainingHistory]:
    """Train from the step of the state to the last one. Raises as `pretrain`."""
    run, total, per_epoch = stage.run, stage.total_steps, stage.run.steps_per_epoch
    epochs = Epochs(
        run,
        stage.train,
        setup.data["train"],
        replicate(stream_key(run.seed, 3), stage.mesh),
        total,
        per_epoch,
        saver,
        stop,
        PositionWriter(run.folder, "pretraining"),
        classifies=False,
    )
    step = int(state.step)
    with Progress(f"{run.data.task} {run.model} seed {run.seed} pretraining", total=total, unit="steps") as progress:
        progress.at(step, total)
        while step < total:
            step, state, history, loss, _, first_bad = epochs.train(step, state, history, progress)
            if first_bad >= 0:
                raise PretrainingDivergedError(
                    f"the loss or the gradient of pretraining step {first_bad} was not finite"
                )
            val_loss = stage.validation_loss(state)
            if not np.isfinite([loss, val_loss]).all():
                raise PretrainingDivergedError(f"the loss after pretraining step {step} was not finite")
            point = PretrainingPoint(epoch=step / per_epoch, step=step, train_loss=loss, val_loss=val_loss)
            history = history.after_epoch(point)
            state = state._replace(totals=replicate(Totals.zero(), stage.mesh))
            if history.best == point:
                saver.keep_best(step, state)
            progress.log(history.describe_epoch())
            epochs.save_if_due(step, state, history)
    return state, history


def carried_over(state: TrainState, params: nnx.State, stats: nnx.State) -> TrainState:
    """The first state of a run with all parameters and statistics of a `Predictor`'s network, but with its own head."""

    def carried(own: nnx.State, others: nnx.State) -> nnx.State:
        found = dict(nnx.to_flat_state(others))
        flat = {path: found.get(("network", *path), value) for path, value in nnx.to_flat_state(own)}
        return nnx.from_flat_state(flat)

    return state._replace(params=carried(state.params, params), stats=carried(state.stats, stats))


def stage_recipe(recipe: Recipe, pretraining: Pretraining) -> Recipe:
    """The recipe of the stage: that of the run with the schedule and the learning rate of pretraining."""
    changes = {
        "epochs": pretraining.pretrain_epochs,
        "lr": pretraining.pretrain_lr,
        "schedule": "warmup-constant",
        "warmup_epochs": pretraining.pretrain_warmup_epochs,
    }
    return recipe.model_copy(update=changes)


def _set_up(run: Run, pretraining: Pretraining, setup: TrainingSetup, remat: bool) -> tuple[_Stage, TrainState]:
    """The stage on the data and devices of the run, and its state before the first step."""
    network, params, stats = initialized(run, data_shape(run), remat, pretraining)
    recipe = stage_recipe(run.recipe, pretraining)
    optimizer = make_optimizer(params, recipe, run.steps_per_epoch)
    own = initial_state(params, stats, optimizer, setup.mesh)
    batches, _ = setup.data["train"].take(0, 0, 1)
    print_line(f"{run.data.task} {run.model}: compiling the pretraining step…")
    gradient = position_gradient(network)
    train, cost = compile_training(run, network, optimizer, own, batches, setup.mesh, gradient=gradient)
    options = compiler_options(network.batched_products, training=False)
    scores = jax.jit(emulated(score_loop(network, run.recipe.batch_size, setup.mesh)), compiler_options=options)
    return _Stage(run, setup.mesh, train, scores, cost, setup.data["val"], run.steps_of(recipe.epochs)), own


def position_gradient(network: FunctionalNetwork) -> Gradient:
    """The gradient of the mean loss over all predicted positions of a batch. No answer counts as correct."""

    def loss_of(params: Any, stats: Any, batch: Examples, key: Array) -> tuple[Array, Any]:
        mask_key, dropout_key, layer_key = jax.random.split(key, 3)
        model = nnx.merge(network.training, params, stats, network.fixed, copy=True)
        reseed(model, layer_key)
        losses, wanted = model(batch.inputs, batch.lengths, mask_key, train=True, key=dropout_key)
        return mean_over(losses, wanted), nnx.state(model, nnx.BatchStat)

    def gradient(params: Any, stats: Any, batch: Examples, key: Array) -> tuple[Array, Array, Any, Any]:
        (loss, stats), grads = jax.value_and_grad(loss_of, has_aux=True)(params, stats, batch, key)
        return loss, jnp.zeros((), jnp.int32), stats, grads

    return gradient


def mean_over(losses: Array, wanted: Array) -> Array:
    """The mean of the losses (L, documents) at the wanted positions; 0 where there is none."""
    return jnp.sum(jnp.where(wanted, losses, 0.0)) / jnp.maximum(jnp.sum(wanted, dtype=jnp.float32), 1.0)


def score_loop(network: FunctionalNetwork, batch_size: int, mesh: Mesh) -> Scores:
    """The losses of all predicted positions of rows, one batch after another, as one program."""

    def loop(
        params: Any, stats: Any, totals: PositionTotals, rows: EvalRows, first: Array, key: Array
    ) -> PositionTotals:
        last = rows.examples.labels.shape[0] - 1

        def body(i: Array, totals: PositionTotals) -> PositionTotals:
            numbers = i * batch_size + jnp.arange(batch_size)
            batch = gather(rows.examples, jnp.minimum(numbers, last), mesh)
            mask_key = jax.random.fold_in(key, first + i)
            losses, wanted = network.merged(params, stats)(batch.inputs, batch.lengths, mask_key, train=False, key=None)
            # The last batch is filled up with repeated rows. Of pairs, all first documents come before all second ones.
            wanted = wanted & jnp.tile(numbers < rows.n, losses.shape[1] // batch_size)
            loss = totals.loss + jnp.sum(jnp.where(wanted, losses, 0.0))
            return PositionTotals(loss, totals.positions + jnp.sum(wanted, dtype=jnp.float32))

        return jax.lax.fori_loop(0, (rows.n + batch_size - 1) // batch_size, body, totals)

    return loop
