"""A prepared set in one small file, for a machine that cannot prepare it itself.

    python benchmarks/rented/carried.py pack FOLDER FILE       # a prepared folder, as `lra-bench prepare` prints it
    python benchmarks/rented/carried.py unpack FILE            # into LRA_BENCH_HOME, under the same name

Padding is left out, and pixels are stored as mixed second differences, which are small numbers. The rest is xz. The
TFDS dataset is not carried. Unpacked arrays must have the hashes of the manifest.
"""

from __future__ import annotations

import io
import json
import lzma
import math
import os
import shutil
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lra_bench.data.build import copy_test_to_validation
from lra_bench.data.manifest import FILE, Manifest, load_manifest, manifest_text
from lra_bench.data.packed import ARRAYS, describe, open_split, relative_path, shape_of
from lra_bench.errors import UserError, WorkError
from lra_bench.json_files import parse_json
from lra_bench.paths import data_folder, write_atomically
from lra_bench.spec import SPLITS, SplitName

PIECE = 1 << 24
"""The bytes that are compressed together. Smaller pieces decompress on more cores, but are 5 % larger at 4 MiB."""

FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 6, "lc": 4, "pb": 0}]
"""The settings of xz for single bytes, which have no alignment."""


def compressed(content: bytes) -> bytes:
    """Return the content as an xz file."""
    return lzma.compress(content, filters=FILTERS)


def carried_splits(manifest: Manifest) -> list[SplitName]:
    """The splits that are stored: not a validation split that is a copy of the test split."""
    return [split for split in SPLITS if not (split == "val" and manifest.validation_is_test)]


def differences(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the differences along both axes of square images (n, L) or (n, L, 3), modulo 256, of the same shape.

    Of a length that is no square, as of images with noise after them, they are along the length alone.
    """
    images = _in_two_axes(pixels)
    for axis in (1, 2):
        images = np.diff(images, axis=axis, prepend=np.uint8(0))
    return images.reshape(pixels.shape)


def sums(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Undo `differences`."""
    images = _in_two_axes(values)
    for axis in (1, 2):
        images = np.cumsum(images, axis=axis, dtype=np.uint8)
    return images.reshape(values.shape)


def _in_two_axes(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    n, L, *channels = values.shape
    side = math.isqrt(L)
    return values.reshape(n, *((side, side) if side**2 == L else (1, L)), *channels)


def pack(folder: Path, file: Path) -> None:
    """Write the prepared set in `folder` to `file`."""
    manifest = load_manifest(folder)
    with tarfile.open(file, "w") as archive, ThreadPoolExecutor(os.cpu_count()) as pool:

        def add(name: str, content: bytes) -> None:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))

        add("name.json", json.dumps([manifest.task, folder.name]).encode())
        add(FILE, manifest_text(manifest.model_copy(update={"tfds": False})).encode())
        for split in carried_splits(manifest):
            rows = open_split(folder, split)
            inputs = np.asarray(rows.inputs)
            if manifest.vocabulary is None:
                inputs = differences(inputs)
            stored = {
                "inputs": inputs[_inside(manifest, rows.lengths)].tobytes(),
                "lengths": np.asarray(rows.lengths).tobytes(),
                "labels": np.asarray(rows.labels).tobytes(),
            }
            for array, content in stored.items():
                pieces = [content[at : at + PIECE] for at in range(0, len(content), PIECE)]
                for number, piece in enumerate(pool.map(compressed, pieces)):
                    add(f"{split}/{array}/{number:04}", piece)


def unpack(file: Path) -> Path:
    """Write the prepared set in `file` to its place below LRA_BENCH_HOME and return its folder.

    Raises WorkError where the arrays do not have the manifest's hashes.
    """
    with tarfile.open(file) as archive, ThreadPoolExecutor(os.cpu_count()) as pool:
        members = {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]
        task, name = parse_json(members["name.json"], f"name.json in {file}")
        folder = data_folder() / task / name
        if (folder / FILE).exists():
            return folder
        partial = folder.with_name(f".{name}.carried")
        shutil.rmtree(partial, ignore_errors=True)
        values = parse_json(members[FILE], f"{FILE} in {file}", control_characters=True)
        manifest = Manifest.model_validate(values, strict=True)
        for split in carried_splits(manifest):
            stored = {}
            for array in ARRAYS:
                names = sorted(name for name in members if name.startswith(f"{split}/{array}/"))
                stored[array] = b"".join(pool.map(lzma.decompress, [members[name] for name in names]))
            _write_split(partial, manifest, split, stored)
    if manifest.validation_is_test:
        (partial / relative_path("val", "inputs")).parent.mkdir(parents=True)
        copy_test_to_validation(partial)
    if describe(partial) != manifest.packed:
        raise WorkError(f"{file} is damaged: its arrays do not have the hashes of its manifest. Pack it again.")
    write_atomically(partial / FILE, members[FILE])
    partial.replace(folder)
    return folder


def _write_split(partial: Path, manifest: Manifest, split: SplitName, stored: dict[str, bytes]) -> None:
    lengths = np.frombuffer(stored["lengths"], np.int32).reshape(shape_of(manifest.layout, split, "lengths"))
    inputs = np.zeros(shape_of(manifest.layout, split, "inputs"), np.uint8)
    inside = _inside(manifest, lengths)
    inputs[inside] = np.frombuffer(stored["inputs"], np.uint8).reshape(-1, *inputs.shape[inside.ndim :])
    if manifest.vocabulary is None:
        inputs = sums(inputs)
    arrays = {"inputs": inputs, "lengths": lengths, "labels": np.frombuffer(stored["labels"], np.int32)}
    for array, values in arrays.items():
        path = partial / relative_path(split, array)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as out:
            kind = np.lib.format.dtype_to_descr(values.dtype)
            header = {"descr": kind, "fortran_order": False, "shape": values.shape}
            np.lib.format.write_array_header_1_0(out, header)
            out.write(values.tobytes())


def _inside(manifest: Manifest, lengths: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Where inputs are not padding, of the inputs' shape without channels."""
    return np.arange(manifest.length) < np.asarray(lengths)[..., None]


if __name__ == "__main__":
    try:
        match sys.argv[1:]:
            case ["pack", folder, file]:
                pack(Path(folder), Path(file))
            case ["unpack", file]:
                print(unpack(Path(file)))
            case _:
                raise SystemExit(__doc__)
    except (UserError, WorkError, OSError) as error:
        raise SystemExit(f"carried.py: {error}") from None
