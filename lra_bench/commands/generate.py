"""The command `lra-bench generate`: the speed of generation step by step, against a Transformer with a cache."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lra_bench.commands.options import Json, PrecisionOption, Settings, chosen_precision, wide_console
from lra_bench.errors import UserError

if TYPE_CHECKING:
    from lra_bench.bench.generation import GenerationOutcome, GenerationRequest
    from lra_bench.report.generation import Generation


def generate(
    model: Annotated[
        list[str] | None, typer.Option(help="The model, or `all`. May be repeated. By default s5.")
    ] = None,
    task: Annotated[str, typer.Option(help="The task whose recipe is taken and whose tokens are generated.")] = "image",
    lengths: Annotated[str, typer.Option(help="The numbers of steps to generate.")] = "1k,2k,4k,8k,16k",
    batch: Annotated[int, typer.Option(min=1, help="The sequences generated together where the batch is equal.")] = 1,
    memory: Annotated[
        float | None,
        typer.Option(
            help="The GiB that the largest batch may take. By default nine tenths of what the device has free, and on "
            "a CPU 1."
        ),
    ] = None,
    settings: Settings = None,
    precision: PrecisionOption = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw speed and memory against the number of steps into this .svg or .png file.")
    ] = None,
    smoke: Annotated[
        bool, typer.Option("--smoke", help="Measure small networks in short windows: seconds for each length.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Measure how fast models generate step by step, against a Transformer with as many parameters.

    The Transformer is causal and keeps its keys and values in a cache. Both are measured at the same batch, and each at
    the largest power of two that fits. Networks have their initial parameters: only their time and memory is measured.
    """
    if plot is not None:
        from lra_bench.report.drawing import refuse_if_not_drawable

        refuse_if_not_drawable(plot)
    if memory is not None and not 0 < memory < 1e6:
        raise UserError(f"--memory must be a positive number of GiB, got {memory:g}.")
    chosen = chosen_precision(precision)  # before anything else imports JAX
    from lra_bench.bench.generation import GenerationRequest, run_generation
    from lra_bench.bench.plan import parse_lengths
    from lra_bench.overrides import parse_overrides
    from lra_bench.report.speed import GIB

    request = GenerationRequest(
        precision=chosen,
        models=model or ["s5"],
        task=task,
        lengths=sorted(length for length in parse_lengths(lengths) if length is not None),
        batch=batch,
        memory=None if memory is None else int(memory * GIB),
        overrides=parse_overrides(settings or []),
        smoke=smoke,
    )
    outcome = run_generation(request)
    if plot is not None:
        from lra_bench.report.drawing import write_picture
        from lra_bench.report.generation import generation_picture

        write_picture(generation_picture(outcome.measured), plot)
    if as_json:
        print(json.dumps(as_values(request, outcome), indent=1))
    else:
        print_outcome(request, outcome)


def as_values(request: GenerationRequest, outcome: GenerationOutcome) -> dict[str, Any]:
    """Convert the outcome to JSON values, with the device and the versions that it was measured on."""
    from lra_bench.machine.system import describe_provenance, describe_system
    from lra_bench.report.generation import generation_ratios

    measured = [
        {
            **one._asdict(),
            "seconds": one.seconds.model_dump(mode="json"),
            "tokens_per_second": one.tokens_per_second,
        }
        for one in outcome.measured
    ]
    return {
        "task": request.task,
        "overrides": dict(request.overrides),
        "measured": measured,
        "ratios": [ratio._asdict() for ratio in generation_ratios(outcome.measured)],
        "skipped": [skipped._asdict() for skipped in outcome.skipped],
        "system": describe_system(request.precision).model_dump(mode="json"),
        "provenance": describe_provenance(command_of(request)).model_dump(mode="json"),
    }


def command_of(request: GenerationRequest) -> str:
    """The command that repeats the measurement."""
    from lra_bench.overrides import set_options
    from lra_bench.registry import cli_name
    from lra_bench.report.speed import GIB

    parts = ["lra-bench generate", *(f"--model {cli_name(model)}" for model in request.models)]
    parts += [f"--task {request.task}", f"--lengths {','.join(map(str, request.lengths))}", f"--batch {request.batch}"]
    parts += [f"--memory {request.memory / GIB:g}"] if request.memory is not None else []
    parts += [*set_options(request.overrides), f"--precision {request.precision}"]
    return " ".join([*parts, *(["--smoke"] if request.smoke else [])])


HEADS = ("Network", "Parameters", "Steps", "Batch", "Tokens/s", "ms per step", "IQR", "GiB", "Ratio")


def print_outcome(request: GenerationRequest, outcome: GenerationOutcome) -> None:
    """Print the table of measurements, and what was skipped."""
    from rich.box import SIMPLE
    from rich.table import Table

    from lra_bench.registry import model_title

    table = Table(title=f"Generation of {request.task}, step by step, {request.precision}", box=SIMPLE)
    for name in HEADS:
        table.add_column(name, justify="left" if name == "Network" else "right", overflow="fold")
    for row in rows(outcome.measured):
        table.add_row(*row)
    console = wide_console()
    console.print(table)
    console.print(
        "Time: the mean over all steps of a sequence. Largest: the largest power of two that fits as a batch, at most "
        "4,096. GiB: what the program needs, as compiled. Ratio: tokens per second, of the Transformer's.",
        highlight=False,
    )
    for skipped in outcome.skipped:
        name = model_title(skipped.model)
        console.print(f"Skipped: {name}, {skipped.length:,} steps: {skipped.reason}.", highlight=False)


def rows(measured: Sequence[Generation]) -> list[list[str]]:
    """The cells of each measurement, as text: first those of the equal batch, then those of the largest."""
    from lra_bench.report.generation import generation_ratios
    from lra_bench.report.speed import GIB, number

    ratios = {ratio[:3]: ratio.tokens_per_second for ratio in generation_ratios(measured)}
    found = []
    for one in sorted(measured, key=lambda one: (one.choice, one.model, one.length, one.transformer)):
        ratio = None if one.transformer else ratios.get((one.model, one.length, one.choice))
        found.append(
            [
                one.title,
                f"{one.parameters:,}",
                f"{one.length:,}",
                f"{one.batch}" + (", largest" if one.choice == "largest" else ""),
                number(one.tokens_per_second),
                number(1e3 * one.seconds.median),
                number(1e3 * (one.seconds.q3 - one.seconds.q1), 2),
                number(one.memory_bytes / GIB),
                "–" if ratio is None else number(ratio),
            ]
        )
    return found
