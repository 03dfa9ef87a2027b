"""The options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from lra_bench.spec import Precision

ResultsDir = Annotated[
    Path | None,
    typer.Option(
        "--results-dir",
        help="The folder of result records to read and write. By default results/ in the current folder; in "
        "lra-bench's own clone, whose results/ is committed, LRA_BENCH_HOME/results.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Remat = Annotated[
    bool,
    typer.Option(
        "--remat",
        help="Keep only the input of each block and compute the rest again in the backward pass: half the memory for "
        "28 to 45 % more time, as measured on a CPU.",
    ),
]
StopUnhealthy = Annotated[
    bool,
    typer.Option(
        "--stop-unhealthy",
        help="Stop a run that stays below its task's health marks (`lra-bench show TASK`). It is recorded as failed.",
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change a setting of the recipe, as in --set n_layers=4. May be repeated."
    ),
]
PrecisionOption = Annotated[
    Literal["float32", "tf32", "bfloat16"] | None,
    typer.Option(
        "--precision",
        help="The precision: products in float32 (float32; on NVIDIA GPUs as three bfloat16 products, relative error "
        "about 5e-6), products rounded as when the papers ran (tf32), or in addition activations in 16 bits "
        "(bfloat16). By default tf32 on accelerators and float32 on a CPU, which only emulates "
        "the others: slower, and for tests.",
    ),
]
WIDTH_IN_PIPES = 1_000
"""The most characters in a line of a table that is not printed on a terminal."""

PROTOCOL_HELP = "Tokens and splits as in S4 and S5 (s4), or as in the LRA paper (lra)."


def chosen_results_dir(asked: Path | None) -> Path:
    """The folder of result records that was asked for, or else the default one."""
    from lra_bench.paths import default_results_dir

    return default_results_dir() if asked is None else asked


def wide_console(stderr: bool = False) -> Console:
    """A console that cuts no line of a table where it is not a terminal, so that pipes and logs have all of it."""
    from rich.console import Console

    console = Console(stderr=stderr)
    return console if console.is_terminal else Console(stderr=stderr, width=WIDTH_IN_PIPES)


def chosen_precision(asked: Precision | None, device_is_here: bool = True) -> Precision:
    """Start JAX, and return the precision that was asked for, or else the default of this machine's devices.

    device_is_here: False where the program is for another machine's device. Raises UserError where JAX finds no device.
    """
    from lra_bench.machine.environment import start_jax

    start_jax(find_devices=device_is_here or asked is None)
    if asked is not None:
        return asked
    from lra_bench.machine.precision import default_precision

    return default_precision()
