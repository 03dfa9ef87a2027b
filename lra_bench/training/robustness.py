"""Testing the best checkpoint of a run under noise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from lra_bench.data.packed import majority_share
from lra_bench.errors import UserError
from lra_bench.machine.precision import matmul_precision
from lra_bench.machine.system import describe_provenance, describe_system
from lra_bench.models import response
from lra_bench.models.disturbance import Noise, disturb
from lra_bench.progress import print_line
from lra_bench.records.schema import NoisePoint, Record, RobustnessRecord
from lra_bench.registry import cli_name
from lra_bench.runs.run import Run
from lra_bench.spec import NoiseKind, NoisePlace
from lra_bench.training.checkpoint import Checkpoints
from lra_bench.training.evaluate import best_history, prepared_folder
from lra_bench.training.functional import FunctionalNetwork
from lra_bench.training.mesh import replicate
from lra_bench.training.setup import EvaluationSetup, set_up_evaluation
from lra_bench.training.state import EvalRows, Totals, stream_key
from lra_bench.training.steps import evaluation_program
from lra_bench.training.stopping import out_of_memory_in_words

NOISE_STREAM = 7
"""The random stream of noise, which no training draws from (`state.stream_key`)."""


class NumberedExamples(NamedTuple):
    """Rows on the device as `state.Examples` has them, and the number of each in its split, (n,) int32."""

    inputs: Array
    lengths: Array
    labels: Array
    rows: Array


@dataclass(frozen=True)
class DisturbedNetwork(FunctionalNetwork):
    """A network whose evaluation adds noise. Its parameters are those of the network and a `Noise`."""

    place: NoisePlace
    kind: NoiseKind

    def apply_eval(self, params: Any, stats: Any, batch: Any) -> Array:
        """Logits (b, classes) of `NumberedExamples` under noise."""
        own, noise = params
        model = self.merged(own, stats)
        disturb(model, self.place, self.kind, noise, batch.rows)
        return model(batch.inputs, batch.lengths, train=False, key=None)


class NoiseTest(NamedTuple):
    """The noises under which a run is tested."""

    place: NoisePlace
    kind: NoiseKind
    frequencies: Sequence[float] | None  # None: the largest frequency of the run's own eigenvalues
    amplitude: float
    seeds: int


def measure_robustness(
    run: Run, folder: Path, record: Record | None, asked: NoiseTest, command: str
) -> RobustnessRecord:
    """Score the best checkpoint without noise and under every noise that is asked for, on the whole test split.

    `record` is that of the run if it has ended; `command` repeats the measurement. Raises as `score_best`, and
    UserError where the network has no place for the noise.
    """
    checkpoints = Checkpoints(folder / "checkpoints")
    history = best_history(run, checkpoints, record)
    assert history.best_step is not None
    with out_of_memory_in_words(run):
        setup, state = set_up_evaluation(run, prepared_folder(run))
        params, stats = checkpoints.restore_best(history.best_step, state)
        checkpoints.close()
        model = setup.network.merged(params, stats)
        refuse_no_place(run, model, asked.place)
        test = _Tester(setup, params, stats, asked)
        clean = test.accuracy(0.0, 0.0, 0)
        points = list(_points(test, asked, _frequencies(run, model, asked)))
    return RobustnessRecord(
        schema_version=1,
        kind="robustness",
        model=run.model,
        digest=run.digest,
        seed=run.seed,
        published_recipe=run.is_published_recipe,
        data=run.data,
        clean=clean,
        majority=majority_share(setup.data["test"].labels),
        examples=len(setup.data["test"].labels),
        noise_seed=0,
        points=points,
        system=describe_system(run.precision),
        provenance=describe_provenance(command),
    )


def refuse_no_place(run: Run, model: Any, place: NoisePlace) -> None:
    """Check that a network has a place for the noise. Raises UserError where it has none."""
    if not all(hasattr(block, "layer") for block in model.blocks):
        raise UserError(
            f"noise is added to a model of sequence layers, and {run.name} is of {cli_name(run.model)}, which has none."
        )
    if place == "input" and run.recipe.pixels is None:
        raise UserError(
            f"--where input needs pixels, and {run.name} reads tokens, to which no wave can be added. Type --where "
            "layers."
        )


def own_frequency(run: Run, model: Any) -> float:
    """The largest frequency of an eigenvalue of any layer, in the time of its inputs (`models/response.py`).

    Raises UserError for a model whose eigenvalues are not known.
    """
    layers = [block.layer for block in model.blocks]
    if not all(map(response.has_response, layers)):
        raise UserError(
            f"--own-frequency needs eigenvalues, and those of {cli_name(run.model)} are not known. Type --frequency."
        )
    return max(response.last_frequency(layer) for layer in layers)


def _frequencies(run: Run, model: Any, asked: NoiseTest) -> Sequence[float | None]:
    if asked.kind == "gaussian":
        return [None]
    return [own_frequency(run, model)] if asked.frequencies is None else asked.frequencies


def _points(test: _Tester, asked: NoiseTest, frequencies: Sequence[float | None]) -> Iterator[NoisePoint]:
    for frequency in frequencies:
        for seed in range(asked.seeds):
            found = test.accuracy(asked.amplitude, frequency or 0.0, seed)
            what = "Gaussian noise" if frequency is None else f"ω = {frequency:g}"
            print_line(f"{test.setup.run.name}: {what}, noise seed {seed}: test {found:.2%}")
            yield NoisePoint(
                frequency=frequency,
                amplitude=asked.amplitude,
                accuracy=found,
                place=asked.place,
                noise=asked.kind,
                noise_seed=seed,
            )


class _Tester:
    """The program that scores the test split under noise, compiled once."""

    def __init__(self, setup: EvaluationSetup, params: Any, stats: Any, asked: NoiseTest):
        parts = {field.name: getattr(setup.network, field.name) for field in fields(FunctionalNetwork)}
        network = DisturbedNetwork(**parts, place=asked.place, kind=asked.kind)
        self.setup, self.params, self.stats = setup, params, stats
        self.program = evaluation_program(setup.run, network, setup.mesh)

    def accuracy(self, amplitude: float, frequency: float, seed: int) -> float:
        """The accuracy on the test split under noise of this amplitude, frequency and seed."""
        numbers = jnp.asarray(amplitude, jnp.float32), jnp.asarray(frequency, jnp.float32)
        noise = replicate(Noise(*numbers, stream_key(seed, NOISE_STREAM)), self.setup.mesh)
        totals, seen = replicate(Totals.zero(), self.setup.mesh), 0
        for rows, count in self.setup.data["test"].in_order():
            here = len(rows.examples.labels)
            numbered = replicate(jnp.arange(seen, seen + here, dtype=jnp.int32), self.setup.mesh)
            examples: Any = NumberedExamples(*rows.examples, numbered)
            with matmul_precision(self.setup.run.precision):
                totals, _ = self.program((self.params, noise), self.stats, totals, EvalRows(examples, rows.n))
            seen += count
        return int(totals.correct) / seen
