"""A folder for static hosting: index.html, which is the report's page, and the files that it links to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lra_bench.errors import UserError
from lra_bench.paths import write_atomically
from lra_bench.plain_text import one_line
from lra_bench.report.page import with_links

CARD = "results-card.md"

LINKED = {
    CARD: "Results card",
    "leaderboard.md": "Tables (Markdown)",
    "leaderboard.csv": "Accuracy (CSV)",
    "leaderboard.json": "All cells (JSON)",
    "leaderboard.tex": "Tables (LaTeX)",
}
"""The files beside index.html with the texts of their links."""


def refuse_if_not_own(site: Path) -> None:
    """Check that a folder is absent, empty, or holds only files of a site. Raises UserError where it is not."""
    if site.exists() and not site.is_dir():
        raise UserError(f"--site {one_line(str(site))} is a file. Name a folder that is empty or not there yet.")
    found = {path.name for path in site.glob("*")}
    others = sorted(found - {"index.html", *LINKED} if CARD in found else found)  # each site has a card
    if others:
        raise UserError(
            f"--site {one_line(str(site))} holds files that are no part of a site, such as {one_line(others[0])}. Name "
            "a folder that is empty or not there yet."
        )


def write_site(site: Path, files: Mapping[str, str | bytes], card: str) -> None:
    """Write index.html and what it links to into the folder `site`. `files` are those of the report by their names."""
    written = {CARD: card, **{name: files[name] for name in LINKED if name in files}}
    index = with_links(str(files["report.html"]), {name: LINKED[name] for name in LINKED if name in written})
    for name, content in {**written, "index.html": index}.items():
        write_atomically(site / name, content)
