"""Runs on the move: packed into small files on one machine, unpacked and continued on the next.

For rented accelerators that keep nothing. A run's folder is small (parameters, optimiser, metrics), but the way in
and out may take only small files, so a bundle is a compressed tar cut into parts. Data is not carried: it is prepared
again, or copied.
"""

from __future__ import annotations

import io
import lzma
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from lra_bench import UserError
from lra_bench.home import runs_folder
from lra_bench.run import all_runs, find_run

PART_BYTES = 15 * 2**20
"""Below the 16 MiB a file that file transfers of lent machines allow."""
KEPT = ("run.json", "result.json", "metrics.jsonl")


def carry_out(folder: Path, names: Sequence[str] = (), part_bytes: int = PART_BYTES) -> list[Path]:
    """Pack the runs called `names` (default: all of this machine) into `folder` as runs.tar.xz.000, .001, …

    A finished run travels without its checkpoint to resume from. Earlier parts in `folder` are replaced.
    Raises UserError when there is nothing to pack.
    """
    runs = [find_run(name) for name in names] or all_runs()
    if not runs:
        raise UserError("there is no run to carry out. Train one: lra-bench train --model s5-ptd --smoke.")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for run in runs:
            for path in _files(run):
                archive.add(path, arcname=path.relative_to(runs_folder()).as_posix())
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("runs.tar.xz.*"):
        old.unlink()
    content, parts = lzma.compress(packed.getvalue()), []
    for number, start in enumerate(range(0, len(content), part_bytes)):
        part = folder / f"runs.tar.xz.{number:03d}"
        part.write_bytes(content[start : start + part_bytes])
        parts.append(part)
    return parts


def _files(run: Path) -> Iterable[Path]:
    """What continuing or evaluating the run needs."""
    finished = (run / "result.json").exists()
    wanted = [run / name for name in KEPT] + [run / "checkpoints" / "best"]
    if not finished:
        wanted.append(run / "checkpoints" / "last")
    for path in wanted:
        if path.is_dir():
            yield from sorted(path.rglob("*"))
        elif path.exists():
            yield path


def carry_in(folder: Path) -> list[Path]:
    """Unpack the parts in `folder` into this machine's runs; a run that is here already and finished is left alone.

    Raises UserError when a part is missing or damaged, or the archive holds anything but runs.
    """
    parts = sorted(folder.glob("runs.tar.xz.*"))
    expected = [f"runs.tar.xz.{number:03d}" for number in range(len(parts))]
    if not parts or [part.name for part in parts] != expected:
        raise UserError(
            f"{folder} does not hold runs.tar.xz.000 and what follows it; `lra-bench carry out` writes them."
        )
    try:
        content = lzma.decompress(b"".join(part.read_bytes() for part in parts))
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
            members = [member for member in archive.getmembers() if _wanted(member)]
            archive.extractall(runs_folder(), members=members, filter="data")
    except (lzma.LZMAError, tarfile.TarError) as error:
        raise UserError(f"the bundle in {folder} is damaged ({error}). Carry it out again.") from None
    return sorted({runs_folder().joinpath(*PurePosixPath(member.name).parts[:3]) for member in members})


def _wanted(member: tarfile.TarInfo) -> bool:
    """Whether to unpack it. Raises UserError for what carry_out never packs."""
    parts = PurePosixPath(member.name).parts
    legal = len(parts) >= 4 and ".." not in parts and parts[3] in (*KEPT, "checkpoints")
    if not legal or not (member.isfile() or member.isdir()):
        raise UserError(f"{member.name!r} is no file of a run; nothing was unpacked.")
    return not runs_folder().joinpath(*parts[:3], "result.json").exists()
