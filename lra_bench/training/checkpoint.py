"""Checkpoints: the last state to resume from, and the best parameters to test. Orbax underneath."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from lra_bench.errors import WorkError


class Checkpoints:
    """Two places of one checkpoint each below `folder`: `last` and `best`.

    A save is complete or absent: Orbax writes beside and renames, and the old checkpoint goes only after that. So a
    process killed at any moment finds one whole checkpoint. Saves are synchronous: LRA models are small, and a save
    must be on disk before the process says so.
    """

    def __init__(self, folder: Path):
        # Orbax logs tracebacks of errors that it also raises.
        logging.getLogger("absl").setLevel(logging.CRITICAL)
        options = ocp.CheckpointManagerOptions(max_to_keep=1, enable_async_checkpointing=False, create=True)
        self._last = ocp.CheckpointManager(folder / "last", options=options)
        self._best = ocp.CheckpointManager(folder / "best", options=options)

    def save_last(self, step: int, state: Any, progress: dict[str, Any]) -> None:
        """The whole training state after `step` updates and the JSON history of the run so far."""
        self._save(self._last, step, state, progress)

    def save_best(self, step: int, state: Any, progress: dict[str, Any]) -> None:
        """What evaluation needs: parameters and statistics."""
        self._save(self._best, step, state, progress)

    def restore_last(self, like: Any) -> tuple[Any, dict[str, Any]] | None:
        """State and history of the last save, None if there is none; `like` gives the shapes, dtypes and shardings."""
        return self._restore(self._last, like)

    def restore_best(self, like: Any) -> tuple[Any, dict[str, Any]] | None:
        return self._restore(self._best, like)

    def close(self) -> None:
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
