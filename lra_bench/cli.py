"""The command line. Commands are a few lines each and import what they need inside, so `--help` answers at once."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path
from types import FrameType
from typing import Annotated, Literal

import typer

from lra_bench import Interrupted, OutOfTime, UserError, WorkError, __version__
from lra_bench.allocator import keep_freed_memory

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Long Range Arena for state space models: data, training, throughput and leaderboard tables.",
)

Tasks = Annotated[list[str], typer.Argument(help="Task names, or `all`.", metavar="TASK...")]
ResultsDir = Annotated[Path, typer.Option("--results-dir", help="Where result records are read and written.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Remat = Annotated[
    bool, typer.Option("--remat", help="Keep each block's input only and compute the rest again: half the memory.")
]
PROTOCOL_HELP = "Tokens and splits of S4 and S5, or of the LRA paper."


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    pass


@app.command()
def quickstart(
    results_dir: ResultsDir = Path("quickstart-results"),
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Short ListOps made here, S5-PTD trained on it for a few minutes, its table printed."""
    from lra_bench.quickstart import run_quickstart

    run_quickstart(results_dir, seed)


@app.command()
def prepare(
    tasks: Tasks,
    source_path: Annotated[Path | None, typer.Option("--from", help="An archive or folder you already have.")] = None,
    source: Annotated[
        Literal["official", "mirror", "generated"] | None,
        typer.Option(help="Try this kind only. Default: official server, then mirrors, then made here."),
    ] = None,
    protocol: Annotated[
        Literal["s4", "lra"], typer.Option(help="Tokens and splits of S4 and S5, or of the LRA paper.")
    ] = "s4",
    size: Annotated[str, typer.Option(help="full, tiny, or a number of examples.")] = "full",
    seed: Annotated[int, typer.Option(min=0, help="Of the generators; unused where files are read.")] = 0,
    jobs: Annotated[int | None, typer.Option(min=1, help="Processes; the data does not depend on it.")] = None,
    val_fraction: Annotated[
        float | None, typer.Option(min=0.01, max=0.5, help="Cut validation out of train (Text has none of its own).")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, how large and how long.")] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Re-read what is prepared and check it.")] = False,
) -> None:
    """Get or make a task's data. The last line printed is its folder."""
    from lra_bench.data.prepare import prepare_each
    from lra_bench.registry import task_names

    prepare_each(
        task_names() if tasks == ["all"] else tasks,
        source_path=source_path,
        source=source,
        protocol=protocol,
        size=size,
        seed=seed,
        jobs=jobs,
        val_fraction=val_fraction,
        dry_run=dry_run,
        verify=verify,
    )


@app.command()
def train(
    model: Annotated[str, typer.Option(help="A model's name; `lra-bench ls models` lists them.")],
    task: Annotated[
        list[str] | None, typer.Option(help="May be repeated. Without it, or `all`: every prepared task.")
    ] = None,
    seed: Annotated[list[int] | None, typer.Option(min=0, help="May be repeated. Default 0.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a setting of the recipe.")
    ] = None,
    protocol: Annotated[Literal["s4", "lra"] | None, typer.Option(help=PROTOCOL_HELP)] = None,
    size: Annotated[str | None, typer.Option(help="Which prepared set: full, tiny, or a number of examples.")] = None,
    data: Annotated[str | None, typer.Option(help="Which prepared set, by the name of its folder.")] = None,
    precision: Annotated[
        Literal["float32", "tf32"], typer.Option(help="Of matrix products on accelerators; CPUs always use float32.")
    ] = "float32",
    smoke: Annotated[
        bool, typer.Option("--smoke", help="A small network on tiny data: every stage in a minute.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan only.")] = False,
    time_limit: Annotated[
        float | None, typer.Option(min=0.01, metavar="MINUTES", help="Stop and save then; the same command continues.")
    ] = None,
    data_on: Annotated[
        Literal["auto", "device", "host"], typer.Option(help="Where examples stay; from the host they come in blocks.")
    ] = "auto",
    remat: Remat = False,
    results_dir: ResultsDir = Path("results"),
) -> None:
    """Train a model to its published recipe and write a result record. Interrupted, the same command continues."""
    from lra_bench.plan import plan_runs, print_plan, run_all
    from lra_bench.spec import parse_overrides

    planned = plan_runs(
        model,
        tasks=task or [],
        seeds=seed or [0],
        overrides=parse_overrides(settings or []),
        protocol=protocol,
        size=size,
        data=data,
        precision=precision,
        smoke=smoke,
    )
    print_plan(planned)
    if not dry_run:
        run_all(planned, results_dir, time_limit, data_on, remat)


@app.command()
def evaluate(
    run: Annotated[str, typer.Argument(help="A run's folder or name; `lra-bench ls runs` lists them.")],
    as_json: Json = False,
) -> None:
    """Score a run's best checkpoint again; it must reproduce the recorded accuracy."""
    from lra_bench.evaluate import evaluate_run

    evaluate_run(run, as_json)


@app.command()
def bench(
    model: Annotated[list[str] | None, typer.Option(help="A model, or `all`; may be repeated. Default: s5.")] = None,
    task: Annotated[list[str] | None, typer.Option(help="A task, or `all`; may be repeated. Default: all.")] = None,
    lengths: Annotated[
        str | None, typer.Option(help="Steps instead of the task's own, as in 1k,4k,16k,64k,256k,1M.")
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Examples in a batch. Default: the recipe's; on a CPU less.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a setting of the recipe.")
    ] = None,
    precision: Annotated[Literal["float32", "tf32"], typer.Option(help="Of matrix products.")] = "float32",
    data: Annotated[bool, typer.Option("--data", help="Measure prepared data too, beside synthetic.")] = False,
    remat: Remat = False,
    against: Annotated[
        str | None, typer.Option(help="A run, a record, a results folder or --json output to give ratios to.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw time and memory against length (.svg or .png).")] = None,
    again: Annotated[bool, typer.Option("--again", help="Measure anew what has a record already.")] = False,
    smoke: Annotated[bool, typer.Option("--smoke", help="A small network, short windows: seconds a cell.")] = False,
    results_dir: ResultsDir = Path("results"),
    as_json: Json = False,
) -> None:
    """Measure throughput, memory and compile time on fixed shapes, and write result records."""
    from lra_bench.bench import Asked, run_bench
    from lra_bench.spec import parse_overrides

    overrides = parse_overrides(settings or [])
    asked = Asked(model or ["s5"], task or ["all"], lengths, batch, overrides, precision, data, remat, smoke, again)
    run_bench(asked, against=against, plot=plot, as_json=as_json, results_dir=results_dir)


@app.command()
def report(
    results_dir: ResultsDir = Path("results"),
    out_dir: Annotated[Path | None, typer.Option("--out", help="Where tables go; default: the results folder.")] = None,
    protocol: Annotated[Literal["s4", "lra"], typer.Option(help="Which protocol's records the tables show.")] = "s4",
    skip_unreadable: Annotated[
        bool, typer.Option("--skip-unreadable", help="List damaged records as left out.")
    ] = False,
    pictures: Annotated[bool, typer.Option("--pictures/--no-pictures", help="They need the extra `plots`.")] = True,
    check: Annotated[bool, typer.Option("--check", help="Write nothing; fail if the tables are out of date.")] = False,
    bundle: Annotated[
        Path | None, typer.Option(help="Pack records, tables and recipes into this file instead.")
    ] = None,
    model: Annotated[list[str] | None, typer.Option(help="Of the bundle; default all. May be repeated.")] = None,
    task: Annotated[list[str] | None, typer.Option(help="Of the bundle; default all. May be repeated.")] = None,
    as_json: Json = False,
) -> None:
    """Make tables, pictures and a page from the result records alone, and print the tables."""
    from lra_bench.models import canonical
    from lra_bench.registry import task_module
    from lra_bench.report.command import make_bundle, make_report

    if bundle:
        tasks = [task_module(name).TASK.name for name in task or []]
        make_bundle(results_dir, bundle, [canonical(name) for name in model or []], tasks)
    else:
        make_report(results_dir, out_dir, protocol, skip_unreadable, pictures, check, as_json)


@app.command()
def receive(
    bundle: Annotated[Path, typer.Argument(help="A file that `report --bundle` made.")],
    results_dir: ResultsDir = Path("results"),
) -> None:
    """Take in somebody else's records, after validating them."""
    from lra_bench.report.bundle import receive as receive_bundle

    for path in receive_bundle(bundle, results_dir):
        typer.echo(path)


@app.command()
def validate(
    results_dir: Annotated[Path, typer.Argument(help="A folder of result records.")] = Path("results"),
    as_json: Json = False,
) -> None:
    """Check records: schema, duplicates, fingerprints, and values too good or too bad to be true."""
    from lra_bench.report.command import print_problems

    print_problems(results_dir, as_json)


@app.command()
def carry(
    direction: Annotated[Literal["out", "in"], typer.Argument(help="out: pack runs; in: unpack them here.")],
    folder: Annotated[Path, typer.Argument(help="Where the parts of the bundle are.")],
    run: Annotated[list[str] | None, typer.Option(help="Which runs to pack; default all. May be repeated.")] = None,
) -> None:
    """Move runs between machines that keep nothing: pack them into small files, unpack and continue elsewhere."""
    from lra_bench.carry import carry_in, carry_out

    for path in carry_out(folder, run or []) if direction == "out" else carry_in(folder):
        typer.echo(path)


@app.command()
def ls(
    what: Annotated[Literal["tasks", "models", "recipes", "runs"], typer.Argument(help="What to list.")],
    as_json: Json = False,
) -> None:
    """List tasks, models, recipes, or the runs of this machine."""
    from lra_bench.catalogue import listing, print_listing

    print_listing(what, listing(what), as_json)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A task, a model, a cell as MODEL/TASK, a run, or a result file.")],
    examples: Annotated[
        int | None, typer.Option("--examples", help="Of a task: show this many prepared examples instead.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="PNG file for examples of pixels.")] = None,
    protocol: Annotated[Literal["s4", "lra"] | None, typer.Option(help=PROTOCOL_HELP)] = None,
    as_json: Json = False,
) -> None:
    """Show everything known of one task, model, recipe, run or result; or examples of a task."""
    from lra_bench.catalogue import describe, print_description
    from lra_bench.data.examples import show_examples

    if examples is None:
        print_description(describe(name), as_json)
    else:
        show_examples(name, examples, out, protocol, as_json)


@app.command()
def doctor(as_json: Json = False) -> None:
    """Check devices, versions, disk and prepared data; say what to do about what is wrong."""
    from lra_bench.doctor import examine, print_findings

    print_findings(examine(), as_json)


def _leave(signum: int, _: FrameType | None) -> None:
    # Not print: a signal may come in the middle of one.
    os.write(2, f"\nStopped by {signal.Signals(signum).name}. What is done is kept: type the same to go on.\n".encode())
    raise SystemExit(128 + signum)


def _fail(message: str, code: int) -> None:
    typer.secho(f"Error: {message}", fg=typer.colors.RED, err=True)
    raise SystemExit(code)


def _disk_trouble(error: OSError) -> str:
    """What the disk refuses, in one sentence; an error that is not about that is raised again."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"the disk is full{f' at {error.filename}' if error.filename else ''}. Make room and type the same again."
        )
    refused = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST)
    if error.errno in refused and error.filename is not None:
        return f"{error.filename} cannot be used: {error.strerror}."
    raise error


def main() -> None:
    """`lra-bench`: a user's mistake ends in one sentence and exit code 2, a failure while working in 1, a signal in
    128 + its number."""
    keep_freed_memory()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)
    try:
        app()
    except UserError as error:
        _fail(str(error), 2)
    except WorkError as error:
        _fail(str(error), 1)
    except OSError as error:
        _fail(_disk_trouble(error), 1)
    except OutOfTime as error:
        typer.echo(str(error), err=True)
    except Interrupted as error:
        _fail(str(error), 128 + error.signum)
