"""The packed arrays that training reads: `packed/<split>/{inputs,lengths,labels}.npy`.

They are written row by row and checked against the manifest when they are opened.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from lra_bench.data.manifest import Manifest, PackedFile, load_manifest, prepare_again
from lra_bench.datasource import Layout, PlacedRows, Rows
from lra_bench.errors import UserError
from lra_bench.spec import SPLITS, SplitName

ARRAYS: dict[str, DTypeLike] = {"inputs": np.uint8, "lengths": np.int32, "labels": np.int32}
"""The arrays of a split and their types on disk."""

READ_ROWS = 2_000
"""The number of rows that are read at a time."""

PIECE = 1 << 22
"""The number of bytes that are hashed at a time."""


class PackedSplit(NamedTuple):
    """The arrays of one split, read-only.

    `inputs` is uint8 (n, L), (n, 2, L) or (n, L, 3), `lengths` int32 (n,) or (n, 2), `labels` int32 (n,).
    """

    inputs: NDArray[np.uint8]
    lengths: NDArray[np.int32]
    labels: NDArray[np.int32]

    def batches(self) -> Iterator[tuple[int, Rows]]:
        """Yield all rows in order, `READ_ROWS` at a time, with the number of each batch's first row."""
        for start in range(0, len(self.labels), READ_ROWS):
            part = slice(start, start + READ_ROWS)
            yield (
                start,
                Rows(np.asarray(self.inputs[part]), np.asarray(self.lengths[part]), np.asarray(self.labels[part])),
            )


def relative_path(split: SplitName, array: str) -> str:
    """Return the path of an array relative to the prepared folder."""
    return f"packed/{split}/{array}.npy"


def shape_of(layout: Layout, split: SplitName, array: str) -> tuple[int, ...]:
    """Return the shape of an array: inputs (n, L), (n, 2, L) or (n, L, 3), lengths (n,) or (n, 2), labels (n,)."""
    n = layout.counts[split]
    documents = () if layout.documents == 1 else (layout.documents,)
    return {"inputs": (n, *layout.row_shape), "lengths": (n, *documents), "labels": (n,)}[array]


def open_split(folder: Path, split: SplitName) -> PackedSplit:
    """Memory-map one split of a prepared folder. Raises UserError if the manifest and the arrays disagree."""
    return open_arrays(folder, load_manifest(folder), split)


def open_arrays(folder: Path, manifest: Manifest, split: SplitName) -> PackedSplit:
    """Memory-map one split like `open_split`, with a manifest that was already read."""
    recorded = {file.path: file for file in manifest.packed}
    arrays = []
    for array, dtype in ARRAYS.items():
        name = relative_path(split, array)
        path = folder / name
        expected = shape_of(manifest.layout, split, array)
        try:
            size = path.stat().st_size
            data = np.load(path, mmap_mode="r")
        except Exception as error:  # numpy evaluates the header, and has no common error for what is none
            why = str(error).partition("\n")[0]
            raise disagrees(folder, manifest, f"{name} cannot be read ({type(error).__name__}: {why})") from None
        if name not in recorded or recorded[name].bytes != size:
            raise disagrees(folder, manifest, f"{name} has {size:,} bytes")
        if data.shape != expected or data.dtype != dtype:
            raise disagrees(folder, manifest, f"{name} is {data.dtype} {data.shape}, not {np.dtype(dtype)} {expected}")
        if not data.flags.c_contiguous:
            raise disagrees(folder, manifest, f"{name} is stored by columns")
        arrays.append(data)
    return PackedSplit(*arrays)


def disagrees(folder: Path, manifest: Manifest, what: str) -> UserError:
    """Return the error for a prepared folder whose arrays are not those of its manifest."""
    return UserError(f"{folder} disagrees with its manifest: {what}. {prepare_again(folder, manifest.model_dump())}")


def _reserve(file: BinaryIO, size: int) -> None:
    """Give `file` this size in bytes, and reserve the disk space if the file system supports it."""
    if hasattr(os, "posix_fallocate") and size > os.fstat(file.fileno()).st_size:
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                raise
    file.truncate(size)


class PackedWriter:
    """A writer of the arrays of all splits, as files of their final size, filled row by row in any order.

    It writes with `pwrite` and not through a memory map. A full disk is then an OSError and not a signal that kills the
    process. Disk space is reserved first if the file system supports it, so that a full disk is reported at the start.
    """

    def __init__(self, folder: Path, layout: Layout) -> None:
        """Create or reopen the files below `folder`. Raises OSError if the disk is full."""
        self.layout = layout
        self._files: dict[tuple[SplitName, str], BinaryIO] = {}
        self._offsets: dict[tuple[SplitName, str], int] = {}
        self._touched: set[tuple[SplitName, str]] = set()
        try:
            for split in SPLITS:
                for array, dtype in ARRAYS.items():
                    self._open(folder, split, array, np.dtype(dtype))
        except BaseException:
            self.close()
            raise

    def _open(self, folder: Path, split: SplitName, array: str, dtype: np.dtype) -> None:
        path = folder / relative_path(split, array)
        path.parent.mkdir(parents=True, exist_ok=True)
        shape = shape_of(self.layout, split, array)
        file = path.open("r+b" if path.exists() else "w+b", buffering=0)
        self._files[split, array] = file
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        self._offsets[split, array] = file.tell()
        size = file.tell() + int(np.prod(shape)) * dtype.itemsize
        _reserve(file, size)
        self._touched.add((split, array))

    def write(self, placed: PlacedRows) -> None:
        """Write rows at their global indices."""
        starts = self.layout.starts
        for split in SPLITS:
            here = (placed.indices >= starts[split]) & (placed.indices < starts[split] + self.layout.counts[split])
            if not here.any():
                continue
            rows = placed.indices[here] - starts[split]
            cuts = np.flatnonzero(np.diff(rows) != 1) + 1  # rows between two cuts are contiguous: one write each
            for array in ARRAYS:
                values = np.ascontiguousarray(getattr(placed.rows, array)[here], ARRAYS[array])
                for run, data in zip(np.split(rows, cuts), np.split(values, cuts), strict=True):
                    self._write_run(split, array, int(run[0]), data)
                self._touched.add((split, array))

    def _write_run(self, split: SplitName, array: str, first: int, data: NDArray) -> None:
        stride = data[0].nbytes
        view, at = data.reshape(-1).view(np.uint8).data, self._offsets[split, array] + first * stride
        while view:  # `pwrite` may write less than it was given
            written = os.pwrite(self._files[split, array].fileno(), view, at)
            view, at = view[written:], at + written

    def read(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Return the inputs of the global indices start … stop − 1 as written so far, uint8 (n, values of a row)."""
        width = int(np.prod(self.layout.row_shape))
        parts = []
        for split in SPLITS:
            first = max(start - self.layout.starts[split], 0)
            last = min(stop - self.layout.starts[split], self.layout.counts[split])
            if first < last:
                offset = self._offsets[split, "inputs"] + first * width
                parts.append(os.pread(self._files[split, "inputs"].fileno(), (last - first) * width, offset))
        return np.frombuffer(b"".join(parts), np.uint8).reshape(-1, width)

    def sync(self) -> None:
        """Wait until everything written so far is on the disk."""
        for key in self._touched:
            os.fsync(self._files[key].fileno())
        self._touched.clear()

    def close(self) -> None:
        """Close all files."""
        for file in self._files.values():
            file.close()


def describe(folder: Path) -> list[PackedFile]:
    """Return the size and the hashes of every packed array below `folder`. Each file is read once."""
    return [describe_file(folder, relative_path(split, array)) for split in SPLITS for array in ARRAYS]


def describe_file(folder: Path, name: str) -> PackedFile:
    """Return the size and the hashes of one packed array; `name` is its path relative to `folder`."""
    whole, data = hashlib.sha256(), hashlib.sha256()
    path = folder / name
    with path.open("rb") as file:
        header = _header_bytes(file)
        file.seek(0)
        whole.update(file.read(header))
        while piece := file.read(PIECE):
            whole.update(piece)
            data.update(piece)
    return PackedFile(path=name, bytes=path.stat().st_size, sha256=whole.hexdigest(), data_sha256=data.hexdigest())


def hash_data(path: Path, on_bytes: Callable[[int], None]) -> str:
    """Return the SHA-256 of what follows the header of a packed array: `data_sha256`, which the fingerprint is made of.

    `on_bytes` is called with the number of bytes of each piece that is done.
    """
    data = hashlib.sha256()
    with path.open("rb") as file:
        _header_bytes(file)
        while piece := file.read(PIECE):
            data.update(piece)
            on_bytes(len(piece))
    return data.hexdigest()


def _header_bytes(file: BinaryIO) -> int:
    """Read the header of a packed array and return its size in bytes."""
    np.lib.format.read_magic(file)
    np.lib.format.read_array_header_1_0(file)
    return file.tell()


def majority_share(labels: NDArray[np.int32]) -> float:
    """Return the fraction of the labels (n,) that belong to the most frequent class."""
    return float(np.bincount(labels).max() / len(labels))
