"""Checkpoints, written by Orbax: the last states, to resume from, and the best parameters, to test.

`checkpoints/last` and `checkpoints/best` hold a folder per saved step, called by its number. The checksums of its files
lie in it, and nothing is restored from files that are not as they were saved.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from pathlib import Path
from typing import Any, Generic, TypeVar

import jax
import orbax.checkpoint as ocp
from flax import nnx
from pydantic import ValidationError

from lra_bench.errors import UserError, WorkError
from lra_bench.json_files import read_json
from lra_bench.machine.processes import from_first, is_first, on_first
from lra_bench.progress import print_line
from lra_bench.runs.checksums import (
    HISTORY,
    checksums_of,
    files_below,
    has_checksums,
    promised,
    without_promise,
    write_checksums,
)
from lra_bench.runs.saved_steps import PRETRAINING, damage_of_step, saved_steps, whole_steps
from lra_bench.training.history import Clocks, History, PretrainingHistory
from lra_bench.training.mesh import local, sent_by_first
from lra_bench.training.state import TrainState

H = TypeVar("H", bound=Clocks)
"""The kind of history that is saved with a state."""

PARTIAL = ".partial"
"""The folder beside the saved steps for what is being written or removed."""


class Damaged(Exception):
    """A saved step that cannot be restored, with the reason as its message."""


class StageCheckpoints(Generic[H]):
    """The checkpoints of a stage of a run: `last` and `best` below its folder, with histories of one kind.

    A save is complete or absent: it is written to another folder, hashed, and renamed. Only then are older ones
    removed. So there is a whole checkpoint at whatever moment the process is killed. Saves are synchronous: LRA models
    are small, and a save must be on disk before it is reported. Every device has the whole state, so process 0 alone
    writes and reads files, and sends the others what it read.
    """

    def __init__(self, folder: Path, run_name: str, kind: type[H]):
        # Orbax logs the tracebacks of errors that it also raises.
        logging.getLogger("absl").setLevel(logging.CRITICAL)
        self._run_name, self._kind = run_name, kind
        self._last, self._best = folder / "last", folder / "best"
        alone = ocp.options.MultiprocessingOptions(primary_host=0, active_processes={0})
        handler = ocp.CompositeCheckpointHandler(composite_options=ocp.CompositeOptions(multiprocessing_options=alone))
        self._orbax = ocp.Checkpointer(handler, multiprocessing_options=alone)

    def save_last(self, step: int, state: TrainState, history: H) -> None:
        """Save the whole training state after `step` steps, and the history of the run so far.

        The state saved before it is kept, and so are the best parameters that either history names. Raises WorkError
        where it cannot be written; what was saved before is kept.
        """

        def save() -> None:
            self._save(self._last, step, state, history)
            kept = {step: history, **self._whole_before(step)}
            _remove_steps(self._last, list(kept))
            _remove_steps(self._best, [history.best_step for history in kept.values()])

        on_first(save)

    def save_best(self, step: int, state: TrainState, history: H) -> None:
        """Save the parameters and the statistics after `step` steps, for evaluation. Raises as `save_last`.

        No other best step is removed before a last state names this one.
        """
        on_first(lambda: self._save(self._best, step, (state.params, state.stats), history))

    def restore_last(self, like: TrainState) -> tuple[TrainState, H] | None:
        """Restore the state and the history of the last save that is whole; None if nothing was saved.

        One line says which saves were damaged. `like` gives the shapes, dtypes and shardings. Raises WorkError where
        something was saved and nothing of it can be read.
        """
        found = self._read_last(local(like)) if is_first() else None
        told = from_first(found and found[1].model_dump(mode="json"))
        if told is None:
            return None
        return sent_by_first(found and found[0], like), self._kind.model_validate(told)

    def _read_last(self, like: TrainState) -> tuple[TrainState, H] | None:
        """As `restore_last`, in process 0."""
        damaged: list[str] = []
        for step in reversed(saved_steps(self._last)):
            try:
                restored = self._restore(self._last / str(step), like)
            except Damaged as error:
                damaged.append(f"step {step}: {error}")
                continue
            if damaged:
                print_line(f"{self._last} is damaged ({'; '.join(damaged)}). Going on from step {step}, saved before.")
            return restored
        if damaged:
            raise WorkError(
                f"the checkpoint in {self._last} cannot be read ({'; '.join(damaged)}). It was damaged, or written by "
                f"other versions. To train the run anew, type lra-bench rm {self._run_name}, then the same."
            )
        return None

    def restore_best(self, step: int, like: TrainState) -> tuple[nnx.State, nnx.State]:
        """Restore the parameters and the statistics after `step` steps, which a history names as best.

        Where they are missing or damaged, the last state is used if it is of the same step, and one line says so.
        Raises WorkError where neither can be read.
        """
        read = self._read_best(step, local(like)) if is_first() else None
        return sent_by_first(read, (like.params, like.stats))

    def _read_best(self, step: int, like: TrainState) -> tuple[nnx.State, nnx.State]:
        """As `restore_best`, in process 0."""
        folder = self._best / str(step)
        try:
            return self._restore(folder, (like.params, like.stats))[0]
        except Damaged as error:
            damage = str(error)
        try:
            state, _ = self._restore(self._last / str(step), like)
        except Damaged:
            raise WorkError(
                f"the best checkpoint of the run, {folder}, cannot be read ({damage}), and no other has its "
                f"parameters. To train the run anew, type lra-bench rm {self._run_name}, then its "
                "`lra-bench train`."
            ) from None
        print_line(f"{folder} cannot be read ({damage}). The last state is of the same step, and is used instead.")
        return state.params, state.stats

    def mend_best(self, history: H, like: TrainState) -> None:
        """Make sure, before more is trained, that the best parameters that the history names can be restored.

        Where their checkpoint is missing or damaged, they are saved again from the last state of the same step. Where
        there is none, one line says so: the run can still end well, if a later epoch is better.
        """
        step = history.best_step
        if step is None or not is_first() or not damage_of_step(self._best / str(step)):
            return
        try:
            best = self._read_best(step, local(like))
        except WorkError as error:
            print_line(f"{error} Training goes on, because a later epoch may be better and take its place.")
        else:
            self._save(self._best, step, best, self._history(self._last / str(step)))

    def history(self) -> H | None:
        """The history of the last state that is whole, else of the newest best parameters; None without either."""
        for folder in (self._last, self._best):
            for step in whole_steps(folder):
                with contextlib.suppress(Damaged):
                    return self._history(folder / str(step))
        return None

    def close(self) -> None:
        """Close Orbax's writer."""
        self._orbax.close()

    def _whole_before(self, step: int) -> dict[int, H]:
        """The newest last state saved before `step` that is whole, as its step and its history; empty without one."""
        for old in whole_steps(self._last, before=step):
            with contextlib.suppress(Damaged):
                return {old: self._history(self._last / str(old))}
        return {}

    def _history(self, folder: Path) -> H:
        """The history saved in the folder of a step. Raises Damaged where it cannot be read."""
        try:
            return self._kind.model_validate(without_promise(read_json(folder / HISTORY)))
        except (UserError, ValidationError) as error:
            raise Damaged(f"{HISTORY} holds no history") from error

    def _save(self, kind: Path, step: int, state: Any, history: H) -> None:
        """Write the step beside the others, hash it, and give it its name. One of the same number is replaced."""
        args = ocp.args.Composite(
            state=ocp.args.StandardSave(local(state)),
            progress=ocp.args.JsonSave(promised(history.model_dump(mode="json"))),
        )
        partial, folder = kind / PARTIAL, kind / str(step)
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            self._orbax.save(partial / folder.name, args=args)
            names = files_below(partial / folder.name)
            for name in names:
                _sync(partial / folder.name / name)
            write_checksums(partial / folder.name, checksums_of(partial / folder.name, names))
            if folder.exists():
                folder.replace(partial / "replaced")
            (partial / folder.name).replace(folder)
            _sync(kind)
            shutil.rmtree(partial)
        except (OSError, ValueError) as error:
            shutil.rmtree(partial / folder.name, ignore_errors=True)
            full = "No space left" in str(error) or "Disk quota" in str(error)
            why = "the disk is full" if full else str(error).splitlines()[0]
            raise WorkError(
                f"the checkpoint of step {step} could not be written to {kind}: {why}. "
                "The one before it is kept; the same command continues from it."
            ) from error

    def _restore(self, folder: Path, like: Any) -> tuple[Any, H]:
        """The state and the history in the folder of a step. Raises Damaged where they are not as they were saved."""
        damage = damage_of_step(folder)
        if damage:
            raise Damaged(damage)
        if not has_checksums(folder):
            print_line(f"{folder} was saved by an earlier lra-bench, without checksums, and is read unchecked.")
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        args = ocp.args.Composite(state=ocp.args.StandardRestore(abstract))
        try:
            return self._orbax.restore(folder, args=args)["state"], self._history(folder)
        except (Damaged, jax.errors.JaxRuntimeError, MemoryError):
            raise  # what is said already; the memory of the device or the host, not the file
        except Exception as error:  # Orbax and TensorStore have no common error; each means the same here
            raise Damaged(type(error).__name__) from error


class Checkpoints(StageCheckpoints[History]):
    """The checkpoints of a run, below its folder `checkpoints`."""

    def __init__(self, folder: Path):
        super().__init__(folder, folder.parent.name, History)


class PretrainingCheckpoints(StageCheckpoints[PretrainingHistory]):
    """The checkpoints of a run's self-pretraining, below `pretraining` in its folder `checkpoints`."""

    def __init__(self, folder: Path):
        super().__init__(folder / PRETRAINING, folder.parent.name, PretrainingHistory)


def _remove_steps(kind: Path, kept: list[int | None]) -> None:
    """Remove every saved step but these. Each goes at once, whenever the process is killed."""
    partial = kind / PARTIAL
    for step in saved_steps(kind):
        if step not in kept:
            partial.mkdir(exist_ok=True)
            (kind / str(step)).replace(partial / str(step))
    shutil.rmtree(partial, ignore_errors=True)


def _sync(path: Path) -> None:
    """Wait until the content of a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
