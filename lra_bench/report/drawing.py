"""What all pictures share: colors that a color-blind reader can tell apart, sizes for a paper, and rendering."""

from __future__ import annotations

import importlib.util
import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from html import escape
from typing import TYPE_CHECKING, Any, TypeVar

from lra_bench.report.formats import one_line
from lra_bench.report.select import Entry

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

T = TypeVar("T")

COLUMN, PAGE = 3.4, 7.0
"""Widths in inches of one and of both columns of a two-column paper."""

FEATURED = 8
"""So many models have a color of their own in one picture; the others are gray."""

# Okabe and Ito's colors without black and yellow, which vanish on a dark or on a white page.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MARKERS = "os^Dv*XP"
LINES = ("-", "--", "-.", (0, (1, 1)))
PNG_DPI = 160


Cells = dict[tuple[str, str], list[Entry]]
"""Runs by row label and task, as the pictures want them."""


@dataclass(frozen=True)
class Theme:
    ink: str
    muted: str
    paper: str


LIGHT = Theme("#1b1f24", "#7a828c", "#ffffff")
DARK = Theme("#e6e9ee", "#98a2ad", "#12161c")


@dataclass(frozen=True)
class Picture:
    """`svg` follows the reader's light or dark mode by itself; a PNG cannot, so there are two."""

    name: str
    title: str
    caption: str
    svg: str
    png: bytes
    png_dark: bytes

    @property
    def files(self) -> dict[str, str | bytes]:
        return {
            f"figures/{self.name}.svg": self.svg,
            f"figures/{self.name}.png": self.png,
            f"figures/{self.name}-dark.png": self.png_dark,
        }


@dataclass(frozen=True)
class Style:
    color: str
    marker: str
    line: Any
    featured: bool

    @property
    def points(self) -> dict[str, Any]:
        """Keywords of a line with a marker at each point."""
        look = {"color": self.color, "marker": self.marker, "linestyle": self.line}
        return {**look, "markersize": 3, "linewidth": 1}


def have_matplotlib() -> bool:
    return importlib.util.find_spec("matplotlib") is not None


def styles(models: Sequence[str], featured: Sequence[str]) -> dict[str, Style]:
    """Color, marker and line of each model: the same in every picture made with the same featured models."""
    found = {model: Style(LIGHT.muted, "o", "-", False) for model in models}
    for i, model in enumerate(sorted(featured)):
        found[model] = Style(COLORS[i % len(COLORS)], MARKERS[i % len(MARKERS)], LINES[(i // len(COLORS)) % 4], True)
    return found


def panels(width: float, height: float, rows: int, columns: int, **sharing: Any) -> tuple[Figure, list[Axes]]:
    """An empty figure and its axes, row by row, without boxes and with a light grid."""
    from matplotlib.figure import Figure

    made = Figure(figsize=(width, height), dpi=PNG_DPI, layout="constrained", facecolor=LIGHT.paper)
    axes = list(made.subplots(rows, columns, squeeze=False, **sharing).flat)
    for ax in axes:
        ax.set_facecolor(LIGHT.paper)
        ax.grid(True, color=LIGHT.muted, alpha=0.25, linewidth=0.5)
        ax.spines[["top", "right"]].set_visible(False)
        ax.spines[["left", "bottom"]].set_color(LIGHT.muted)
        ax.tick_params(colors=LIGHT.ink, length=2)
    return made, axes


def plain(name: str) -> str:
    """A name from a record as one short line."""
    line = one_line(name)
    return line if len(line) <= 32 else line[:31] + "…"


def length_axis(axis: Axis) -> None:
    """Lengths in powers of two: 512, 1k = 1,024, 1M = 1,048,576."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axis.set_major_locator(LogLocator(base=2, numticks=7))
    axis.set_major_formatter(FuncFormatter(lambda value, _: _short(value, 2**10)))
    axis.set_minor_locator(NullLocator())


def log_axis(axis: Axis) -> None:
    """Logarithmic ticks at 1, 2 and 5 of each decade, written as 0.5, 500, 2k, 5M."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=5))
    axis.set_major_formatter(FuncFormatter(lambda value, _: _short(value, 10**3)))
    axis.set_minor_locator(NullLocator())


def _short(value: float, kilo: int) -> str:
    for letter, unit in (("G", kilo**3), ("M", kilo**2), ("k", kilo)):
        if value >= unit:
            return f"{value / unit:g}{letter}"
    return f"{value:g}"


def legend(made: Figure, axes: Sequence[Axes], columns: int = 6) -> None:
    """One legend under all panels, each label once, in alphabetical order."""
    entries = {label: handle for ax in axes for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    if entries:
        labels = sorted(entries)
        handles = [entries[label] for label in labels]
        made.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False, labelcolor=LIGHT.ink)


def thinned(points: Sequence[T], most: int = 60) -> list[T]:
    """At most about `most` of the points, evenly chosen, the last always among them."""
    step = max(1, math.ceil(len(points) / most))
    return list(points[len(points) - 1 :: -step])[::-1] if points else []


def render(name: str, title: str, caption: str, draw: Callable[[], Figure]) -> Picture:
    """The picture in every form; the same input gives the same bytes (fixed ids, no dates, no version stamps)."""
    import matplotlib

    settings: dict[Any, Any] = {
        "svg.hashsalt": name,
        "font.family": "DejaVu Sans",
        "font.size": 7.5,
        "text.hinting": "none",
        "text.parse_math": False,  # a model's name may hold a $
        "axes.titlesize": 8,
        "axes.labelsize": 7.5,
        "legend.fontsize": 7,
        **dict.fromkeys(("text.color", "axes.labelcolor", "axes.titlecolor"), LIGHT.ink),
    }
    with matplotlib.rc_context(settings):
        made = draw()
        made.draw_without_rendering()
        made.draw_without_rendering()  # the room for long tick labels is known only after the first pass
        made.set_layout_engine("none")  # laid out once for all three files
        svg, png = _svg(made, title), _png(made)
        darken(made)
        return Picture(name, title, caption, svg, png, _png(made))


def darken(made: Figure) -> None:
    """Turn ink, grays and paper of everything drawn into those of dark mode; the models' colors stay."""
    from matplotlib.collections import Collection
    from matplotlib.colors import to_hex, to_rgba
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch
    from matplotlib.text import Text

    dark = dict(zip(astuple(LIGHT), astuple(DARK), strict=True))

    def turned(color: Any) -> Any:
        alpha = to_rgba(color)[3]
        return to_rgba(dark.get(to_hex(color), to_hex(color)), alpha) if alpha > 0 else "none"

    artists = made.findobj()
    behind = [artist.get_bbox_patch() for artist in artists if isinstance(artist, Text)]  # findobj does not find these
    for artist in [*artists, *(patch for patch in behind if patch is not None)]:
        if isinstance(artist, Text | Line2D):
            artist.set_color(turned(artist.get_color()))
        elif isinstance(artist, Patch):
            artist.set_facecolor(turned(artist.get_facecolor()))
            artist.set_edgecolor(turned(artist.get_edgecolor()))
        elif isinstance(artist, Collection):
            artist.set_facecolor([turned(color) for color in artist.get_facecolor()])
            artist.set_edgecolor([turned(color) for color in artist.get_edgecolor()])


def _png(made: Figure) -> bytes:
    out = io.BytesIO()
    made.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()


def _svg(made: Figure, title: str) -> str:
    """The figure as SVG whose ink, grays and paper change where the page around it is dark."""
    out = io.StringIO()
    made.savefig(out, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    rules = "".join(
        f'[style*="{kind}: {light}"]{{{kind}:{dark} !important}}'
        for light, dark in zip((LIGHT.ink, LIGHT.muted, LIGHT.paper), (DARK.ink, DARK.muted, DARK.paper), strict=True)
        for kind in ("fill", "stroke")
    )
    head = f"<title>{escape(title)}</title><style>@media (prefers-color-scheme: dark){{{rules}}}</style>"
    return re.sub(r"(<svg\b[^>]*>)", lambda found: found[1] + head, out.getvalue(), count=1)
