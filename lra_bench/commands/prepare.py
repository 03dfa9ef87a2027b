"""The command `lra-bench prepare`: download or generate the data of tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from lra_bench.commands.options import PROTOCOL_HELP


def prepare(
    tasks: Annotated[list[str], typer.Argument(help="Names of tasks, or `all` for the six.", metavar="TASK...")],
    source_path: Annotated[
        Path | None,
        typer.Option("--from", help="Read an archive or folder that you already have, as in --from lra_release.gz."),
    ] = None,
    source: Annotated[
        Literal["official", "mirror", "generated"] | None,
        typer.Option(
            help="Try this kind of source only. By default the official server, then a mirror, then made here."
        ),
    ] = None,
    protocol: Annotated[Literal["s4", "lra"], typer.Option(help=PROTOCOL_HELP)] = "s4",
    size: Annotated[
        str, typer.Option(help="How many examples: full as published, tiny for a trial, or a number.")
    ] = "full",
    seed: Annotated[int, typer.Option(min=0, help="The seed of the generators. Not used where files are read.")] = 0,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="The number of processes. The data does not depend on it.")
    ] = None,
    val_fraction: Annotated[
        float | None,
        typer.Option(
            min=0.01, max=0.5, help="Cut this share of the training split off as validation. Text has none of its own."
        ),
    ] = None,
    tfds: Annotated[
        bool, typer.Option("--tfds/--no-tfds", help="Also write a TFDS dataset, which training does not read.")
    ] = True,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be done, how large it is and how long it takes.")
    ] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Read what is prepared again and check it.")] = False,
) -> None:
    """Get or make the data of a task. The last line printed is its folder."""
    from lra_bench.data.prepare import prepare_each
    from lra_bench.registry import task_names

    prepare_each(
        task_names() if tasks == ["all"] else tasks,
        source_path=source_path,
        source=source,
        protocol=protocol,
        size=size,
        seed=seed,
        jobs=jobs,
        val_fraction=val_fraction,
        tfds=tfds,
        dry_run=dry_run,
        verify=verify,
    )
