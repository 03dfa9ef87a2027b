"""Checkpoints, written by Orbax: the last state, to resume from, and the best parameters, to test."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from lra_bench.errors import WorkError


class Checkpoints:
    """The two checkpoints below `folder`: `last` and `best`.

    A save is complete or absent: Orbax writes to another folder, renames it, and only then removes the old checkpoint.
    So there is a whole checkpoint at whatever moment the process is killed. Saves are synchronous: LRA models are
    small, and a save must be on disk before it is reported.
    """

    def __init__(self, folder: Path):
        # Orbax logs the tracebacks of errors that it also raises.
        logging.getLogger("absl").setLevel(logging.CRITICAL)
        options = ocp.CheckpointManagerOptions(max_to_keep=1, enable_async_checkpointing=False, create=True)
        self._last = ocp.CheckpointManager(folder / "last", options=options)
        self._best = ocp.CheckpointManager(folder / "best", options=options)

    def save_last(self, step: int, state: Any, progress: dict[str, Any]) -> None:
        """Save the whole training state after `step` steps, and the history of the run so far as JSON.

        Raises WorkError where it cannot be written; the checkpoint before it is kept.
        """
        self._save(self._last, step, state, progress)

    def save_best(self, step: int, state: Any, progress: dict[str, Any]) -> None:
        """Save the parameters and the statistics after `step` steps, for evaluation. Raises as `save_last`."""
        self._save(self._best, step, state, progress)

    def restore_last(self, like: Any) -> tuple[Any, dict[str, Any]] | None:
        """Restore the state and the history of the last save; None if there is none.

        `like` gives the shapes, dtypes and shardings. Raises WorkError where the checkpoint cannot be read.
        """
        return self._restore(self._last, like)

    def restore_best(self, like: Any) -> tuple[Any, dict[str, Any]] | None:
        """Restore the best parameters, their statistics and the history, as `restore_last` does."""
        return self._restore(self._best, like)

    def close(self) -> None:
        """Close both of Orbax's managers."""
        self._last.close()
        self._best.close()

    def _save(self, manager: ocp.CheckpointManager, step: int, state: Any, progress: dict[str, Any]) -> None:
        if step in manager.all_steps():
            return
        args = ocp.args.Composite(state=ocp.args.StandardSave(state), progress=ocp.args.JsonSave(progress))
        try:
            manager.save(step, args=args, force=True)
            manager.wait_until_finished()
        except (OSError, ValueError) as error:
            full = "No space left" in str(error) or "Disk quota" in str(error)
            why = "the disk is full" if full else str(error).splitlines()[0]
            raise WorkError(
                f"the checkpoint of step {step} could not be written to {manager.directory}: {why}. "
                "The one before it is kept; the same command continues from it."
            ) from error

    def _restore(self, manager: ocp.CheckpointManager, like: Any) -> tuple[Any, dict[str, Any]] | None:
        step = manager.latest_step()
        if step is None:
            return None
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        args = ocp.args.Composite(state=ocp.args.StandardRestore(abstract), progress=ocp.args.JsonRestore())
        try:
            restored = manager.restore(step, args=args)
        except jax.errors.JaxRuntimeError:
            raise  # the device's memory, not the file
        except Exception as error:  # Orbax and TensorStore have no common error; each means the same here
            raise WorkError(
                f"the checkpoint in {manager.directory} cannot be read ({type(error).__name__}). It was damaged, or "
                "written by other versions; remove the run's folder to train it anew."
            ) from error
        return restored["state"], restored["progress"]
