"""The check, before training or evaluation, that the packed arrays are those that `prepare` wrote.

Every array is hashed once. The hashes are kept in the cache folder with the inode, the size and the times of each file,
so that a later start hashes only what was touched since.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from lra_bench.data.manifest import Manifest, load_manifest
from lra_bench.data.packed import ARRAYS, PackedSplit, disagrees, hash_data, open_arrays, relative_path
from lra_bench.errors import UserError
from lra_bench.paths import cache_folder, write_atomically
from lra_bench.progress import Progress, print_line
from lra_bench.spec import SPLITS, Frozen, SplitName

Marks = tuple[int, int, int, int]
"""The inode of a file, its size in bytes, and the times in ns of the last change of its content and of its entry."""


class _Hashed(Frozen):
    """The hash of a packed array's data, and the marks that tell whether the file was touched since."""

    marks: Marks | None
    data_sha256: str


_CACHE: TypeAdapter[dict[str, _Hashed]] = TypeAdapter(dict[str, _Hashed])
"""The content of a cache file: the arrays of one prepared folder that were hashed, by their paths in it."""


def open_checked(folder: Path, fingerprint: str) -> dict[SplitName, PackedSplit]:
    """Memory-map all splits of a prepared folder, after a check that they are what was prepared.

    Raises UserError if the manifest was changed, its fingerprint is not `fingerprint`, or an array is not the one that
    it describes.
    """
    manifest = load_manifest(folder)
    if manifest.manifest_sha256 is None:
        print_line(
            f"{folder} was prepared by an earlier lra-bench, whose manifest has no SHA-256, and is read unchecked."
        )
    if manifest.fingerprint != fingerprint:
        raise UserError(
            f"{folder} now has the fingerprint {manifest.fingerprint}, and the run was planned for {fingerprint}: the "
            "data was prepared anew meanwhile. Type the same again."
        )
    splits: dict[SplitName, PackedSplit] = {split: open_arrays(folder, manifest, split) for split in SPLITS}
    _check_hashes(folder, manifest)
    return splits


def _check_hashes(folder: Path, manifest: Manifest) -> None:
    """Check the SHA-256 of every packed array's data. Raises UserError, naming the first that has another.

    The files' headers need none: `open_arrays` has compared all that they say.
    """
    file = cache_folder() / "packed-hashes" / manifest.task / f"{folder.name}.json"
    arrays = {relative_path(split, array) for split in SPLITS for array in ARRAYS}
    known = {name: hashed for name, hashed in _read(file).items() if hashed.marks == _marks(folder / name)}
    # A damaged cache must not refuse good data: what it calls wrong is hashed again.
    unknown = [
        packed
        for packed in manifest.packed
        if packed.path in arrays and (packed.path not in known or known[packed.path].data_sha256 != packed.data_sha256)
    ]
    if not unknown:
        return
    total = sum(packed.bytes for packed in unknown)
    with Progress(f"{manifest.task}: checking the prepared data", total=total, unit="B", first_line=1.0) as progress:
        for packed in unknown:
            path = folder / packed.path
            known[packed.path] = _Hashed(marks=_marks(path), data_sha256=hash_data(path, progress.advance))
            if known[packed.path].data_sha256 != packed.data_sha256:
                raise disagrees(folder, manifest, f"{packed.path} has another SHA-256")
    with contextlib.suppress(OSError):  # then the next start hashes again
        write_atomically(file, _CACHE.dump_json(known, indent=1) + b"\n")


def _read(file: Path) -> dict[str, _Hashed]:
    """Return the entries of a cache file; none if it is missing or damaged, because it can be made again."""
    try:
        return _CACHE.validate_json(file.read_bytes())
    except (OSError, ValidationError):
        return {}


def _marks(path: Path) -> Marks | None:
    """Return the marks of a file, of which no program sets the last time back; None if there is no such file."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
