"""The gain over frequency of the layers of a trained run, beside that of the same layers before training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np

from lra_bench.errors import UserError
from lra_bench.models import response
from lra_bench.records.schema import Record
from lra_bench.registry import cli_name
from lra_bench.runs.run import Run
from lra_bench.ssm.gain import LayerGain
from lra_bench.ssm.hippo import Real
from lra_bench.training.functional import initialized
from lra_bench.training.predict import trained_model
from lra_bench.training.setup import data_shape

POINTS = 96
"""The number of frequencies beside those of eigenvalues."""

MOST_EIGENVALUES = 64
"""The most frequencies of eigenvalues, those of the least damped ones."""


def layer_gains(run: Run, folder: Path, record: Record | None) -> list[LayerGain]:
    """The gains of every layer of the run's best checkpoint, in order.

    `record` is that of the run if it has ended. Raises as `score_best`, and UserError for a model whose layers are no
    state spaces or not among those that `models/response.py` knows.
    """
    model, _ = trained_model(run, folder, record)
    shape = data_shape(run)
    network, params, stats = initialized(run, shape)
    before = network.merged(params, stats)
    blocks = list(zip(_blocks(run, model.network), _blocks(run, before), strict=True))
    with jax.enable_x64(True):
        return [
            _layer_gain(response.in_float64(a.layer), response.in_float64(b.layer), shape.length) for a, b in blocks
        ]


def _blocks(run: Run, network: Any) -> list[Any]:
    blocks = list(getattr(network, "blocks", []))
    if not blocks or not all(response.has_response(getattr(block, "layer", None)) for block in blocks):
        raise UserError(
            f"{run.name} has no transfer function to show: legal models are S4, S4D, S4-PTD, S4D-FT, S4D-DFouT, S5, "
            f"S5-PTD and the LRU; it is of {cli_name(run.model)}."
        )
    return blocks


def _layer_gain(layer: Any, before: Any, L: int) -> LayerGain:
    now, first = response.eigenvalues(layer), response.eigenvalues(before)
    dt = np.asarray(response.input_steps(layer, len(layer.D[...])))
    exact = _frequencies_of(now, dt)
    first_steps = np.asarray(response.input_steps(before, len(dt)))
    both = np.concatenate([exact, _frequencies_of(first, first_steps)])
    grid = np.geomspace(np.pi / (L * np.median(dt)), np.pi / dt.min(), POINTS)
    omega = np.unique(np.concatenate([grid, both[both >= grid[0]]]))
    change = now - first
    wrapped = change.real + 1j * ((change.imag + np.pi) % (2 * np.pi) - np.pi)  # an angle is known up to whole turns
    moved = np.linalg.norm(wrapped) / np.linalg.norm(first)
    last = response.last_frequency(layer)
    return LayerGain(omega, response.gain(layer, L, omega), response.gain(before, L, omega), last, float(moved))


def _column(Lambda_dt: np.ndarray, dt: Real) -> Real:
    """The step of each eigenvalue: one for each feature, or the median that all have."""
    return dt[:, None] if Lambda_dt.ndim == 2 else dt[:1]


def _frequencies_of(Lambda_dt: np.ndarray, dt: Real) -> Real:
    """The frequencies of the least damped eigenvalues, each once."""
    Lambda = (Lambda_dt / _column(Lambda_dt, dt)).ravel()
    _, distinct = np.unique(np.round(np.abs(Lambda.imag), 6), return_index=True)
    kept = distinct[np.argsort(-Lambda.real[distinct], kind="stable")][:MOST_EIGENVALUES]
    return np.abs(Lambda.imag[kept])
