"""The stamp of the figures: a digest of what they are drawn from, in the metadata of each file.

So `report --check` finds figures that are out of date without drawing them again. The digest is over the records, the
choice of them and the code that draws, and not over the version of matplotlib: it is the same on every machine.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Sequence
from functools import cache
from hashlib import sha256
from importlib.resources import files
from pathlib import Path

from lra_bench.report.drawing import ENDINGS, Drawing
from lra_bench.report.select import Loaded, SelectedRecords

CODE = (
    *("drawing.py", "figures.py", "fitting.py", "published.json", "published.py", "select.py", "speed.py"),
    *("speed_figures.py", "stamp.py", "statistics.py", "table.py", "tested.py", "window_figures.py"),
)
"""The files of the report that decide what is drawn."""

_IN_PAGE = re.compile(rb"data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)")


def stamp_of(chosen: SelectedRecords, loaded: Sequence[Loaded]) -> str:
    """Return the digest of the figures of these records, 64 hex digits."""
    found = sha256(_code().encode())
    for item in sorted(loaded, key=lambda item: item.id):
        found.update(f"{item.id}\n{item.record.model_dump_json()}\n".encode())
    for key, runs in sorted(chosen.cells.items()):
        found.update(f"{key}: {[run.id for run in runs]}\n".encode())
    return found.hexdigest()


@cache
def _code() -> str:
    """The digest of the code that draws."""
    package = files("lra_bench.report")
    return sha256(b"".join(package.joinpath(name).read_bytes() for name in CODE)).hexdigest()


def outdated(drawings: Sequence[Drawing], stamp: str, folder: Path) -> list[str]:
    """Return what is wrong with the figures in a report's folder, and with those in its page.

    That is nothing where there are no figures: a report without matplotlib has none.
    """
    here = {f"figures/{path.name}" for path in (folder / "figures").glob("*") if path.suffix in (".svg", ".png")}
    if not here:
        return []
    wrong, expected = [], [f"figures/{drawing.name}{ending}" for drawing in drawings for ending in ENDINGS]
    for name in expected:
        if name not in here:
            wrong.append(f"{name} is missing")
        elif stamp.encode() not in (folder / name).read_bytes():
            wrong.append(f"{name} was drawn from other records or by other code")
    wrong += [f"{name} has no records, so remove it" for name in sorted(here.difference(expected))]
    page = folder / "report.html"
    inside = _IN_PAGE.findall(page.read_bytes()) if page.is_file() else []
    if any(stamp.encode() not in b64decode(picture) for picture in inside):
        wrong.append("the pictures in report.html were drawn from other records or by other code")
    return wrong
