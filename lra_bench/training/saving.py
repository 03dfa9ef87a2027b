"""When a run is saved: often enough that a kill costs little, and seldom enough that saving costs next to nothing."""

from __future__ import annotations

import time
from typing import Generic, NamedTuple

import jax
import jax.numpy as jnp

from lra_bench.training.checkpoint import H, StageCheckpoints
from lra_bench.training.state import TrainState

SAVE_SECONDS = 300.0
"""Between saves inside an epoch."""

SHARE = 0.02
"""The most of the time that goes into saves at the ends of epochs. A small network on a fast device ends an epoch in
seconds, and a save takes some tenths of one."""


class _Best(NamedTuple):
    step: int
    state: TrainState


class Saver(Generic[H]):
    """It saves the last state and the best parameters together, so that what a history names is always there."""

    def __init__(self, checkpoints: StageCheckpoints[H]):
        self._checkpoints = checkpoints
        self._best: _Best | None = None
        self._saved_at, self._took = time.monotonic(), 0.0

    def keep_best(self, step: int, state: TrainState) -> None:
        """Keep the parameters and the statistics after `step` steps in memory until they are saved or surpassed."""
        # The training program consumes the state it is given.
        copied = jax.tree.map(jnp.copy, (state.params, state.stats))
        self._best = _Best(step, state._replace(params=copied[0], stats=copied[1]))

    @property
    def due_in_epoch(self) -> bool:
        """Whether so much time has passed that it is time to save in the middle of an epoch."""
        return self._since() > SAVE_SECONDS

    @property
    def due_after_epoch(self) -> bool:
        """Whether a save takes no more than its share of the time since the last one."""
        return self._since() * SHARE >= self._took

    def save_best(self, history: H) -> None:
        """Save the best parameters that are kept in memory, if any are; a run that diverges saves nothing else."""
        if self._best is not None:
            self._checkpoints.save_best(self._best.step, self._best.state, history)

    def save(self, step: int, state: TrainState, history: H) -> None:
        """Save the state after `step` steps, and before it the best parameters, if others than those saved.

        A kill between the two repeats the epochs since the save before, and saves the same best again. Raises as
        `Checkpoints.save_last`.
        """
        began = time.monotonic()
        self.save_best(history)
        self._checkpoints.save_last(step, state, history)
        self._best = None
        self._saved_at = time.monotonic()
        self._took = self._saved_at - began

    def _since(self) -> float:
        return time.monotonic() - self._saved_at
