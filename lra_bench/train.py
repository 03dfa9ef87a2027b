"""The training loop: one function, read from top to bottom. The same run again continues where it stopped, bit for
bit."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from filelock import FileLock, Timeout
from jax.sharding import Mesh

from lra_bench import Interrupted, OutOfTime, UserError, WorkError
from lra_bench.account import Account, Score, accuracies, deliver, majority_share, make_record, throughput
from lra_bench.allocator import run_on_calling_thread
from lra_bench.checkpoint import Checkpoints
from lra_bench.data.packed import PackedSplit, open_split
from lra_bench.data.progress import Progress
from lra_bench.distributed import data_mesh, replicate
from lra_bench.feed import Feed, make_feeds
from lra_bench.home import cache_folder
from lra_bench.layers import DataShape
from lra_bench.optim import make_optimiser
from lra_bench.registry import task_module
from lra_bench.results import CurvePoint, Record, load_record, write_atomically
from lra_bench.run import Placement, Run
from lra_bench.spec import SPLITS, SplitName
from lra_bench.steps import (
    Network,
    Programs,
    Totals,
    TrainState,
    compile_programs,
    initial_state,
    make_network,
    matmul_precision,
    stream_key,
)

DISPATCH_SECONDS = 2.0
"""Of steps handed to the device at once: how long Ctrl-C and the progress bar wait."""
SAVE_SECONDS = 300.0
"""Between checkpoints inside an epoch; one is also written at the end of each epoch and on being stopped."""


class Stop:
    """Why to stop between two dispatches: a signal, or time that is up. A second signal acts as if this were not
    here."""

    def __init__(self, deadline: float | None):
        self.deadline = deadline
        """On the clock of `time.monotonic`."""
        self.received: int | None = None

    def __enter__(self) -> Stop:
        self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, signum: int, _: FrameType | None) -> None:
        self.received = signum
        signal.signal(signum, self._before[signal.Signals(signum)])

    @property
    def wanted(self) -> bool:
        return self.received is not None or (self.deadline is not None and time.monotonic() >= self.deadline)

    def raise_if_wanted(self, run: Run) -> None:
        """Everything is saved: leave. Raises Interrupted for a signal, OutOfTime for the deadline."""
        continues = f"all is saved. The same command continues: {run.command}"
        self.raise_if_signalled(continues)
        if self.wanted:
            raise OutOfTime(f"the time limit is reached; {continues}")

    def raise_if_signalled(self, state: str) -> None:
        if self.received is not None:
            raise Interrupted(self.received, f"stopped by {signal.Signals(self.received).name}; {state}")


class Pace:
    """How many steps to dispatch at once, from how long the last ones took."""

    def __init__(self) -> None:
        self.seconds_per_step: float | None = None

    def steps(self, left: int) -> int:
        if self.seconds_per_step is None:
            return 1
        return max(1, min(left, int(DISPATCH_SECONDS / self.seconds_per_step)))

    def took(self, seconds: float, steps: int) -> None:
        self.seconds_per_step = max(seconds / steps, 1e-6)


@dataclass(frozen=True)
class Lab:
    """Everything a run needs once it is set up."""

    run: Run
    mesh: Mesh
    network: Network
    programs: Programs
    data: dict[SplitName, Feed]

    @property
    def n_train(self) -> int:
        return len(self.data["train"].labels)

    @property
    def steps_per_epoch(self) -> int:
        return self.n_train // self.run.recipe.batch_size

    @property
    def total_steps(self) -> int:
        return max(1, round(self.run.recipe.epochs * self.steps_per_epoch))

    def numbers(self, *values: int) -> list[jax.Array]:
        return [replicate(jnp.asarray(value, jnp.int32), self.mesh) for value in values]

    def evaluate(self, params: Any, stats: Any, split: SplitName) -> Score:
        """Mean loss and accuracy over a whole split."""
        totals, seen = replicate(Totals.zero(), self.mesh), 0
        for examples, count in self.data[split].in_order():
            where = self.numbers(0, -(-count // self.run.recipe.batch_size), count)
            with matmul_precision(self.run.precision):
                totals = self.programs.evaluate(params, stats, examples, totals, *where)
            seen += count
        return float(totals.loss) / seen, int(totals.correct) / seen


def data_shape(run: Run, split: PackedSplit) -> DataShape:
    variable_length = task_module(run.data.task).TASK.variable_length
    return DataShape(split.inputs.shape[-1], run.data.classes, 2 if split.inputs.ndim == 3 else 1, variable_length)


def set_up(run: Run, data_folder: Path, placement: Placement = "auto", remat: bool = False) -> tuple[Lab, TrainState]:
    """Data at hand, the network initialised, the training program compiled (or found in the cache on disk)."""
    run_on_calling_thread()
    jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
    mesh = data_mesh(run.recipe.batch_size)
    packed = {split: open_split(data_folder, split) for split in SPLITS}
    n = len(packed["train"].labels)
    if n < run.recipe.batch_size:
        raise UserError(f"batch_size must not exceed the {n} training examples, got {run.recipe.batch_size}.")
    data = make_feeds(packed, stream_key(run.seed, 1), mesh, run.recipe.batch_size, placement)
    network, params, stats = make_network(run, data_shape(run, packed["train"]), remat)
    optimiser = make_optimiser(params, run.recipe, n // run.recipe.batch_size)
    state = initial_state(params, stats, optimiser, mesh)
    programs = compile_programs(run, network, optimiser, state, data["train"].take(0, 0, 1).examples, mesh)
    return Lab(run, mesh, network, programs, data), state


@contextlib.contextmanager
def alone(run: Run) -> Iterator[None]:
    """Holds the run's lock; the system lets go of it when the process dies.

    Raises WorkError while another process trains the same run: two would write each other's checkpoints.
    """
    run.folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(run.folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise WorkError(
            f"another process is training {run.name}. Wait for it, or stop it and type the same again."
        ) from None
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def memory_in_words(run: Run) -> Iterator[None]:
    """A device that runs out of memory is no bug of ours: WorkError says what needs less."""
    try:
        yield
    except MemoryError:
        raise WorkError(f"this machine has too little memory for the initial values of {run.name}.") from None
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise WorkError(
            f"the device has too little memory for {run.name}. Training takes less with --remat, with the examples on "
            "the host (--data-on host), or with fewer at once, as in "
            f"--set batch_size={max(1, run.recipe.batch_size // 2)}."
        ) from None


def train(
    run: Run,
    data_folder: Path,
    results_dir: Path,
    deadline: float | None = None,
    placement: Placement = "auto",
    remat: bool = False,
) -> Record:
    """Train, choose the best checkpoint on validation, test it once, write the record. A finished run returns at once.

    remat: save memory for time (remat.py); the same mathematics, other roundings, so no part of what names the run.

    Raises Interrupted (a signal) or OutOfTime (`deadline`, on the clock of `time.monotonic`) after saving, WorkError
    when the loss stops being finite, the device's memory does not suffice, or another process trains the same run.
    """
    with alone(run), memory_in_words(run), Stop(deadline) as stop:
        finished = run.folder / "result.json"
        if finished.exists():
            return deliver(load_record(finished), run, results_dir)
        write_atomically(run.folder / "run.json", run.model_dump_json(indent=1) + "\n")
        lab, state = set_up(run, data_folder, placement, remat)
        majority = majority_share(lab.data["test"].labels)
        checkpoints = Checkpoints(run.folder / "checkpoints")
        account = Account(compile_seconds=lab.programs.cost.compile_seconds)
        resumed = checkpoints.restore_last(state)
        if resumed is not None:
            state, account = resumed[0], Account.model_validate(resumed[1])
        account.write_metrics(run)
        stop.raise_if_signalled(f"nothing was trained yet. Type the same again: {run.command}")

        def record(status: Any, test: Score | None, last_test: Score | None, note: str = "") -> Record:
            accuracy = accuracies(run, account, majority, test, last_test)
            tokens = int(np.prod(lab.data["train"].example_shape))
            speed = throughput(run, account, lab.programs.cost, tokens, remat)
            return make_record(run, status, lab.network.parameters, account, accuracy, speed, note)

        dropout_key = replicate(stream_key(run.seed, 2), lab.mesh)
        pace, saved_at = Pace(), time.monotonic()
        step, total, per_epoch = int(state.step), lab.total_steps, lab.steps_per_epoch
        with Progress(f"{run.data.task} {run.model} seed {run.seed}", total=total, unit="steps") as progress:
            progress.at(step, total)
            while step < total:
                epoch = step // per_epoch
                epoch_start, epoch_end = epoch * per_epoch, min((epoch + 1) * per_epoch, total)
                while step < epoch_end:
                    started = time.perf_counter()
                    batches = lab.data["train"].take(epoch, step - epoch_start, pace.steps(epoch_end - step))
                    n, where = batches.n, lab.numbers(batches.first, batches.n)
                    state = lab.programs.train(state, batches.examples, batches.order, dropout_key, *where)
                    first_bad = int(state.first_bad)
                    seconds = time.perf_counter() - started
                    if first_bad >= 0:
                        note = f"the loss or the gradient of step {first_bad} was not finite"
                        return deliver(record("diverged", None, None, note), run, results_dir)
                    step += n
                    pace.took(seconds, n)
                    account = account.after_steps(n, seconds)
                    seen = (step - epoch_start) * run.recipe.batch_size
                    loss, correct = float(state.totals.loss) / seen, int(state.totals.correct) / seen
                    rate = n * run.recipe.batch_size / seconds
                    progress.note = f"loss {loss:.3f}, accuracy {correct:.1%}, {rate:,.0f} examples/s"
                    progress.advance(n)
                    time_to_save = stop.wanted or time.monotonic() - saved_at > SAVE_SECONDS
                    if time_to_save and step < epoch_end:
                        checkpoints.save_last(step, state, account.model_dump(mode="json"))
                        saved_at = time.monotonic()
                        stop.raise_if_wanted(run)

                val_loss, val_accuracy = lab.evaluate(state.params, state.stats, "val")
                if not np.isfinite(val_loss):
                    note = f"the validation loss after step {step} was not finite"
                    return deliver(record("diverged", None, None, note), run, results_dir)
                point = CurvePoint(
                    epoch=step / per_epoch,
                    step=step,
                    train_loss=loss,
                    train_accuracy=correct,
                    val_loss=val_loss,
                    val_accuracy=val_accuracy,
                )
                account = account.after_epoch(point)
                state = state._replace(totals=replicate(Totals.zero(), lab.mesh))
                if account.last_is_best:
                    checkpoints.save_best(step, (state.params, state.stats), account.model_dump(mode="json"))
                checkpoints.save_last(step, state, account.model_dump(mode="json"))
                saved_at = time.monotonic()
                account.write_metrics(run)
                progress.say(account.describe_epoch())
                stop.raise_if_wanted(run)

        last_test = lab.evaluate(state.params, state.stats, "test")
        best = checkpoints.restore_best((state.params, state.stats))
        assert best is not None, "an epoch was evaluated, so a best checkpoint was saved"
        best_params, best_stats = best[0]
        test = lab.evaluate(best_params, best_stats, "test")
        checkpoints.close()
        delivered = deliver(record("completed", test, last_test), run, results_dir)
        stop.raise_if_signalled(f"{run.name} had just ended, and its record is written.")
        return delivered
