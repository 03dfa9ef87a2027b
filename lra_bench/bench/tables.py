"""What `bench --target` and `bench --profile` print: tables by kind of kernel and by module, and JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from lra_bench.bench.costs import Cost, KernelCost, summed, total
from lra_bench.bench.modules import Pass
from lra_bench.bench.prediction import Prediction
from lra_bench.bench.profile import Profile
from lra_bench.registry import model_title
from lra_bench.runs.run import Run

NUMBERS = ("Kernels", "GB", "GFLOP", "ms", "Share")
PARTS: tuple[Pass, ...] = ("forward", "backward", "other")

PREDICTED = (
    "A prediction, not a measurement: each kernel takes its bytes or its flops, whichever take longer, and its launch. "
    "Nothing is known of caches, or of the algorithms that are chosen by trying them."
)


def heading(run: Run) -> str:
    """The model, the task, the shape and the precision of a run."""
    shape = f"batch {run.recipe.batch_size} × {run.data.length:,}"
    return f"{model_title(run.model)} on {run.data.task}, {shape}, {run.precision}: one training step"


def print_predictions(predictions: Sequence[Prediction], top: int) -> None:
    """Print each prediction: what it assumes, its tables, and the `top` most expensive kinds of alike kernels."""
    console = wide_console()
    for prediction in predictions:
        console.print(f"{heading(prediction.run)} on {prediction.target.title}", style="bold", highlight=False)
        print_by_kind(console, prediction.kernels)
        print_by_module(console, prediction.kernels)
        if top:
            print_top(console, prediction.kernels[:top])
        temporary, peak = prediction.temporary_bytes / 1e9, prediction.peak_bytes / 1e9
        memory = f"Temporaries {temporary:.2f} GB, all memory {peak:.2f} GB"
        console.print(f"{memory}; compiled in {prediction.compile_seconds:.0f} s.", highlight=False)
        evaluating, step = prediction.evaluation_seconds, total(kernel.cost for kernel in prediction.kernels).seconds
        console.print(
            f"Evaluating a batch takes {1e3 * evaluating:.3f} ms, {evaluating / step:.0%} of a step.", highlight=False
        )
        for note in [*prediction.notes, prediction.target.basis]:
            console.print(note, highlight=False)
    console.print(PREDICTED, highlight=False)


def print_profiles(profiles: Sequence[Profile], top: int) -> None:
    """Print each profile: its tables, the share of the time that kernels cover, the memory, and the trace's place."""
    console = wide_console()
    for profile in profiles:
        console.print(heading(profile.run), style="bold", highlight=False)
        print_by_kind(console, profile.kernels)
        print_by_module(console, profile.kernels)
        if top:
            print_top(console, profile.kernels[:top])
        traced = total(kernel.cost for kernel in profile.kernels).seconds
        share = profile.covered_seconds / profile.wall_seconds
        console.print(
            f"A step took {1e3 * profile.wall_seconds:.2f} ms under the profiler ({profile.steps} steps). Kernels ran "
            f"in {share:.0%} of it. {1e3 * traced:.2f} ms were traced, and the shares are of these.",
            highlight=False,
        )
        console.print(f"Peak memory {profile.peak_bytes / 1e9:.2f} GB ({profile.peak_source}).", highlight=False)
        console.print(f"Trace: {profile.folder}", highlight=False, soft_wrap=True)


def wide_console() -> Console:
    """The terminal, or, where there is none, a page that is wide enough for the tables."""
    console = Console()
    return console if console.is_terminal else Console(width=140)


def print_by_kind(console: Console, kernels: Sequence[KernelCost]) -> None:
    """Print a row for each kind of kernel, and the sum."""
    table = new_table("Kind", *NUMBERS)
    everything = total(kernel.cost for kernel in kernels)
    sums = summed(kernels, lambda kernel: kernel.kind)
    for name, cost in sums.items():
        table.add_row(name, *numbers(cost, everything), end_section=name == list(sums)[-1])
    table.add_row("sum", *numbers(everything, everything))
    console.print(table)


def print_by_module(console: Console, kernels: Sequence[KernelCost]) -> None:
    """Print a row for each module, with the milliseconds of the forward and the backward pass."""
    table = new_table("Module", *(f"{part}, ms" for part in PARTS), "ms", "Share")
    everything = total(kernel.cost for kernel in kernels)
    for name, cost in summed(kernels, lambda kernel: kernel.module).items():
        parts = summed([kernel for kernel in kernels if kernel.module == name], lambda kernel: kernel.part)
        times = [f"{1e3 * parts[part].seconds:.3f}" if part in parts else "" for part in PARTS]
        table.add_row(name, *times, *numbers(cost, everything)[-2:])
    console.print(table)


def print_top(console: Console, kernels: Sequence[KernelCost]) -> None:
    """Print the most expensive kernels, those that are alike together."""
    table = new_table("ms", "Kernels", "GB", "GFLOP")
    for name in ("Kind", "Result", "Module", "Operation"):
        table.add_column(name, overflow="fold")
    for kernel in kernels:
        count, moved, flops, milliseconds, _ = numbers(kernel.cost, kernel.cost)
        # The transformations before the operation are the same for all of a pass.
        operation = "/".join(kernel.op_name.split("/")[-2:])
        where = f"{kernel.module} ({kernel.part})"
        table.add_row(milliseconds, count, moved, flops, kernel.kind, kernel.result, where, operation)
    console.print(table)


def new_table(first: str, *others: str) -> Table:
    """A table with one column of names, unless it begins with a number, and columns of numbers."""
    table = Table(box=SIMPLE)
    table.add_column(first, overflow="fold", justify="right" if first == "ms" else "left")
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def numbers(cost: Cost, everything: Cost) -> list[str]:
    """The cells of NUMBERS."""
    share = cost.seconds / everything.seconds if everything.seconds else 0.0
    return [
        f"{cost.kernels:,.0f}",
        f"{cost.bytes_moved / 1e9:.2f}",
        f"{cost.flops / 1e9:.1f}",
        f"{1e3 * cost.seconds:.3f}",
        f"{share:.1%}",
    ]


def predictions_as_values(predictions: Sequence[Prediction]) -> list[dict[str, Any]]:
    """Convert predictions to JSON values. Milliseconds, gigabytes (10⁹) and GFLOP are of one step."""
    return [
        {
            **run_as_values(prediction.run),
            "target": prediction.target.name,
            "basis": prediction.target.basis,
            "compile_seconds": prediction.compile_seconds,
            "evaluation_seconds": prediction.evaluation_seconds,
            "temporary_bytes": prediction.temporary_bytes,
            "peak_bytes": prediction.peak_bytes,
            "notes": prediction.notes,
            **kernels_as_values(prediction.kernels),
        }
        for prediction in predictions
    ]


def profiles_as_values(profiles: Sequence[Profile]) -> list[dict[str, Any]]:
    """Convert profiles to JSON values."""
    return [
        {
            **run_as_values(profile.run),
            "steps": profile.steps,
            "wall_seconds": profile.wall_seconds,
            "covered_seconds": profile.covered_seconds,
            "peak_bytes": profile.peak_bytes,
            "peak_source": profile.peak_source,
            "trace": str(profile.folder),
            **kernels_as_values(profile.kernels),
        }
        for profile in profiles
    ]


def run_as_values(run: Run) -> dict[str, Any]:
    """What names a run, as JSON values."""
    return {
        "model": run.model,
        "task": run.data.task,
        "length": run.data.length,
        "batch_size": run.recipe.batch_size,
        "precision": run.precision,
    }


def kernels_as_values(kernels: Sequence[KernelCost]) -> dict[str, Any]:
    """Kernels as JSON values: their sum, sums by kind and by module, and all of them."""

    def costs(sums: Mapping[str, Cost]) -> dict[str, Any]:
        return {name: cost._asdict() for name, cost in sums.items()}

    return {
        "total": total(kernel.cost for kernel in kernels)._asdict(),
        "by_kind": costs(summed(kernels, lambda kernel: kernel.kind)),
        "by_module": costs(summed(kernels, lambda kernel: kernel.module)),
        "kernels": [{**kernel._asdict(), "cost": kernel.cost._asdict()} for kernel in kernels],
    }
