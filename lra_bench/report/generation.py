"""What `lra-bench generate` measured: its rows, the ratios to Transformers of equal size, and its picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from lra_bench.records.schema import Timing
from lra_bench.registry import model_title
from lra_bench.report.drawing import (
    COLORS,
    LINES,
    MARKERS,
    PAGE,
    Drawing,
    Picture,
    legend,
    length_axis,
    log_axis,
    panels,
    plain,
    render,
)
from lra_bench.report.speed import GIB

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BatchChoice = Literal["equal", "largest"]
"""How the batch was chosen: the same for both networks, or for each the largest that fits."""


class Generation(NamedTuple):
    """The measured generation of sequences of one length by one network."""

    model: str
    transformer: bool
    """Whether the network is the Transformer with about as many parameters as `model`, not the model itself."""
    length: int
    """The number of steps that are generated from nothing."""
    choice: BatchChoice
    batch: int
    parameters: int
    seconds: Timing
    """The time of one step of the whole batch, on average over the steps of a sequence."""
    memory_bytes: int
    """The bytes that the compiled program needs: parameters, states and temporaries."""

    @property
    def tokens_per_second(self) -> float:
        """The generated tokens of all sequences of the batch in a second."""
        return self.batch / self.seconds.median

    @property
    def title(self) -> str:
        """The name of the network in tables and pictures."""
        return f"Transformer like {model_title(self.model)}" if self.transformer else model_title(self.model)


class GenerationRatio(NamedTuple):
    """How many times as many tokens per second a model generates as the Transformer of equal size."""

    model: str
    length: int
    choice: BatchChoice
    tokens_per_second: float


def generation_ratios(measured: Sequence[Generation]) -> list[GenerationRatio]:
    """The ratio of each model to its Transformer, for each length and choice of batch at which both were measured."""
    baselines = {(one.model, one.length, one.choice): one.tokens_per_second for one in measured if one.transformer}
    return [
        GenerationRatio(*key, one.tokens_per_second / baselines[key])
        for one in measured
        if not one.transformer and (key := (one.model, one.length, one.choice)) in baselines
    ]


def generation_picture(measured: Sequence[Generation]) -> Picture:
    """Draw tokens per second and memory against the length."""
    return render(Drawing("generation", "Generation step by step", "", partial(_draw, measured)))


def _draw(measured: Sequence[Generation]) -> Figure:
    made, axes = panels(PAGE, 2.7, 1, 3)
    _panel(axes[0], [one for one in measured if one.choice == "equal"], lambda one: one.tokens_per_second)
    _panel(axes[1], [one for one in measured if one.choice == "largest"], lambda one: one.tokens_per_second)
    _panel(axes[2], measured, lambda one: 1024 * one.memory_bytes / one.batch / GIB, "largest")
    batches = sorted({one.batch for one in measured if one.choice == "equal"})
    axes[0].set_title(f"batch {' and '.join(map(str, batches))}" if batches else "equal batch")
    axes[1].set_title("largest batch that fits")
    axes[2].set_title("memory at that batch")
    axes[0].set_ylabel("tokens per second")
    axes[2].set_ylabel("MiB per sequence")
    legend(made, axes, columns=4)
    return made


def _panel(
    ax: Axes, measured: Sequence[Generation], value: Callable[[Generation], float], only: BatchChoice | None = None
) -> None:
    """Draw a line for each network. The Transformer has the color of the model that it is as large as."""
    shown = [one for one in measured if only in (None, one.choice)]
    models = sorted({one.model for one in measured})
    for i, model in enumerate(models):
        for transformer in (False, True):
            line = sorted((one for one in shown if (one.model, one.transformer) == (model, transformer)), key=_length)
            if line:
                look: dict[str, Any] = {
                    "color": COLORS[i % len(COLORS)],
                    "marker": MARKERS[i % len(MARKERS)],
                    "markersize": 3,
                }
                style = LINES[1] if transformer else LINES[0]
                points = [one.length for one in line], [value(one) for one in line]
                ax.plot(*points, label=plain(line[0].title), linestyle=style, linewidth=1, **look)
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    length_axis(ax.xaxis)
    log_axis(ax.yaxis)
    ax.set_xlabel("generated steps")


def _length(one: Generation) -> int:
    return one.length
