"""The command `lra-bench robustness`: the test accuracy of trained runs under noise."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lra_bench.commands.options import Json, ResultsDir, chosen_results_dir
from lra_bench.errors import UserError
from lra_bench.spec import NoiseKind, NoisePlace

if TYPE_CHECKING:
    from lra_bench.records.schema import RobustnessRecord
    from lra_bench.training.robustness import NoiseTest

PAPER = 325.4
"""The frequency of the paper: the largest one of HiPPO's normal part with 32 states."""

SWEEPS: dict[NoisePlace, tuple[float, float]] = {"layers": (1.0, 1000.0), "input": (math.pi / 64, math.pi)}
"""The first and last frequency of a sweep: in the layers' own time, and in radians per pixel."""


def robustness(
    runs: Annotated[
        list[str], typer.Argument(help="Runs by folder or name. `lra-bench ls runs` lists them.", metavar="RUN...")
    ],
    where: Annotated[
        NoisePlace,
        typer.Option(help="What noise is added to: the input of every layer, as in the paper, or the pixels."),
    ] = "layers",
    noise: Annotated[
        NoiseKind,
        typer.Option(help="One Fourier mode (cosine), or normal numbers with the amplitude as standard deviation."),
    ] = "cosine",
    frequency: Annotated[
        list[float] | None,
        typer.Option(
            help="The mode's frequency: on the layers in the time that each feature's step makes, on the input in "
            "radians per pixel. May be repeated. By default 325.4, as in the paper, or on the input a sweep of 8."
        ),
    ] = None,
    sweep: Annotated[
        int | None,
        typer.Option(
            min=2, max=200, help="So many frequencies instead: from 1 to 1000 on the layers, from π/64 to π per pixel."
        ),
    ] = None,
    own_frequency: Annotated[
        bool,
        typer.Option("--own-frequency", help="The largest frequency of the run's own eigenvalues instead."),
    ] = False,
    amplitude: Annotated[
        float, typer.Option(help="The amplitude; on the input, of pixels as the network scales them.")
    ] = 0.1,
    seeds: Annotated[int, typer.Option(min=1, max=1000, help="The number of seeds of the noise.")] = 3,
    results_dir: ResultsDir = None,
    as_json: Json = False,
) -> None:
    """Test the best checkpoint of runs under noise, and write result records of those that are finished.

    The paper's noise (Yu et al. 2024) is amplitude · r · cos(325.4 · dt · t) on the input of every layer, where dt is
    each feature's own step and r is uniform in [0, 1], drawn for each example and feature. Models whose steps belong to
    states (S5, S5-PTD, LinOSS) get the median step, those whose steps depend on the input (S6, B²S6) that of an input
    of zero, and those without steps 1. MEGA and the Transformer have no such layers and are refused.
    """
    from lra_bench.machine.environment import start_jax
    from lra_bench.progress import print_line
    from lra_bench.records.finished import is_finished, load_finished
    from lra_bench.runs.run import find_run, load_run

    chosen = checked(where, noise, frequency or [], sweep, own_frequency, amplitude)
    folders = [find_run(name) for name in dict.fromkeys(runs)]
    described = [load_run(folder) for folder in folders]
    start_jax()  # before anything else imports JAX
    from lra_bench.training.robustness import NoiseTest, measure_robustness

    asked = NoiseTest(where, noise, chosen, amplitude, seeds)
    records = []
    for run, folder in zip(described, folders, strict=True):
        trained = load_finished(folder) if is_finished(folder) else None
        record = measure_robustness(run, folder, trained, asked, command_of(run.name, asked))
        records.append(record)
        if trained is None or trained.accuracy.test is None:  # a later checkpoint may be better
            print_line(f"{run.name} is not recorded: it {trained.status if trained else 'is unfinished'}.")
        else:
            keep(record, chosen_results_dir(results_dir))
    if as_json:
        print(json.dumps([record.model_dump(mode="json") for record in records], indent=1))
    else:
        print_records(records)


def checked(
    where: NoisePlace, noise: NoiseKind, frequency: list[float], sweep: int | None, own: bool, amplitude: float
) -> Sequence[float] | None:
    """The frequencies that are asked for; None means the run's own. Raises UserError where options do not fit."""
    given = {"--frequency": frequency, "--sweep": sweep, "--own-frequency": own}
    named = [name for name, value in given.items() if value]
    if len(named) > 1:
        raise UserError(f"{' and '.join(named)} each say the frequencies; give one of them.")
    if noise == "gaussian" and named:
        raise UserError(f"Gaussian noise has no frequency; leave {named[0]} out.")
    if own and where == "input":
        raise UserError("--own-frequency is of the layers; leave it or --where input out.")
    if not 0 < amplitude <= 1e6:
        raise UserError(f"--amplitude must be positive and at most a million, got {amplitude:g}.")
    low, high = SWEEPS[where]
    most = math.pi if where == "input" else 1e6
    for value in frequency:
        if not 0 < value <= most:
            raise UserError(f"--frequency must be positive and at most {most:g} with --where {where}, got {value:g}.")
    if own:
        return None
    if frequency:
        return sorted(set(frequency))
    if sweep is None and where == "layers":
        return [PAPER]
    count = sweep or 8
    return [float(f"{low * (high / low) ** (i / (count - 1)):.6g}") for i in range(count)]


def keep(record: RobustnessRecord, results_dir: Path) -> None:
    """Write a record, or leave the one that is there where it has the same accuracies.

    Raises UserError where it has others.
    """
    from lra_bench.records.files import load_any, path_of, write_record
    from lra_bench.records.schema import RobustnessRecord

    path = path_of(results_dir, record)
    there = load_any(path) if path.exists() else None
    if isinstance(there, RobustnessRecord) and (there.clean, there.points) == (record.clean, record.points):
        return
    write_record(results_dir, record)


def command_of(name: str, asked: NoiseTest) -> str:
    """The command that repeats a measurement."""
    words = ["lra-bench robustness", name, "--where", asked.place, "--noise", asked.kind]
    if asked.kind == "cosine":
        found = asked.frequencies
        words += ["--own-frequency"] if found is None else [f"--frequency {value!r}" for value in found]
    return " ".join([*words, f"--amplitude {asked.amplitude!r} --seeds {asked.seeds}"])


def print_records(records: Sequence[RobustnessRecord]) -> None:
    """Print the table of the report for these records."""
    from lra_bench.commands.options import wide_console
    from lra_bench.report.listings import robustness_table
    from lra_bench.report.select import Loaded
    from lra_bench.report.terminal import show

    show(robustness_table([Loaded(record.digest, record) for record in records]), wide_console())
