"""What runs on the device: the training step, the evaluation step, and loops of them in one dispatch each."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array
from jax.sharding import Mesh

from lra_bench import models
from lra_bench.classifier import count_parameters
from lra_bench.distributed import replicate, share_out
from lra_bench.layers import DataShape
from lra_bench.run import Precision, Run

PRECISIONS: dict[Precision, str] = {"float32": "highest", "tf32": "tensorfloat32"}


class Examples(NamedTuple):
    """One split on the device: inputs (n, L) or (n, 2, L) uint8, lengths (n,) or (n, 2) int32, labels (n,) int32."""

    inputs: Array
    lengths: Array
    labels: Array


class Totals(NamedTuple):
    """Sums over examples seen: of the loss, and of correct answers."""

    loss: Array
    correct: Array

    @staticmethod
    def zero() -> Totals:
        return Totals(jnp.zeros((), jnp.float32), jnp.zeros((), jnp.int32))


class TrainState(NamedTuple):
    """All that a training step changes. Data order and dropout follow from `step` and the seed, so this is enough to
    resume."""

    params: nnx.State
    stats: nnx.State
    optimiser: optax.OptState
    step: Array
    totals: Totals
    """Of the current epoch."""
    first_bad: Array
    """Number of the first step whose loss or gradient was not finite; −1 while there is none."""


class Cost(NamedTuple):
    """What the compiler says of a program."""

    compile_seconds: float
    peak_bytes: int
    """Arguments, outputs and temporaries on one device: the compiler's estimate."""
    flops: float
    bytes_accessed: float
    """Of this and of `flops` the compiler counts each loop's body once: one step of the training program, and of a
    recurrence one of L steps, whose work is about 1 % of the products around it."""


def stream_key(seed: int, stream: int) -> Array:
    """An independent random stream of a run: 0 parameters, 1 order of the examples, 2 dropout."""
    return jax.random.fold_in(jax.random.key(seed), stream)


@partial(jax.jit, static_argnames="n")
def epoch_order(key: Array, epoch: Array, n: int) -> Array:
    """The order (n,) in which `epoch` visits the n training examples."""
    return jax.random.permutation(jax.random.fold_in(key, epoch), n)


@dataclass(frozen=True)
class Network:
    """The model taken apart once: static structure, and how to put it together inside jit."""

    training: Any
    evaluation: Any
    fixed: nnx.State
    """Neither trained nor carried: random streams of a user's own layers, reseeded at every step."""
    parameters: int
    batched_products: bool

    def apply_train(self, params: Any, stats: Any, batch: Examples, key: Array) -> tuple[Array, Any]:
        model = nnx.merge(self.training, params, stats, self.fixed, copy=True)
        dropout_key, layer_key = jax.random.split(key)
        reseed(model, layer_key)
        logits = model(batch.inputs, batch.lengths, train=True, key=dropout_key)
        return logits, nnx.state(model, nnx.BatchStat)

    def apply_eval(self, params: Any, stats: Any, batch: Examples) -> Array:
        model = nnx.merge(self.evaluation, params, stats, self.fixed, copy=True)
        return model(batch.inputs, batch.lengths, train=False, key=None)


def reseed(model: nnx.Module, key: Array) -> None:
    """Start each random stream in the model anew from `key`, no two alike: `nnx.reseed` would give the layers' dropout
    one mask."""
    streams = [node for _, node in nnx.iter_graph(model) if isinstance(node, nnx.RngStream)]
    for index, stream in enumerate(streams):
        stream.key[...] = jax.random.fold_in(key, index)
        stream.count[...] = jnp.zeros_like(stream.count[...])


def make_network(run: Run, shape: DataShape, remat: bool = False) -> tuple[Network, nnx.State, nnx.State]:
    """The network of a run with its initial parameters and statistics. Traced under jit: one compiled
    initialisation."""
    structure: dict[str, Any] = {}

    def build(key: Array) -> tuple[Any, Any, Any]:
        model = models.build(
            run.model, run.recipe, shape, rngs=nnx.Rngs(params=key, default=jax.random.fold_in(key, 1))
        )
        model.remat = remat
        model.train()
        graph, (params, stats, fixed) = nnx.graphdef(model), nnx.state(model, nnx.Param, nnx.BatchStat, ...)
        structure["training"] = graph
        structure["parameters"] = count_parameters(model)
        structure["batched_products"] = model.batched_products
        model.eval()
        structure["evaluation"] = nnx.graphdef(model)
        return params, stats, fixed

    params, stats, fixed = jax.jit(build)(stream_key(run.seed, 0))
    return Network(fixed=fixed, **structure), params, stats


def make_batch(examples: Examples, rows: Array, mesh: Mesh) -> Examples:
    batch = jax.tree.map(lambda column: column[rows], examples)
    return share_out(batch, mesh) if mesh.size > 1 else batch


@dataclass(frozen=True)
class Programs:
    """The compiled programs of a run. The number of steps in a dispatch is an argument: one program serves all."""

    train: Callable[..., TrainState]
    evaluate: Callable[[Any, Any, Examples, Totals, Array, Array, Array], Totals]
    cost: Cost


def train_step(
    network: Network, optimiser: optax.GradientTransformation
) -> Callable[[TrainState, Examples, Array], TrainState]:
    """(state, batch, dropout key) → state after one step on the batch."""

    def loss_of(params: Any, stats: Any, batch: Examples, key: Array) -> tuple[Array, tuple[Array, Any]]:
        logits, stats = network.apply_train(params, stats, batch, key)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch.labels)
        correct = jnp.sum(jnp.argmax(logits, axis=-1) == batch.labels, dtype=jnp.int32)
        return losses.mean(), (correct, stats)

    def step(state: TrainState, batch: Examples, key: Array) -> TrainState:
        key = jax.random.fold_in(key, state.step)
        gradient = jax.value_and_grad(loss_of, has_aux=True)
        (loss, (correct, stats)), grads = gradient(state.params, state.stats, batch, key)
        updates, optimiser_state = optimiser.update(grads, state.optimiser, state.params)
        finite = jnp.isfinite(loss) & all_finite(grads)
        bad = jnp.where((state.first_bad < 0) & ~finite, state.step, state.first_bad)
        totals = Totals(state.totals.loss + loss * batch.labels.shape[0], state.totals.correct + correct)
        return TrainState(
            optax.apply_updates(state.params, updates), stats, optimiser_state, state.step + 1, totals, bad
        )

    return step


def all_finite(tree: Any) -> Array:
    """One product over all leaves laid end to end: a reduction for each leaf takes the compiler a second longer."""
    flat = jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(tree)])
    return jnp.isfinite(jnp.vdot(flat, flat))


def train_chunk(
    network: Network, optimiser: optax.GradientTransformation, batch_size: int, mesh: Mesh
) -> Callable[[TrainState, Examples, Array, Array, Array, Array], TrainState]:
    """(state, examples, order, key, first, n) → state after n steps on the batches `first`, `first` + 1, … of
    `order`."""
    step = train_step(network, optimiser)

    def chunk(state: TrainState, examples: Examples, order: Array, key: Array, first: Array, n: Array) -> TrainState:
        def body(i: Array, state: TrainState) -> TrainState:
            rows = jax.lax.dynamic_slice(order, ((first + i) * batch_size,), (batch_size,))
            return step(state, make_batch(examples, rows, mesh), key)

        return jax.lax.fori_loop(0, n, body, state)

    return chunk


def eval_chunk(
    network: Network, batch_size: int, mesh: Mesh
) -> Callable[[Any, Any, Examples, Totals, Array, Array, Array], Totals]:
    """(params, stats, examples, totals, first, n, count) → totals with n more batches counted, from batch `first` on;
    only the first `count` rows of `examples` are counted."""

    def chunk(
        params: Any, stats: Any, examples: Examples, totals: Totals, first: Array, n: Array, count: Array
    ) -> Totals:
        last = examples.labels.shape[0] - 1

        def body(i: Array, totals: Totals) -> Totals:
            rows = (first + i) * batch_size + jnp.arange(batch_size)
            batch = make_batch(examples, jnp.minimum(rows, last), mesh)
            logits = network.apply_eval(params, stats, batch)
            real = rows < count
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch.labels)
            correct = real & (jnp.argmax(logits, axis=-1) == batch.labels)
            return Totals(
                totals.loss + jnp.sum(jnp.where(real, losses, 0.0)), totals.correct + jnp.sum(correct, dtype=jnp.int32)
            )

        return jax.lax.fori_loop(0, n, body, totals)

    return chunk


def initial_state(params: Any, stats: Any, optimiser: optax.GradientTransformation, mesh: Mesh) -> TrainState:
    minus_one, zero = jnp.full((), -1, jnp.int32), jnp.zeros((), jnp.int32)
    return replicate(TrainState(params, stats, optimiser.init(params), zero, Totals.zero(), minus_one), mesh)


def matmul_precision(precision: Precision) -> contextlib.AbstractContextManager[None]:
    """Products of float32 matrices as the run says; without this an accelerator may round them to TF32 or bfloat16."""
    return jax.default_matmul_precision(PRECISIONS[precision])


def compile_programs(
    run: Run,
    network: Network,
    optimiser: optax.GradientTransformation,
    state: TrainState,
    examples: Examples,
    mesh: Mesh,
) -> Programs:
    """Compile the training program ahead of time (so its cost is known) and prepare the evaluation program."""
    batch_size = run.recipe.batch_size
    order = jnp.zeros(examples.labels.shape[0], jnp.int32)
    number = jnp.zeros((), jnp.int32)
    order, key, number = replicate((order, stream_key(run.seed, 2), number), mesh)
    step = train_chunk(network, optimiser, batch_size, mesh)
    arguments, options = (state, examples, order, key, number, number), compiler_options(network, training=True)
    train, cost = compile_now(step, arguments, run.precision, options, donate=0)
    evaluate = jax.jit(
        eval_chunk(network, batch_size, mesh), compiler_options=compiler_options(network, training=False)
    )
    return Programs(train, evaluate, cost)


CompilerOptions = dict[str, str | bool]


def compiler_options(network: Network, training: bool) -> CompilerOptions:
    """What XLA is told on a CPU. The scheduler that keeps memory low: an eighth to a fifth less, in the same time; the
    default one orders for operations that run side by side.

    By default XLA gives matrix products and sums to YNNPACK. Without products S5's evaluation takes 4–20 % less time
    and its training up to 7 %, other layers' 1–7 %, but a Transformer's evaluation 1.7 times as much. Sums stay with it
    in training, where a step on ListOps would else take a third longer; in evaluation they draw the last block into
    one slow kernel.
    """
    if jax.default_backend() != "cpu":
        return {}
    options: CompilerOptions = {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}
    if not network.batched_products:
        options["xla_cpu_experimental_ynn_fusion_type"] = "LIBRARY_FUSION_TYPE_REDUCE" if training else ""
    return options


def compile_now(
    function: Callable[..., Any],
    args: Sequence[Any],
    precision: Precision,
    options: CompilerOptions,
    donate: int | tuple[int, ...] = (),
) -> tuple[Any, Cost]:
    """`function` compiled for arguments of these shapes, and what the compiler says of it."""
    with matmul_precision(precision):
        started = time.perf_counter()
        compiled = jax.jit(function, donate_argnums=donate).lower(*args).compile(options)
        seconds = time.perf_counter() - started
    memory, analysis = compiled.memory_analysis(), compiled.cost_analysis() or {}
    peak = 0
    if memory is not None:
        peak = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
        peak -= memory.alias_size_in_bytes
    flops, traffic = (float(analysis[name]) if name in analysis else 0.0 for name in ("flops", "bytes accessed"))
    return compiled, Cost(seconds, int(peak), flops, traffic)
