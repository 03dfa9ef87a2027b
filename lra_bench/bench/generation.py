"""Measuring generation step by step: a model's recurrence against a causal Transformer with as many parameters.

Both networks read the token that they scored highest at the step before, and have as many classes as a token has
values. Their parameters are the initial ones, so that what they generate means nothing; only its time is of interest.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from lra_bench.bench.case import DoesNotFit, has_step
from lra_bench.bench.plan import SMOKE_SIZES, named
from lra_bench.bench.run import Skipped
from lra_bench.bench.synthetic import synthetic_run
from lra_bench.bench.timing import SMOKE_TIMING, Calls, TimingSettings, time_in_turn
from lra_bench.errors import UserError, WorkError
from lra_bench.machine.memory import free_memory
from lra_bench.machine.xla import compile_program, compiler_options
from lra_bench.models.classifier import count_parameters
from lra_bench.models.layers import DataShape
from lra_bench.models.network import build
from lra_bench.progress import Progress
from lra_bench.registry import canonical_model, model_names, model_title, task_module
from lra_bench.report.generation import BatchChoice, Generation
from lra_bench.report.speed import GIB
from lra_bench.runs.run import Run
from lra_bench.spec import Precision, Recipe
from lra_bench.training.functional import FunctionalNetwork, initialized

STEPWISE: dict[str, Any] = {"bidirectional": False, "pooling": "mean"}
"""The settings with which a network runs step by step."""

WIDTHS = 8
"""The Transformer's width is a multiple of this."""

HEAD_WIDTH = 32
"""The least numbers in a head of the Transformer, where it has more than one."""

MLP_WIDTHS = 4
"""How many times as wide as the Transformer its MLP is at least."""

MOST_SEQUENCES = 4096
"""The largest batch that is tried. Throughput no longer rises there."""

CPU_MEMORY = GIB
"""The bytes that a program may take on a CPU unless `--memory` says otherwise."""

FREE_SHARE = 0.9
"""The share of a device's free memory that a program may take unless `--memory` says otherwise."""


@dataclass(frozen=True, kw_only=True)
class GenerationRequest:
    """The request of a command line."""

    precision: Precision
    models: Sequence[str]
    task: str
    lengths: Sequence[int]
    batch: int = 1
    memory: int | None = None
    """The bytes that a program may take; None means what the device has free, and on a CPU `CPU_MEMORY`."""
    overrides: Mapping[str, Any]
    smoke: bool = False


class GenerationOutcome(NamedTuple):
    """What was measured, and what was not, with the reason."""

    measured: list[Generation]
    skipped: list[Skipped]


class Generator(NamedTuple):
    """A network that runs step by step, with its parameters and statistics."""

    run: Run
    network: FunctionalNetwork
    params: nnx.State
    stats: nnx.State

    def start(self, batch: int) -> Callable[[Any, Any], tuple[Any, Array]]:
        """The function from parameters and statistics to the state of `batch` sequences and their first tokens."""
        return lambda params, stats: (
            self.network.merged(params, stats).initial_state(batch),
            jnp.zeros(batch, jnp.uint8),
        )

    def bytes_at(self, batch: int) -> int:
        """The bytes of parameters, statistics and the state of so many sequences."""
        start = jax.eval_shape(self.start(batch), self.params, self.stats)
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves((start, self.params, self.stats)))


class Program(NamedTuple):
    """A compiled program that generates with a batch of this size."""

    generator: Generator
    batch: int
    compiled: Any
    bytes: int
    """The bytes that it needs."""


def run_generation(request: GenerationRequest) -> GenerationOutcome:
    """Measure every model at every length, beside its Transformer.

    Raises UserError for an unknown name and for what cannot run step by step, and WorkError where nothing fits.
    """
    jax.config.update("jax_enable_compilation_cache", False)
    models = [canonical_model(model) for model in named(request.models, model_names())]
    outcome = GenerationOutcome([], [])
    with Progress("generate", total=len(models) * len(request.lengths), unit="measurements") as progress:
        for model in models:
            for length in request.lengths:
                progress.note = f"{model_title(model)}, {length:,} steps"
                try:
                    measure_length(request, model, length, outcome)
                except UserError as error:
                    if "all" not in request.models:
                        raise
                    outcome.skipped.append(Skipped(model, request.task, length, str(error).rstrip(".")))
                    break  # the other lengths are refused for the same reason
                progress.advance(1)
    if not outcome.measured:
        raise WorkError(f"nothing was measured: {'; '.join(skipped.reason for skipped in outcome.skipped)}.")
    return outcome


def measure_length(request: GenerationRequest, model: str, length: int, outcome: GenerationOutcome) -> None:
    """Measure a model and its Transformer at one length, and append to the outcome what was measured or skipped.

    At the equal batch their windows alternate. At their largest batches each has the memory to itself.
    """
    memory = memory_of(request)
    ours = generator(request, model, length)
    networks = {False: ours, True: transformer_like(request, ours, length)}

    def where_it_fits(function: Callable[..., Program], network: Generator, *arguments: int) -> Program | None:
        try:
            return function(network, *arguments)
        except DoesNotFit as error:
            outcome.skipped.append(Skipped(network.run.model, request.task, length, str(error)))
            return None

    def measure(choice: BatchChoice, programs: dict[bool, Program]) -> None:
        settings = SMOKE_TIMING if request.smoke else TimingSettings()
        timings = time_in_turn({str(key): calls_of(program) for key, program in programs.items()}, settings)
        for transformer, program in programs.items():
            parameters, timing = program.generator.network.parameters, timings[str(transformer)]
            found = (model, transformer, length, choice, program.batch, parameters, timing, program.bytes)
            outcome.measured.append(Generation(*found))

    made = {key: where_it_fits(compiled, one, request.batch, memory) for key, one in networks.items()}
    fitting = {key: program for key, program in made.items() if program is not None}
    if fitting:
        measure("equal", fitting)
    for key, one in networks.items():
        program = where_it_fits(largest, one, memory)
        if program is not None:
            measure("largest", {key: program})


def memory_of(request: GenerationRequest) -> int:
    """The bytes that a program may take. Raises UserError where more is asked for than is free."""
    free = free_memory()
    if request.memory is None:
        return CPU_MEMORY if jax.default_backend() == "cpu" else int(FREE_SHARE * free)
    if request.memory > free:
        raise UserError(f"--memory must be at most the {free / GIB:.1f} GiB that are free; type less.")
    return request.memory


def generator(request: GenerationRequest, model: str, length: int) -> Generator:
    """Make a model that generates tokens of a task. Raises UserError where it cannot run step by step."""
    if task_module(request.task).TASK.channels > 1:
        raise UserError(f"generate makes tokens and shades of gray, no colors; --task {request.task} has three.")
    if model == "transformer":
        raise UserError("the Transformer is what other models are measured against; give another --model.")
    smoke = SMOKE_SIZES if request.smoke else {}
    made = initial_network(request, model, length, {**STEPWISE, **smoke, **request.overrides})
    if not has_step(made.network.merged(made.params, made.stats)):
        raise UserError(f"{model_title(model)} has no step, so it cannot generate step by step; give another --model.")
    jax.eval_shape(made.start(1), made.params, made.stats)  # raises for what reads the future
    return made


def initial_network(request: GenerationRequest, model: str, length: int, settings: Mapping[str, Any]) -> Generator:
    """Make a network with its initial parameters. It has a class for each value of a token, and nothing is padding."""
    run, shape = synthetic_run(model, request.task, length, settings, request.precision)
    return Generator(run, *initialized(run, generating(shape, run.recipe)))


def generating(shape: DataShape, recipe: Recipe) -> DataShape:
    """The shape of data of which one document is generated."""
    return replace(shape, classes=recipe.embedding or 256, documents=1, variable_length=True)


def transformer_like(request: GenerationRequest, ours: Generator, length: int) -> Generator:
    """Make the causal Transformer with as many blocks and about as many parameters as a model."""
    recipe = ours.run.recipe
    settings = transformer_settings(request.task, recipe.n_layers, recipe.embedding or 256, ours.network.parameters)
    return initial_network(request, "transformer", length, settings)


@cache
def transformer_settings(task: str, n_layers: int, values: int, parameters: int) -> dict[str, Any]:
    """The settings of the widest Transformer with so many parameters whose MLP is `MLP_WIDTHS` as wide or wider.

    Raises UserError where even the narrowest has more parameters.
    """

    def of_width(width: int) -> dict[str, Any]:
        heads = max(h for h in range(1, max(1, width // HEAD_WIDTH) + 1) if width % h == 0)
        settings = {**STEPWISE, "n_layers": n_layers, "d_model": width, "embedding": values}
        settings |= {"heads": heads, "qkv_dim": width, "positions": "sinusoidal"}
        # The number of parameters is linear in the width of the MLP.
        least, more = (transformer_parameters(task, {**settings, "mlp_dim": mlp}) for mlp in (2, 3))
        return {**settings, "mlp_dim": 2 + round((parameters - least) / (more - least))}

    def is_too_wide(width: int) -> bool:
        return of_width(width)["mlp_dim"] < MLP_WIDTHS * width

    blocks_alone = math.isqrt(parameters // ((4 + 2 * MLP_WIDTHS) * n_layers))
    widths = range(WIDTHS, blocks_alone + 1, WIDTHS)
    fitting = bisect_left(widths, True, key=is_too_wide)
    if not fitting:
        raise UserError(
            f"no Transformer of {n_layers} blocks has as few as {parameters:,} parameters; take a wider model."
        )
    return of_width(widths[fitting - 1])


def transformer_parameters(task: str, settings: Mapping[str, Any]) -> int:
    """The number of parameters of a Transformer with these settings."""
    run, shape = synthetic_run("transformer", task, None, settings, "float32")
    shape = generating(shape, run.recipe)
    network: Any = nnx.eval_shape(lambda: build(run.model, run.recipe, shape, rngs=nnx.Rngs(0)))
    return count_parameters(network)


def compiled(one: Generator, batch: int, memory: int) -> Program:
    """Compile the program that generates with a batch. Raises DoesNotFit where it needs more memory than this."""
    start = jax.eval_shape(one.start(batch), one.params, one.stats)
    arguments = start, one.params, one.stats, jnp.zeros((), jnp.int32)
    options = compiler_options(one.network.batched_products, training=False)
    program, cost = compile_program(steps_of(one), arguments, one.run.precision, options, donate=0)
    if cost.peak_bytes > memory:
        raise DoesNotFit(
            f"a batch of {batch} needs about {cost.peak_bytes / GIB:.2f} GiB, and {memory / GIB:.2f} GiB are allowed"
        )
    return Program(one, batch, program, cost.peak_bytes)


def steps_of(one: Generator) -> Callable[..., tuple[Any, Array]]:
    """The function that makes n steps, each of which reads the token that scored highest at the step before.

    The steps are spread over the whole sequence: before the i-th one, (i + ½) L/n tokens have been generated. So n
    steps take n times the mean time of a step, for any n.
    """
    length = one.run.data.length

    def steps(start: tuple[Any, Array], params: Any, stats: Any, n: Array) -> tuple[Any, Array]:
        network = one.network.merged(params, stats)

        def body(i: Array, carry: tuple[Any, Array]) -> tuple[Any, Array]:
            state, token = carry
            state = state._replace(steps=((i + 0.5) * (length / n)).astype(jnp.int32))
            state, logits = network.step(state, token)
            return state, logits.argmax(-1).astype(jnp.uint8)

        return jax.lax.fori_loop(0, n, body, start)

    return steps


def largest(one: Generator, memory: int) -> Program:
    """Compile for the largest power of two that fits as a batch. Raises DoesNotFit where one sequence does not."""
    fixed = 2 * one.bytes_at(1) - one.bytes_at(2)
    fitting = max(1, (memory - fixed) // (one.bytes_at(1) - fixed))
    batch = min(MOST_SEQUENCES, 2 ** int(math.log2(fitting)))
    while True:
        try:
            return compiled(one, batch, memory)
        except DoesNotFit:
            if batch == 1:
                raise
            batch //= 2


def calls_of(program: Program) -> Calls:
    """Make the function that generates so many steps, from the state in which its last call ended."""
    one = program.generator
    latest = jax.jit(one.start(program.batch))(one.params, one.stats)

    def calls(n: int) -> None:
        nonlocal latest
        steps = jnp.asarray(n, jnp.int32)
        latest = jax.block_until_ready(program.compiled(latest, one.params, one.stats, steps))

    return calls
