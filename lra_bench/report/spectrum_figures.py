"""The pictures of `lra-bench spectrum`: gains of initializations, perturbations by their price, layers of runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from lra_bench.report.drawing import (
    COLORS,
    COLUMN,
    LIGHT,
    LINES,
    PAGE,
    Drawing,
    Picture,
    legend,
    log_axis,
    panels,
    plain,
    render,
)
from lra_bench.ssm.gain import LayerGain
from lra_bench.ssm.hippo import Real
from lra_bench.ssm.spectrum import Perturbation, Spectrum

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BANDS = 160
"""The number of points of a line: each is the largest gain in its band of frequencies, so that no spike is lost."""


def initializations_picture(found: Sequence[Spectrum], omega: Real) -> Picture:
    """Draw the gain of the states of each initialization against the frequency."""
    return render(Drawing("spectrum", "Gain of initializations", "", partial(_draw_initializations, found, omega)))


def perturbations_picture(found: Sequence[Perturbation]) -> Picture:
    """Draw the condition and the distance to HiPPO against the size of perturbations, random ones beside."""
    return render(Drawing("spectrum", "Perturbations of HiPPO", "", partial(_draw_perturbations, found)))


def layers_picture(found: Mapping[str, Sequence[LayerGain]]) -> Picture:
    """Draw the gain of the layers of runs, a panel per run; gray is before training."""
    return render(Drawing("spectrum", "Gain of trained layers", "", partial(_draw_layers, found)))


def _draw_initializations(found: Sequence[Spectrum], omega: Real) -> Figure:
    """Draw those with a B of their own in one panel, and those with a drawn B in the other."""
    made, axes = panels(PAGE, 3.2, 1, 2)
    given = [one for one in found if "FT" not in one.title and not one.drawn]
    for ax, group in zip(axes, (given, [one for one in found if one not in given]), strict=True):
        for i, one in enumerate(group):
            _line(ax, omega, one.gain, plain(one.title), COLORS[i % len(COLORS)], LINES[i % len(LINES)])
        ax.set_xlabel("frequency ω")
        ax.legend(frameon=False, fontsize=6, labelcolor=LIGHT.ink)
    axes[0].set_ylabel("gain of the states")
    axes[0].set_title("HiPPO's B")
    axes[1].set_title("B drawn, or one")
    return made


def _line(ax: Axes, omega: Real, gain: Real, label: str | None, color: str, line: object, width: float = 0.9) -> None:
    """Draw a gain on logarithmic axes."""
    at, high = _banded(omega, gain)
    ax.plot(at, high, label=label, color=color, linestyle=line, linewidth=width)
    ax.set_xscale("log")
    ax.set_yscale("log")
    log_axis(ax.xaxis)
    log_axis(ax.yaxis)
    ax.tick_params(axis="x", labelsize=6)  # many decades


def _banded(omega: Real, gain: Real) -> tuple[Real, Real]:
    """The largest gain of each band of frequencies, and where it is."""
    edges = np.geomspace(omega[0], omega[-1], BANDS + 1)
    band = np.clip(np.searchsorted(edges, omega, side="right") - 1, 0, BANDS - 1)
    best = [int(np.flatnonzero(band == b)[gain[band == b].argmax()]) for b in np.unique(band)]
    return omega[best], gain[best]


def _draw_perturbations(found: Sequence[Perturbation]) -> Figure:
    made, axes = panels(PAGE, 2.8, 1, 2)
    best = sorted((one for one in found if one.seed is None), key=lambda one: one.relative_size)
    drawn = [one for one in found if one.seed is not None]
    for ax, field, label in zip(axes, ("kappa", "distance"), ("condition of V", "distance to HiPPO"), strict=True):
        sizes = [100 * one.relative_size for one in best]
        ax.plot(
            sizes, [getattr(one, field) for one in best], "o-", color=COLORS[0], markersize=3, label="optimized (PTD)"
        )
        for growing in (False, True):
            group = [one for one in drawn if (one.growth > 0) == growing]
            if group:
                name = "random, a mode grows" if growing else "random, all modes decay"
                values = [getattr(one, field) for one in group]
                place = [100 * one.relative_size for one in group]
                face = "none" if growing else COLORS[1]
                ax.scatter(place, values, s=12, facecolor=face, edgecolor=COLORS[1], linewidth=0.7, label=name)
        ax.set_xscale("log")
        ax.set_yscale("log")
        log_axis(ax.xaxis)
        log_axis(ax.yaxis)
        ax.set_xlabel("size of E in % of HiPPO's matrix")
        ax.set_ylabel(label)
    legend(made, axes, columns=3)
    return made


def _draw_layers(found: Mapping[str, Sequence[LayerGain]]) -> Figure:
    columns = min(2, len(found))
    rows = math.ceil(len(found) / columns)
    made, axes = panels(PAGE if columns > 1 else COLUMN, 2.4 * rows + 0.4, rows, columns)
    for ax, (name, layers) in zip(axes, found.items(), strict=False):
        for i, layer in enumerate(layers):
            _line(ax, layer.omega, layer.initial, None, LIGHT.muted, "-", 0.5)
            color, line = COLORS[i % len(COLORS)], LINES[i // len(COLORS) % len(LINES)]
            _line(ax, layer.omega, layer.gain, f"layer {i + 1}", color, line)
        ax.set_title(plain(name))
        ax.set_xlabel("frequency ω")
    for ax in axes[len(found) :]:
        ax.set_visible(False)
    for ax in axes[::columns]:
        ax.set_ylabel("gain of the layer")
    legend(made, axes, columns=6)
    return made
