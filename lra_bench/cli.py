"""The command line: the list of commands, and how their errors and signals end."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
from types import FrameType
from typing import Annotated

import typer

from lra_bench import __version__
from lra_bench.commands import (
    bench,
    compare,
    curves,
    doctor,
    evaluate,
    export,
    generate,
    import_,
    ls,
    prepare,
    quickstart,
    report,
    rm,
    robustness,
    show,
    spectrum,
    sweep,
    train,
    validate,
)
from lra_bench.errors import STOPPING, Interrupted, OutOfTime, UserError, WorkError, disk_error
from lra_bench.machine.allocator import keep_freed_memory
from lra_bench.machine.processes import alone, leave
from lra_bench.plain_text import plain

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Long Range Arena for state space models: data, training, throughput and leaderboard tables.",
)

app.command()(quickstart.quickstart)
app.command()(prepare.prepare)
app.command()(train.train)
app.command()(sweep.sweep)
app.command()(evaluate.evaluate)
app.command()(robustness.robustness)
app.command()(spectrum.spectrum)
app.command()(bench.bench)
app.command()(generate.generate)
app.command()(report.report)
app.command()(curves.curves)
app.command()(compare.compare)
app.command()(validate.validate)
app.command()(export.export)
app.command("import")(import_.import_)
app.command()(ls.ls)
app.command()(show.show)
app.command()(rm.rm)
app.command()(doctor.doctor)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    pass


def _exit_on_signal(signum: int, _: FrameType | None) -> None:
    # Not print: a signal may come in the middle of one.
    os.write(2, f"\nStopped by {signal.Signals(signum).name}. What is done is kept: type the same to go on.\n".encode())
    raise SystemExit(128 + signum)


def _send_again(lost: sys.UnraisableHookArgs) -> None:
    """Send a signal again whose exit was lost because it came in a destructor or while garbage was collected."""
    exits = {128 + number: number for number in STOPPING}
    if isinstance(lost.exc_value, SystemExit) and lost.exc_value.code in exits:
        again = threading.Timer(0.1, os.kill, (os.getpid(), exits[lost.exc_value.code]))
        again.daemon = True
        again.start()
    else:
        sys.__unraisablehook__(lost)


def _watch_signals() -> None:
    """Let every signal that asks to stop end the command with its exit code.

    Only the main thread may do this. A signal that is ignored, as under nohup, stays so, except those of every shell.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    if sys.unraisablehook is sys.__unraisablehook__:
        sys.unraisablehook = _send_again
    for number in STOPPING:
        if number in (signal.SIGINT, signal.SIGTERM) or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _exit_on_signal)


def _print_what_can_be_encoded() -> None:
    """Let stdout and stderr print `?` for a character that their encoding does not have."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _fail(message: str, code: int) -> None:
    typer.secho(f"Error: {plain(message)}", fg=typer.colors.RED, err=True)
    leave(code, plain(message))
    raise SystemExit(code)


def main() -> None:
    """Run `lra-bench`. A user's mistake ends in one sentence and exit code 2, a failure while working in 1, a signal in
    128 plus its number."""
    keep_freed_memory()
    _watch_signals()
    _print_what_can_be_encoded()
    try:
        _run()
    except SystemExit as error:
        leave(error.code if isinstance(error.code, int) else 0, "it was stopped by a signal.")
        raise
    except BaseException as error:
        if not alone():
            sys.excepthook(type(error), error, error.__traceback__)
            leave(1, f"it failed ({type(error).__name__}), and printed why.")
        raise
    leave(0, "")


def _run() -> None:
    try:
        app()
    except UserError as error:
        _fail(str(error), 2)
    except WorkError as error:
        _fail(str(error), 1)
    except OSError as error:
        _fail(disk_error(error), 1)
    except OutOfTime as error:
        typer.echo(str(error), err=True)
    except Interrupted as error:
        _fail(str(error), 128 + error.signum)
