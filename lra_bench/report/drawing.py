"""The common part of all pictures: colors that a color-blind reader can distinguish, sizes, axes and rendering."""

from __future__ import annotations

import importlib.util
import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from lra_bench.errors import UserError
from lra_bench.paths import write_atomically
from lra_bench.plain_text import one_line
from lra_bench.report.select import Entry

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

T = TypeVar("T")

COLUMN, PAGE = 3.4, 7.0
"""The widths in inches of one column and of both columns of a two-column paper."""

FEATURED = 12
"""The number of models that have a color of their own in a picture; the others are gray."""

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Okabe and Ito's colors without black and yellow, which are invisible on a dark or on a white page."""

MARKERS = "os^Dv*XP"
LINES = ("-", "--", "-.", (0, (1, 1)))
PNG_DPI = 160

HIDDEN = "_other"
"""The label of lines that the legend leaves out: matplotlib ignores labels that begin with an underscore."""

Cells = dict[tuple[str, str], list[Entry]]
"""The entries of each cell by row label and task."""


@dataclass(frozen=True)
class Theme:
    """The colors of text and lines, of secondary lines, and of the background."""

    ink: str
    muted: str
    paper: str


ENDINGS = (".svg", ".png", "-dark.png")
"""The ends of the names of a picture's files."""

LIGHT = Theme("#1b1f24", "#7a828c", "#ffffff")
DARK = Theme("#e6e9ee", "#98a2ad", "#12161c")


@dataclass(frozen=True)
class Picture:
    """One picture in all its formats. The SVG follows the reader's light or dark mode; a PNG is made for each mode."""

    name: str
    title: str
    caption: str
    svg: str
    png: bytes
    png_dark: bytes

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the SVG in the pixels of a browser, of which four are three points."""
        found = dict(
            re.findall(r'\b(width|height)="([\d.]+)pt"', self.svg[: self.svg.index(">", self.svg.index("<svg"))])
        )
        return round(float(found["width"]) * 4 / 3), round(float(found["height"]) * 4 / 3)

    @property
    def files(self) -> dict[str, str | bytes]:
        """The content of each file by its name relative to the output folder."""
        contents: tuple[str | bytes, ...] = (self.svg, self.png, self.png_dark)
        return {f"figures/{self.name}{ending}": content for ending, content in zip(ENDINGS, contents, strict=True)}


@dataclass(frozen=True)
class Drawing:
    """A picture that is not drawn yet."""

    name: str
    title: str
    caption: str
    draw: Callable[[], Figure]


@dataclass(frozen=True)
class Style:
    """The color, marker and line style of one model; `featured` where the color is its own."""

    color: str
    marker: str
    line: Any
    featured: bool

    @property
    def points(self) -> dict[str, Any]:
        """The keyword arguments of matplotlib for a line with a marker at each point."""
        look = {"color": self.color, "marker": self.marker, "linestyle": self.line}
        return {**look, "markersize": 3, "linewidth": 1}


def have_matplotlib() -> bool:
    """Whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def refuse_if_not_drawable(plot: Path) -> None:
    """Check, before work begins, that a picture can be drawn into this file. Raises UserError where it cannot."""
    if plot.suffix not in (".svg", ".png"):
        raise UserError(f"--plot writes .svg or .png, got {plot.name!r}.")
    if not have_matplotlib():
        raise UserError("--plot needs matplotlib. Type: pip install matplotlib.")


def write_picture(picture: Picture, plot: Path) -> None:
    """Write a picture to a file of its own, in the format of the file's name."""
    write_atomically(plot, picture.png if plot.suffix == ".png" else picture.svg)


def styles(models: Sequence[str], featured: Sequence[str]) -> dict[str, Style]:
    """Return the style of each model, which is the same in every picture made with the same featured models."""
    found = {model: Style(LIGHT.muted, "o", "-", False) for model in models}
    for i, model in enumerate(sorted(featured)):
        line = LINES[(i // len(COLORS)) % len(LINES)]
        found[model] = Style(COLORS[i % len(COLORS)], MARKERS[i % len(MARKERS)], line, True)
    return found


def panels(width: float, height: float, rows: int, columns: int, **sharing: Any) -> tuple[Figure, list[Axes]]:
    """Return an empty figure, `width` by `height` inches, and its axes row by row, with a light grid and no boxes."""
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
    """Return a name from a record as one line of at most 32 characters."""
    line = one_line(name)
    return line if len(line) <= 32 else line[:31] + "…"


def length_axis(axis: Axis) -> None:
    """Write the ticks of an axis of lengths in powers of two: 512, 1k = 1,024, 1M = 1,048,576."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axis.set_major_locator(LogLocator(base=2, numticks=7))
    axis.set_major_formatter(FuncFormatter(lambda value, _: _short(value, 2**10)))
    axis.set_minor_locator(NullLocator())


def log_axis(axis: Axis) -> None:
    """Put the ticks of a logarithmic axis at 1, 2 and 5 of each decade, written as 0.5, 500, 2k, 5M."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=5))
    axis.set_major_formatter(FuncFormatter(lambda value, _: _short(value, 10**3)))
    axis.set_minor_locator(NullLocator())


def _short(value: float, kilo: int) -> str:
    """Return `value` with a letter for a power of `kilo`, as in 2k."""
    for letter, unit in (("G", kilo**3), ("M", kilo**2), ("k", kilo)):
        if value >= unit:
            return f"{value / unit:g}{letter}"
    return f"{value:g}"


def legend(made: Figure, axes: Sequence[Axes], columns: int = 6) -> None:
    """Draw one legend under all panels, with each label once, in alphabetical order."""
    entries = {label: handle for ax in axes for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    if entries:
        labels = sorted(entries)
        handles = [entries[label] for label in labels]
        made.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False, labelcolor=LIGHT.ink)


def thinned(points: Sequence[T], most: int = 60) -> list[T]:
    """Return at most `most` of the points, evenly spaced, always with the last one."""
    step = max(1, math.ceil(len(points) / most))
    return list(points[len(points) - 1 :: -step])[::-1] if points else []


def render(drawing: Drawing, stamp: str = "") -> Picture:
    """Return the picture in every format, with a `stamp` in the metadata of each file.

    The same input gives the same bytes with the same version of matplotlib: the files have fixed ids and no dates.
    """
    import matplotlib

    settings: dict[Any, Any] = {
        "svg.hashsalt": drawing.name,
        "font.family": "DejaVu Sans",
        "font.size": 7.5,
        "text.hinting": "none",
        "text.parse_math": False,  # a model's name may contain a $
        "axes.titlesize": 8,
        "axes.labelsize": 7.5,
        "legend.fontsize": 7,
        **dict.fromkeys(("text.color", "axes.labelcolor", "axes.titlecolor"), LIGHT.ink),
    }
    with matplotlib.rc_context(settings):
        made = drawing.draw()
        made.draw_without_rendering()
        made.draw_without_rendering()  # the first pass measures long tick labels, the second makes room for them
        made.set_layout_engine("none")  # keeps the same layout for all three files
        svg, png = _svg(made, drawing.title, stamp), _png(made, stamp)
        darken(made)
        return Picture(drawing.name, drawing.title, drawing.caption, svg, png, _png(made, stamp))


def darken(made: Figure) -> None:
    """Change the theme colors of everything drawn to those of dark mode, and leave the models' colors."""
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
    # findobj does not find the boxes behind texts.
    behind = [artist.get_bbox_patch() for artist in artists if isinstance(artist, Text)]
    for artist in [*artists, *(patch for patch in behind if patch is not None)]:
        if isinstance(artist, Text | Line2D):
            artist.set_color(turned(artist.get_color()))
        elif isinstance(artist, Patch):
            artist.set_facecolor(turned(artist.get_facecolor()))
            artist.set_edgecolor(turned(artist.get_edgecolor()))
        elif isinstance(artist, Collection):
            artist.set_facecolor([turned(color) for color in artist.get_facecolor()])
            artist.set_edgecolor([turned(color) for color in artist.get_edgecolor()])


def _png(made: Figure, stamp: str) -> bytes:
    """Return the figure as PNG without the version of matplotlib."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    out = io.BytesIO()
    # Unlike savefig, this draws once: the layout is fixed already.
    FigureCanvasAgg(made).print_png(out, metadata={"Software": None, "Comment": stamp or None})
    return out.getvalue()


def _svg(made: Figure, title: str, stamp: str) -> str:
    """Return the figure as SVG whose theme colors change in dark mode."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    out = io.StringIO()
    metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    FigureCanvasSVG(made).print_svg(out, metadata={**metadata, "Identifier": stamp or None})
    made.set_dpi(PNG_DPI)  # it was changed for the SVG
    rules = "".join(
        f'[style*="{kind}: {light}"]{{{kind}:{dark} !important}}'
        for light, dark in zip(astuple(LIGHT), astuple(DARK), strict=True)
        for kind in ("fill", "stroke")
    )
    head = f"<title>{escape(title)}</title><style>@media (prefers-color-scheme: dark){{{rules}}}</style>"
    return re.sub(r"(<svg\b[^>]*>)", lambda found: found[1] + head, out.getvalue(), count=1)
