"""The command `lra-bench spectrum`: gain over frequency of initializations and of trained layers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lra_bench.commands.options import Json, wide_console
from lra_bench.errors import UserError

if TYPE_CHECKING:
    from lra_bench.ssm.gain import LayerGain
    from lra_bench.ssm.hippo import Real
    from lra_bench.ssm.spectrum import Perturbation, Spectrum

UNKNOWABLE = 1e15
"""The condition number beyond which float64 cannot tell it."""

MOST_STATES = 128
"""The most states of an initialization."""


def spectrum(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            help="Runs by folder or name, whose layers are shown before and after training. Without any, the "
            "initializations are shown.",
            metavar="[RUN...]",
        ),
    ] = None,
    n: Annotated[int | None, typer.Option("--n", help="The number of states, even. By default 32.")] = None,
    gamma: Annotated[
        list[float] | None,
        typer.Option(
            help="A price γ of the perturbation. May be repeated. The optimized perturbations are shown beside random "
            "ones of the same norm instead."
        ),
    ] = None,
    dt: Annotated[
        float | None,
        typer.Option("--dt", help="The step of the discretized gain, by zero-order hold. By default 0.01."),
    ] = None,
    frequency_scale: Annotated[
        float | None, typer.Option(help="The factor α of S4D-FT's frequencies. By default 3, as in most recipes.")
    ] = None,
    plot: Annotated[Path | None, typer.Option("--plot", help="Draw a picture into this .svg or .png file.")] = None,
    as_json: Json = False,
) -> None:
    """Show the gain over frequency of initializations or of trained layers, and what perturbing HiPPO costs.

    The frequencies of the eigenvalues are among those computed, because spikes are narrower than any grid.
    """
    if plot is not None:
        from lra_bench.report.drawing import refuse_if_not_drawable

        refuse_if_not_drawable(plot)
    options = {"--n": n, "--gamma": gamma, "--dt": dt, "--frequency-scale": frequency_scale}
    refuse_mixed(bool(runs), {name for name, value in options.items() if value is not None and value != []})
    if runs:
        show_runs(runs, plot, as_json)
        return
    n = checked_states(n)
    if gamma:
        show_perturbations(n, gamma, plot, as_json)
    else:
        step = positive("--dt", 0.01 if dt is None else dt)
        scale = positive("--frequency-scale", 3.0 if frequency_scale is None else frequency_scale)
        show_initializations(n, step, scale, plot, as_json)


def refuse_mixed(of_runs: bool, given: set[str]) -> None:
    """Check that options belong together. Raises UserError where they do not."""
    if of_runs and given:
        raise UserError(f"{' and '.join(sorted(given))} go with initializations; leave them or the runs out.")
    unfit = sorted(given & {"--dt", "--frequency-scale"})
    if "--gamma" in given and unfit:
        raise UserError(f"{' and '.join(unfit)} have no effect with --gamma; leave them out.")


def checked_states(n: int | None) -> int:
    """The number of states, by default 32. Raises UserError for one that no initialization has."""
    n = 32 if n is None else n
    if n % 2 or not 2 <= n <= MOST_STATES:
        raise UserError(f"--n must be an even number from 2 to {MOST_STATES}, got {n}.")
    return n


def positive(name: str, value: float) -> float:
    """The value of an option. Raises UserError where it is not positive and finite."""
    if not 0 < value < 1e6:
        raise UserError(f"{name} must be positive and below a million, got {value:g}.")
    return value


# Initializations


def show_initializations(n: int, dt: float, frequency_scale: float, plot: Path | None, as_json: bool) -> None:
    """Compute, draw and print the spectra of initializations."""
    from lra_bench.ssm.spectrum import frequencies, initializations, spectrum_of

    omega = frequencies(n)
    found = [spectrum_of(one, omega, dt) for one in initializations(n, frequency_scale)]
    if plot is not None:
        from lra_bench.report.drawing import write_picture
        from lra_bench.report.spectrum_figures import initializations_picture

        write_picture(initializations_picture(found, omega), plot)
    if as_json:
        values = {"n": n, "dt": dt, "frequencies": omega.tolist()}
        print(json.dumps({**values, "initializations": [as_values(one) for one in found]}))
    else:
        print_initializations(found, omega, n, dt)


def as_values(found: Any) -> dict[str, Any]:
    """A named tuple as JSON values, arrays as lists."""
    return {name: value.tolist() if hasattr(value, "tolist") else value for name, value in found._asdict().items()}


def print_initializations(found: Sequence[Spectrum], omega: Real, n: int, dt: float) -> None:
    """Print a row for each initialization."""
    from lra_bench.ssm.spectrum import spikes

    last = spikes(n)[-1]
    heads = ("Gain at ω = 1", f"at {last:.2f}", f"at {last:.2f}, dt = {dt:g}", "Largest", "at ω")
    rows = []
    for one in found:
        at = [one.gain[omega.searchsorted(frequency)] for frequency in (1.0, last)]
        best = one.gain.argmax()
        gains = [number(value) for value in (*at, one.discrete_gain, one.gain[best], omega[best])]
        rows.append([one.title, *gains, *quality(one.distance, one.kappa, one.relative_size, one.growth)])
    print_table(f"Initializations with {n} states", ("Initialization", *heads, *QUALITY), rows)
    print(
        "Gain: the norm of the states that cos(ωt) drives; where B is drawn (S5), its root mean square over draws. "
        "Distance: the "
        "largest error over frequencies, as a share of HiPPO's largest gain."
    )


QUALITY = ("Distance to HiPPO", "κ(V)", "‖E‖/‖A‖", "Largest Re λ")


def quality(distance: float | None, kappa: float, size: float | None, growth: float) -> list[str]:
    """The cells under `QUALITY`."""
    condition = "> 1e15" if kappa > UNKNOWABLE else number(kappa)
    return [number(distance), condition, "–" if size is None else f"{100 * size:.2f} %", f"{growth:.3f}"]


def number(value: float | None) -> str:
    """A number with four digits, – for None."""
    return "–" if value is None else f"{value:.4g}"


def print_table(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table whose first column is text."""
    from rich.box import SIMPLE
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, box=SIMPLE)
    for i, name in enumerate(heads):
        table.add_column(name, justify="right" if i else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    wide_console().print(table)


# Perturbations


def show_perturbations(n: int, gammas: list[float], plot: Path | None, as_json: bool) -> None:
    """Compute, draw and print the perturbations of HiPPO by their price."""
    from lra_bench.ssm.spectrum import perturbations

    found = list(perturbations(n, sorted(set(gammas))))
    if plot is not None:
        from lra_bench.report.drawing import write_picture
        from lra_bench.report.spectrum_figures import perturbations_picture

        write_picture(perturbations_picture(found), plot)
    if as_json:
        print(json.dumps({"n": n, "perturbations": [as_values(one) for one in found]}, indent=1))
    else:
        print_perturbations(found, n)


def print_perturbations(found: Sequence[Perturbation], n: int) -> None:
    """Print a row for each perturbation."""
    heads = ("Perturbation", "γ", *(QUALITY[i] for i in (2, 1, 0, 3)))
    rows = []
    for one in found:
        distance, condition, size, growth = quality(one.distance, one.kappa, one.relative_size, one.growth)
        name = "optimized" if one.seed is None else f"random, seed {one.seed}"
        rows.append([name, f"{one.gamma:g}", size, condition, distance, growth])
    print_table(f"Perturbations of HiPPO-LegS with {n} states", heads, rows)


# Runs


def show_runs(names: Sequence[str], plot: Path | None, as_json: bool) -> None:
    """Compute, draw and print the gains of the layers of runs."""
    from lra_bench.machine.environment import start_jax
    from lra_bench.records.finished import is_finished, load_finished
    from lra_bench.runs.run import find_run, load_run

    folders = [find_run(name) for name in dict.fromkeys(names)]
    start_jax()  # before anything else imports JAX
    from lra_bench.training.spectrum import layer_gains

    found = {}
    for folder in folders:
        run = load_run(folder)
        found[run.name] = layer_gains(run, folder, load_finished(folder) if is_finished(folder) else None)
    if plot is not None:
        from lra_bench.report.drawing import write_picture
        from lra_bench.report.spectrum_figures import layers_picture

        write_picture(layers_picture(found), plot)
    if as_json:
        print(json.dumps({name: [as_values(layer) for layer in layers] for name, layers in found.items()}))
    else:
        print_layers(found)


def print_layers(found: dict[str, list[LayerGain]]) -> None:
    """Print a row for each layer of each run."""
    heads = ("Layer", "Largest gain", "at ω", "Before training", "at ω", "Last eigenvalue at ω", "Eigenvalues moved")
    for name, layers in found.items():
        rows = []
        for i, one in enumerate(layers):
            best, first = one.gain.argmax(), one.initial.argmax()
            peaks = (one.gain[best], one.omega[best], one.initial[first], one.omega[first], one.last)
            rows.append([str(i + 1), *map(number, peaks), f"{one.moved:.2%}"])
        print_table(name, heads, rows)
