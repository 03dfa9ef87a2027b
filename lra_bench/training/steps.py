"""The programs that run on the device: training steps and scored batches, many of them in one dispatch.

    state = train(state, batches, key)
    totals, correct = evaluate(params, stats, totals, rows)

How many batches a dispatch takes is data, so each program is compiled once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lra_bench.errors import UserError
from lra_bench.machine.emulation import emulated
from lra_bench.machine.xla import Cost, all_finite, compile_program, compiler_options
from lra_bench.models.dropout import rows_of_batch
from lra_bench.runs.run import Run
from lra_bench.training.functional import FunctionalNetwork
from lra_bench.training.mesh import replicate, sent_by_first, shared_out
from lra_bench.training.state import Batches, EvalRows, Examples, Totals, TrainState, stream_key

Gradient = Callable[[Any, Any, Examples, Array], tuple[Array, Array, Any, Any]]
"""parameters, statistics, batch, dropout key → mean loss, correct answers, new statistics, the parameters' gradient."""

TrainStep = Callable[[TrainState, Examples, Array], TrainState]
"""state, batch, dropout key → state after one step on the batch."""

TrainProgram = Callable[[TrainState, Batches, Array], TrainState]
"""state, batches, dropout key → state after one step on each of the batches. The state given is consumed."""

EvalProgram = Callable[[Any, Any, Totals, EvalRows], tuple[Totals, Array]]
"""parameters, statistics, totals, rows → totals with these examples counted, and which of them are classified
correctly: (batches, batch size) bool, False behind the last example."""


def batch_gradient(network: FunctionalNetwork) -> Gradient:
    """The gradient of a batch in one pass."""

    def loss_of(params: Any, stats: Any, batch: Examples, key: Array) -> tuple[Array, tuple[Array, Any]]:
        logits, stats = network.apply_train(params, stats, batch, key)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch.labels)
        correct = jnp.sum(jnp.argmax(logits, axis=-1) == batch.labels, dtype=jnp.int32)
        return losses.mean(), (correct, stats)

    def gradient(params: Any, stats: Any, batch: Examples, key: Array) -> tuple[Array, Array, Any, Any]:
        (loss, (correct, stats)), grads = jax.value_and_grad(loss_of, has_aux=True)(params, stats, batch, key)
        return loss, correct, stats, grads

    return gradient


def train_step(
    network: FunctionalNetwork, optimizer: optax.GradientTransformation, gradient: Gradient | None = None
) -> TrainStep:
    """One step of training: forward pass, gradient, update, and the books of the epoch.

    gradient: how the gradient of a batch is computed; None means in one pass.
    """
    gradient = gradient or batch_gradient(network)

    def step(state: TrainState, batch: Examples, key: Array) -> TrainState:
        key = jax.random.fold_in(key, state.step)
        loss, correct, stats, grads = gradient(state.params, state.stats, batch, key)
        updates, optimizer_state = optimizer.update(grads, state.optimizer, state.params)
        finite = jnp.isfinite(loss) & all_finite(grads)
        bad = jnp.where((state.first_bad < 0) & ~finite, state.step, state.first_bad)
        totals = Totals(state.totals.loss + loss * batch.labels.shape[0], state.totals.correct + correct)
        return TrainState(
            optax.apply_updates(state.params, updates), stats, optimizer_state, state.step + 1, totals, bad
        )

    return step


def train_loop(
    network: FunctionalNetwork,
    optimizer: optax.GradientTransformation,
    batch_size: int,
    mesh: Mesh,
    microbatch: int | None = None,
    gradient: Gradient | None = None,
) -> TrainProgram:
    """Steps on all of the batches, one after another, as one program.

    microbatch: the examples whose gradient is computed at once; None means the whole batch. gradient: another one than
    that of the task's own loss.
    """
    if microbatch is not None:
        gradient = accumulated_gradient(network, microbatch, mesh)
    step = train_step(network, optimizer, gradient)

    def loop(state: TrainState, batches: Batches, key: Array) -> TrainState:
        def body(i: Array, state: TrainState) -> TrainState:
            rows = jax.lax.dynamic_slice(batches.order, ((batches.first + i) * batch_size,), (batch_size,))
            return step(state, gather(batches.examples, rows, mesh), key)

        return jax.lax.fori_loop(0, batches.n, body, state)

    return loop


def eval_loop(network: FunctionalNetwork, batch_size: int, mesh: Mesh) -> EvalProgram:
    """All rows scored, one batch after another, as one program."""

    def loop(params: Any, stats: Any, totals: Totals, rows: EvalRows) -> tuple[Totals, Array]:
        last = rows.examples.labels.shape[0] - 1
        # A row per batch, so that the devices, which share out a batch, need not exchange anything.
        nothing = jnp.zeros((last // batch_size + 1, batch_size), bool)

        def body(i: Array, carry: tuple[Totals, Array]) -> tuple[Totals, Array]:
            totals, every = carry
            numbers = i * batch_size + jnp.arange(batch_size)
            batch = gather(rows.examples, jnp.minimum(numbers, last), mesh)
            logits = network.apply_eval(params, stats, batch)
            real = numbers < rows.n  # the last batch is filled up with repeated rows
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch.labels)
            correct = real & (jnp.argmax(logits, axis=-1) == batch.labels)
            loss = totals.loss + jnp.sum(jnp.where(real, losses, 0.0))
            totals = Totals(loss, totals.correct + jnp.sum(correct, dtype=jnp.int32))
            return totals, jax.lax.dynamic_update_index_in_dim(every, correct, i, 0)

        return jax.lax.fori_loop(0, (rows.n + batch_size - 1) // batch_size, body, (totals, nothing))

    return loop


def accumulated_gradient(network: FunctionalNetwork, microbatch: int, mesh: Mesh) -> Gradient:
    """The gradient of a batch as a sum over parts of so many examples, of which only one is in memory at once.

    It is that of the whole batch, dropout included, for a network without statistics (`refuse_parts`).
    """

    def gradient(params: Any, stats: Any, batch: Examples, key: Array) -> tuple[Array, Array, Any, Any]:
        batch_size = batch.labels.shape[0]

        def loss_of(params: Any, part: Examples, real: Array) -> tuple[Array, Array]:
            logits, _ = network.apply_train(params, stats, part, key)
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, part.labels)
            correct = jnp.sum(real & (jnp.argmax(logits, axis=-1) == part.labels), dtype=jnp.int32)
            return jnp.sum(jnp.where(real, losses, 0.0)) / batch_size, correct

        def body(i: Array, sums: tuple[Array, Array, Any]) -> tuple[Array, Array, Any]:
            numbers = i * microbatch + jnp.arange(microbatch)
            places = jnp.minimum(numbers, batch_size - 1)  # the last part is filled up with repeated rows
            with rows_of_batch(places, batch_size):
                part = gather(batch, places, mesh)
                (loss, correct), grads = jax.value_and_grad(loss_of, has_aux=True)(params, part, numbers < batch_size)
            return jax.tree.map(jnp.add, sums, (loss, correct, grads))

        nothing = jnp.zeros((), jnp.float32), jnp.zeros((), jnp.int32), jax.tree.map(jnp.zeros_like, params)
        loss, correct, grads = jax.lax.fori_loop(0, -(-batch_size // microbatch), body, nothing)
        return loss, correct, stats, grads

    return gradient


def refuse_parts(network: FunctionalNetwork, stats: Any) -> None:
    """Check that the gradient of a batch is a sum over its parts. Raises UserError where the network sees the whole."""
    if jax.tree.leaves(stats):
        raise UserError(
            "--microbatch needs a network without BatchNorm, whose moments are those of the whole batch at once. Leave "
            "it out, and type --remat for half the memory."
        )
    if jax.tree.leaves(network.fixed):
        raise UserError("--microbatch needs a layer without random streams of its own, which draw for a whole batch.")


def gather(examples: Examples, rows: Array, mesh: Mesh) -> Examples:
    """The examples of these rows, divided over the devices."""
    batch = jax.tree.map(lambda column: column[rows], examples)
    return shared_out(batch, mesh) if mesh.size > 1 else batch


def initial_state(params: Any, stats: Any, optimizer: optax.GradientTransformation, mesh: Mesh) -> TrainState:
    """The state before the first step, on every device, as process 0 computes it: the last bits of eigenvalues depend
    on the processor."""
    minus_one, zero = jnp.full((), -1, jnp.int32), jnp.zeros((), jnp.int32)
    state = replicate(TrainState(params, stats, optimizer.init(params), zero, Totals.zero(), minus_one), mesh)
    return sent_by_first(state, state)


def compile_training(
    run: Run,
    network: FunctionalNetwork,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    batches: Batches,
    mesh: Mesh,
    microbatch: int | None = None,
    gradient: Gradient | None = None,
) -> tuple[TrainProgram, Cost]:
    """The training program, compiled ahead of time, and what the compiler says of it.

    gradient: another one than that of the task's own loss.

    Raises UserError where the network cannot be trained in parts of `microbatch` examples.
    """
    batch_size = run.recipe.batch_size
    if microbatch is not None:
        refuse_parts(network, state.stats)
        microbatch = min(microbatch, batch_size)
    loop = train_loop(network, optimizer, batch_size, mesh, microbatch, gradient)
    key = replicate(stream_key(run.seed, 2), mesh)
    options = compiler_options(network.batched_products, training=True)
    return compile_program(loop, (state, batches, key), run.precision, options, donate=0)


def evaluation_program(run: Run, network: FunctionalNetwork, mesh: Mesh) -> EvalProgram:
    """The evaluation program, which is compiled at its first call."""
    loop = eval_loop(network, run.recipe.batch_size, mesh)
    everywhere = NamedSharding(mesh, PartitionSpec()) if mesh.size > 1 else None  # each process reads all of the result
    options = compiler_options(network.batched_products, training=False)
    return jax.jit(emulated(loop), out_shardings=everywhere, compiler_options=options)
