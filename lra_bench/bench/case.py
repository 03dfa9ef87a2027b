"""Measuring one model at one shape: its training step, its forward pass and its recurrent step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array
from jax.sharding import Mesh

from lra_bench.bench.synthetic import synthetic_split
from lra_bench.bench.timing import Calls, Roofline, TimingSettings, time_in_turn
from lra_bench.data.packed import PackedSplit
from lra_bench.errors import UserError, WorkError
from lra_bench.machine.memory import PeakMemory, free_memory
from lra_bench.machine.mesh import data_mesh
from lra_bench.machine.xla import Cost, compile_program, compiler_options
from lra_bench.models.layers import DataShape
from lra_bench.records.schema import Measurement, Timing
from lra_bench.report.speed import GIB
from lra_bench.runs.run import Run
from lra_bench.training.functional import FunctionalNetwork, initialized
from lra_bench.training.input_pipeline import InputPipeline, ResidentPipeline, make_pipelines
from lra_bench.training.mesh import replicate
from lra_bench.training.optimizer import make_optimizer
from lra_bench.training.state import EvalRows, Totals, TrainState, stream_key
from lra_bench.training.steps import TrainProgram, eval_loop, initial_state, train_loop

POOL_BYTES = 2**26
"""The most bytes of synthetic inputs, unless four batches need more."""

POOL_BATCHES = 64
"""The most batches of synthetic examples. One dispatch takes at most all of them."""


class DoesNotFit(WorkError):
    """A program, or what it is given, needs more memory than is free."""


@dataclass(frozen=True)
class NetworkCase:
    """A run's network and optimizer on batches of a shape."""

    run: Run
    shape: DataShape
    data: PackedSplit | None
    """The prepared examples that are measured beside synthetic ones, if any."""
    remat: bool

    @property
    def batch_size(self) -> int:
        """The number of examples in a batch of all devices."""
        return self.run.recipe.batch_size

    @cached_property
    def mesh(self) -> Mesh:
        """The mesh of all devices."""
        return data_mesh()

    @cached_property
    def network(self) -> tuple[FunctionalNetwork, nnx.State, nnx.State]:
        """The network, its parameters and its statistics."""
        return initialized(self.run, self.shape, self.remat)

    @property
    def parameters(self) -> int:
        """The number of parameters."""
        return self.network[0].parameters

    def pipelines(self) -> dict[Literal["synthetic", "data"], InputPipeline]:
        """Make the input pipelines of the examples to measure on."""
        batch_bytes = self.batch_size * self.shape.documents * self.shape.length * self.shape.channels
        batches = max(4, min(POOL_BATCHES, POOL_BYTES // batch_bytes))
        synthetic = synthetic_split(self.run.recipe, self.shape, batches * self.batch_size)
        key = stream_key(0, 1)
        made: dict[Literal["synthetic", "data"], InputPipeline] = {
            "synthetic": ResidentPipeline(synthetic, key, self.mesh)
        }
        if self.data is not None:
            made["data"] = make_pipelines({"train": self.data}, key, self.mesh, self.batch_size, "auto")["train"]
        return made


@contextmanager
def too_large_in_words(case: NetworkCase) -> Iterator[None]:
    """Turn a device or host that runs out of memory into DoesNotFit."""
    try:
        yield
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise DoesNotFit(f"a batch of {case.batch_size} needs more memory than is free") from None


@dataclass(frozen=True)
class BenchCase(NetworkCase):
    """A case to measure."""

    settings: TimingSettings


class Measured(NamedTuple):
    """A measurement, still without its share of the roofline, and the bytes that any program must move for it."""

    measurement: Measurement
    moved: int

    def beside(self, roofline: Roofline) -> Measurement:
        """The measurement with the share of the least time that the device can take."""
        found = self.measurement
        fraction = roofline.seconds(found.flops or 0.0, self.moved) / found.seconds.median
        return found.model_copy(update={"roofline_fraction": fraction})


def measure_case(case: BenchCase, on_measured: Callable[[], None]) -> list[Measured]:
    """Make every measurement of a case. `on_measured` is called after each kind of call.

    The call that needs most memory comes last, so that the device's count of its peak rises with each of them.

    Raises DoesNotFit where a program needs more memory than is free.
    """
    pipelines = case.pipelines()
    recurrent = measure_recurrent(case)
    on_measured()
    forward = measure_forward(case, pipelines["synthetic"])
    on_measured()
    training = measure_training(case, pipelines)
    on_measured()
    return [*training, *forward, *recurrent]


def measure_training(
    case: BenchCase, pipelines: Mapping[Literal["synthetic", "data"], InputPipeline]
) -> list[Measured]:
    """Measure the training step as `train` runs it, many to a dispatch, on synthetic and real data in turn."""
    contenders: dict[str, Calls] = {}
    costs: dict[str, Cost] = {}
    with PeakMemory() as peak:
        for name, pipeline in pipelines.items():
            program, costs[name], state = compile_training(case, pipeline)
            contenders[name] = training_calls(case, program, state, pipeline)
        timings = time_in_turn(contenders, case.settings)
    moved = 2 * nbytes(state) + batch_nbytes(case)
    return [
        measurement(case, "train", name, timings[name], costs[name], peak, moved, case.batch_size) for name in pipelines
    ]


def compile_training(case: NetworkCase, pipeline: InputPipeline) -> tuple[Any, Cost, TrainState]:
    """Compile the training program of a case for this device: the program, its cost, and the state before a step.

    Raises DoesNotFit where it needs more memory than is free.
    """
    network, params, stats = case.network
    optimizer = case_optimizer(case)
    loop = train_loop(network, optimizer, case.batch_size, case.mesh)
    # The training program overwrites its state, so it gets a copy; the network's own is used again.
    state = initial_state(copied(params), copied(stats), optimizer, case.mesh)
    batches, _ = pipeline.take(0, 0, 1)
    options = compiler_options(network.batched_products, training=True)
    arguments = state, batches, replicate(stream_key(0, 2), case.mesh)
    program, cost = compile_program(loop, arguments, case.run.precision, options, donate=0)
    refuse_if_too_large(cost, case)
    return program, cost, state


def case_optimizer(case: NetworkCase) -> optax.GradientTransformation:
    """The optimizer of a case, for 1000 steps in an epoch.

    The schedule of the learning rate needs their number, which does not change the time of a step.
    """
    return make_optimizer(case.network[1], case.run.recipe, 1000)


def training_calls(case: NetworkCase, program: TrainProgram, state: TrainState, pipeline: InputPipeline) -> Calls:
    """Make the function that runs so many training steps, from the state in which its last call ended."""
    key = replicate(stream_key(0, 2), case.mesh)
    per_epoch = len(pipeline.labels) // case.batch_size
    latest, taken = state, 0

    def calls(n: int) -> None:
        nonlocal latest, taken
        while n:
            epoch, first = divmod(taken, per_epoch)
            batches, here = pipeline.take(epoch, first, min(n, per_epoch - first))
            latest = program(latest, batches, key)
            taken, n = taken + here, n - here
        jax.block_until_ready(latest)

    return calls


def measure_forward(case: BenchCase, pipeline: InputPipeline) -> list[Measured]:
    """Measure the forward pass as evaluation runs it: logits, loss and the number of correct answers."""
    network, params, stats = case.network
    params, stats = replicate((params, stats), case.mesh)
    rows, count = next(iter(pipeline.in_order()))
    whole = count // case.batch_size
    zero = replicate(Totals.zero(), case.mesh)
    with PeakMemory() as peak:
        loop = eval_loop(network, case.batch_size, case.mesh)
        options = compiler_options(network.batched_products, training=False)
        program, cost = compile_program(loop, (params, stats, zero, rows), case.run.precision, options)
        refuse_if_too_large(cost, case)

        def calls(n: int) -> None:
            totals = zero
            while n:
                here = min(n, whole)
                counted = replicate(jnp.asarray(here * case.batch_size, jnp.int32), case.mesh)
                totals, _ = program(params, stats, totals, EvalRows(rows.examples, counted))
                n -= here
            jax.block_until_ready(totals)

        timing = time_in_turn({"forward": calls}, case.settings)["forward"]
    moved = nbytes((params, stats)) + batch_nbytes(case)
    return [measurement(case, "forward", "synthetic", timing, cost, peak, moved, case.batch_size)]


def measure_recurrent(case: BenchCase) -> list[Measured]:
    """Measure one step of the recurrence for every example of the batch. A network without a step gives nothing."""
    network, params, stats = case.network
    rows = case.batch_size * case.shape.documents
    if not has_step(network.merged(params, stats)):
        return []
    try:
        state = jax.jit(lambda params, stats: network.merged(params, stats).initial_state(rows))(params, stats)
    except UserError:  # a bidirectional layer
        return []
    channels = () if case.shape.channels == 1 else (case.shape.channels,)
    tokens = jnp.asarray(synthetic_split(case.run.recipe, case.shape, rows).inputs.reshape(-1, rows, *channels))

    def steps(state: Any, params: Any, stats: Any, tokens: Array, n: Array) -> Any:
        model = network.merged(params, stats)

        def body(t: Array, carry: tuple[Any, Array]) -> tuple[Any, Array]:
            state, total = carry
            state, logits = model.step(state, tokens[t % tokens.shape[0]])
            return state, total + logits.sum()

        return jax.lax.fori_loop(0, n, body, (state, jnp.zeros(())))

    with PeakMemory() as peak:
        arguments = state, params, stats, tokens, jnp.zeros((), jnp.int32)
        options = compiler_options(network.batched_products, training=False)
        program, cost = compile_program(steps, arguments, case.run.precision, options, donate=0)
        latest = state

        def calls(n: int) -> None:
            nonlocal latest
            latest, _ = jax.block_until_ready(program(latest, params, stats, tokens, jnp.asarray(n, jnp.int32)))

        timing = time_in_turn({"recurrent": calls}, case.settings)["recurrent"]
    return [measurement(case, "recurrent", "synthetic", timing, cost, peak, nbytes(state), None)]


def has_step(network: Any) -> bool:
    """Whether the network runs step by step in constant time. A user's own layer need not have a step, and that of a
    Transformer takes longer the more steps came before (`bench/generation.py`)."""
    return hasattr(network, "step") and all(
        hasattr(block, "layer") and hasattr(block.layer, "step") for block in network.blocks
    )


def measurement(
    case: BenchCase,
    call: Literal["train", "forward", "recurrent"],
    source: Literal["synthetic", "data"],
    timing: Timing,
    cost: Cost,
    peak: PeakMemory,
    moved: int,
    examples: int | None,
) -> Measured:
    """Put a measurement together as a record has it, but for its share of the roofline.

    moved: the bytes of parameters, states and inputs that any program must read or write.
    examples: the number in one call; None for the recurrent step, which takes no whole example.
    """
    per_device = 1 / (timing.median * jax.device_count())
    tokens = case.batch_size * case.shape.documents * (case.shape.length if examples else 1)
    found = Measurement(
        call=call,
        input=source,
        seconds=timing,
        examples_per_second_per_device=examples * per_device if examples else None,
        tokens_per_second_per_device=tokens * per_device,
        compile_seconds=cost.compile_seconds,
        flops=cost.flops or None,
        bytes_accessed=cost.bytes_accessed or None,
        roofline_fraction=None,
        **peak.fields(cost),
    )
    return Measured(found, moved)


def copied(tree: Any) -> Any:
    """Copy every array of the tree."""
    return jax.tree.map(jnp.copy, tree)


def nbytes(tree: Any) -> int:
    """The bytes of all arrays of the tree."""
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


def batch_nbytes(case: NetworkCase) -> int:
    """The bytes of one batch: inputs, lengths and labels."""
    return case.batch_size * (case.shape.documents * (case.shape.channels * case.shape.length + 4) + 4)


def refuse_if_too_large(cost: Cost, case: NetworkCase) -> None:
    """Check the memory of a program. Raises DoesNotFit where it needs more than is free."""
    free = free_memory()
    if cost.peak_bytes > free:
        raise DoesNotFit(
            f"a batch of {case.batch_size} needs about {cost.peak_bytes / GIB:.1f} GiB, {free / GIB:.1f} GiB are free"
        )
