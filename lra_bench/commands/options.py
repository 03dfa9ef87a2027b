"""The options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ResultsDir = Annotated[Path, typer.Option("--results-dir", help="The folder of result records to read and write.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Remat = Annotated[
    bool,
    typer.Option(
        "--remat",
        help="Keep only the input of each block and compute the rest again in the backward pass: half the memory for "
        "a third to a half more time.",
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change a setting of the recipe, as in --set n_layers=4. May be repeated."
    ),
]
PROTOCOL_HELP = "Tokens and splits as in S4 and S5 (s4), or as in the LRA paper (lra)."
