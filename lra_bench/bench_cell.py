"""One cell of the speed table: a model at one shape, its training step, forward pass and recurrent step measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.sharding import Mesh

from lra_bench import UserError, WorkError
from lra_bench.data.packed import PackedSplit
from lra_bench.distributed import data_mesh, replicate
from lra_bench.feed import Feed, Resident, make_feeds
from lra_bench.layers import DataShape
from lra_bench.measure import Calls, Effort, Floor, PeakMemory, free_memory, time_in_turn
from lra_bench.optim import make_optimiser
from lra_bench.results import Measurement, Timing
from lra_bench.run import Run
from lra_bench.steps import (
    Cost,
    Totals,
    TrainState,
    compile_now,
    compiler_options,
    eval_chunk,
    initial_state,
    make_network,
    stream_key,
    train_chunk,
)
from lra_bench.synthetic import synthetic_split

POOL_BYTES = 2**26
POOL_BATCHES = 64
"""Synthetic examples: as many batches as these two allow, at least four; one dispatch takes at most all of them."""
GIB = 2**30


class DoesNotFit(WorkError):
    """The compiler's estimate of a program is above the free memory."""


@dataclass(frozen=True)
class Cell:
    """What is measured: a run's network and optimiser on batches of a shape; `data`, if given, beside synthetic."""

    run: Run
    shape: DataShape
    data: PackedSplit | None
    remat: bool
    effort: Effort
    floor: Floor

    @property
    def batch_size(self) -> int:
        return self.run.recipe.batch_size

    @cached_property
    def mesh(self) -> Mesh:
        return data_mesh(self.batch_size)

    @cached_property
    def network(self) -> Any:
        return make_network(self.run, self.shape, self.remat)

    @property
    def parameters(self) -> int:
        return int(self.network[0].parameters)

    def feeds(self) -> dict[Literal["synthetic", "data"], Feed]:
        batch_bytes = self.batch_size * self.shape.documents * self.shape.length
        batches = max(4, min(POOL_BATCHES, POOL_BYTES // batch_bytes))
        synthetic = synthetic_split(self.run.recipe, self.shape, batches * self.batch_size)
        key = stream_key(0, 1)
        made: dict[Literal["synthetic", "data"], Feed] = {"synthetic": Resident(synthetic, key, self.mesh)}
        if self.data is not None:
            made["data"] = make_feeds({"train": self.data}, key, self.mesh, self.batch_size, "auto")["train"]
        return made


def measure_cell(cell: Cell, on_measured: Callable[[], None]) -> list[Measurement]:
    """Every measurement of a cell; `on_measured` is called after each kind of call.

    Raises DoesNotFit where a program needs more memory than is free.
    """
    feeds = cell.feeds()
    found = measure_training(cell, feeds)
    on_measured()
    found += measure_forward(cell, feeds["synthetic"])
    on_measured()
    found += measure_recurrent(cell)
    on_measured()
    return found


def measure_training(cell: Cell, feeds: Mapping[Literal["synthetic", "data"], Feed]) -> list[Measurement]:
    """The step as `train` runs it, many to a dispatch; synthetic and real data in turn."""
    network, params, stats = cell.network
    # The learning rate's schedule needs a length; any will do.
    optimiser = make_optimiser(params, cell.run.recipe, 1000)
    step = train_chunk(network, optimiser, cell.batch_size, cell.mesh)
    options = compiler_options(network, training=True)
    contenders: dict[str, Calls] = {}
    costs: dict[str, Cost] = {}
    with PeakMemory() as peak:
        for name, feed in feeds.items():
            state = initial_state(copied(params), copied(stats), optimiser, cell.mesh)
            key = replicate(stream_key(0, 2), cell.mesh)
            batches = feed.take(0, 0, 1)
            number = numbers(cell, 0)[0]
            arguments = (state, batches.examples, batches.order, key, number, number)
            program, costs[name] = compile_now(step, arguments, cell.run.precision, options, donate=0)
            refuse_if_too_large(costs[name], cell)
            contenders[name] = training_calls(cell, program, state, feed, key)
        timings = time_in_turn(contenders, cell.effort)
    moved = 2 * nbytes(state) + batch_nbytes(cell)
    return [
        measurement(cell, "train", name, timings[name], costs[name], peak, moved, cell.batch_size) for name in feeds
    ]


def training_calls(cell: Cell, program: Any, state: TrainState, feed: Feed, key: Array) -> Calls:
    per_epoch = len(feed.labels) // cell.batch_size
    latest, taken = state, 0

    def calls(n: int) -> None:
        nonlocal latest, taken
        while n:
            epoch, first = divmod(taken, per_epoch)
            batches = feed.take(epoch, first, min(n, per_epoch - first))
            latest = program(latest, batches.examples, batches.order, key, *numbers(cell, batches.first, batches.n))
            taken, n = taken + batches.n, n - batches.n
        jax.block_until_ready(latest)

    return calls


def measure_forward(cell: Cell, feed: Feed) -> list[Measurement]:
    """Logits, loss and correct answers of batches, as in evaluation."""
    network, params, stats = cell.network
    params, stats = replicate((params, stats), cell.mesh)
    examples, count = next(iter(feed.in_order()))
    whole = count // cell.batch_size
    zero = replicate(Totals.zero(), cell.mesh)
    arguments = (params, stats, examples, zero, *numbers(cell, 0, 1, count))
    with PeakMemory() as peak:
        chunk = eval_chunk(network, cell.batch_size, cell.mesh)
        options = compiler_options(network, training=False)
        program, cost = compile_now(chunk, arguments, cell.run.precision, options)
        refuse_if_too_large(cost, cell)

        def calls(n: int) -> None:
            totals = zero
            while n:
                here = min(n, whole)
                totals = program(params, stats, examples, totals, *numbers(cell, 0, here, count))
                n -= here
            jax.block_until_ready(totals)

        timing = time_in_turn({"forward": calls}, cell.effort)["forward"]
    moved = nbytes((params, stats)) + batch_nbytes(cell)
    return [measurement(cell, "forward", "synthetic", timing, cost, peak, moved, cell.batch_size)]


def measure_recurrent(cell: Cell) -> list[Measurement]:
    """One time step of every example of the batch, state in and state out; nothing where a layer looks ahead."""
    network, params, stats = cell.network
    rows = cell.batch_size * cell.shape.documents

    def model(params: Any, stats: Any) -> Any:
        return nnx.merge(network.evaluation, params, stats, network.fixed, copy=True)

    if not has_step(model(params, stats)):
        return []
    try:
        state = jax.jit(lambda params, stats: model(params, stats).initial_state(rows))(params, stats)
    except UserError:  # a layer that looks ahead
        return []
    tokens = jnp.asarray(synthetic_split(cell.run.recipe, cell.shape, rows).inputs.reshape(-1, rows))

    def steps(state: Any, params: Any, stats: Any, tokens: Array, n: Array) -> Any:
        network = model(params, stats)

        def body(t: Array, carry: tuple[Any, Array]) -> tuple[Any, Array]:
            state, total = carry
            state, logits = network.step(state, tokens[t % tokens.shape[0]])
            return state, total + logits.sum()

        return jax.lax.fori_loop(0, n, body, (state, jnp.zeros(())))

    with PeakMemory() as peak:
        arguments = state, params, stats, tokens, jnp.zeros((), jnp.int32)
        options = compiler_options(network, training=False)
        program, cost = compile_now(steps, arguments, cell.run.precision, options, donate=0)
        latest = state

        def calls(n: int) -> None:
            nonlocal latest
            latest, _ = jax.block_until_ready(program(latest, params, stats, tokens, jnp.asarray(n, jnp.int32)))

        timing = time_in_turn({"recurrent": calls}, cell.effort)["recurrent"]
    return [measurement(cell, "recurrent", "synthetic", timing, cost, peak, nbytes(state), None)]


def has_step(network: Any) -> bool:
    """The Transformer has none, and a user's own layer need not."""
    return hasattr(network, "step") and all(hasattr(block.layer, "step") for block in network.blocks)


def measurement(
    cell: Cell,
    call: Literal["train", "forward", "recurrent"],
    source: Literal["synthetic", "data"],
    timing: Timing,
    cost: Cost,
    peak: PeakMemory,
    moved: int,
    examples: int | None,
) -> Measurement:
    """`moved`: bytes that any program must read or write, of parameters, states and inputs."""
    per_device = 1 / (timing.median * jax.device_count())
    tokens = cell.batch_size * cell.shape.documents * (cell.shape.length if examples else 1)
    return Measurement(
        call=call,
        input=source,
        seconds=timing,
        examples_per_second_per_device=examples * per_device if examples else None,
        tokens_per_second_per_device=tokens * per_device,
        compile_seconds=cost.compile_seconds,
        flops=cost.flops or None,
        bytes_accessed=cost.bytes_accessed or None,
        floor_fraction=cell.floor.seconds(cost.flops, moved) / timing.median,
        **peak.of(cost),
    )


def copied(tree: Any) -> Any:
    """The training program gives its state away; what it starts from is used again."""
    return jax.tree.map(jnp.copy, tree)


def numbers(cell: Cell, *values: int) -> list[Array]:
    return [replicate(jnp.asarray(value, jnp.int32), cell.mesh) for value in values]


def nbytes(tree: Any) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


def batch_nbytes(cell: Cell) -> int:
    return cell.batch_size * cell.shape.documents * (cell.shape.length + 4) + 4 * cell.batch_size


def refuse_if_too_large(cost: Cost, cell: Cell) -> None:
    free = free_memory()
    if cost.peak_bytes > free:
        raise DoesNotFit(
            f"a batch of {cell.batch_size} needs about {cost.peak_bytes / GIB:.1f} GiB, {free / GIB:.1f} GiB are free"
        )
