"""Reading of CIFAR-10, binary version or parquet, as records in the order of the binary version's six files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lra_bench.data.raw.archive import files, need_regular, whole
from lra_bench.data.raw.png import LARGEST, color_planes
from lra_bench.errors import UserError

SIDE = 32
"""The side of an image in pixels."""

RECORD = 1 + 3 * SIDE * SIDE
"""The bytes of one record: the label, then the planes of red, green and blue."""

FILE_ROWS = 10_000
"""The number of records in a file."""

TRAIN_FILES = 5
"""The number of training files. They have the numbers 0 … 4 here; number 5 is the test set."""

ARCHIVE = "cifar-10-binary.tar.gz"
FOLDER = "cifar-10-batches-bin"
BINARY = (*(f"data_batch_{number}.bin" for number in range(1, TRAIN_FILES + 1)), "test_batch.bin")
PARQUET = ("train-00000-of-00001.parquet", "test-00000-of-00001.parquet")

FIRST_LABELS = (
    (6, 9, 9, 4, 1, 1, 2, 7, 8, 3, 4, 7, 7, 2, 9, 9, 9, 3, 2, 6),
    (1, 6, 6, 8, 8, 3, 4, 6, 0, 6, 0, 3, 6, 6, 5, 4, 8, 3, 2, 6),
    (8, 5, 0, 6, 9, 2, 8, 3, 6, 2, 7, 4, 6, 9, 0, 0, 7, 3, 7, 2),
    (0, 6, 0, 2, 7, 2, 1, 2, 4, 1, 5, 6, 6, 3, 1, 3, 5, 5, 8, 1),
    (1, 8, 5, 1, 5, 7, 4, 3, 8, 2, 7, 2, 0, 1, 5, 9, 6, 2, 0, 8),
    (3, 8, 8, 0, 6, 6, 1, 6, 3, 1, 0, 9, 5, 7, 9, 8, 5, 7, 8, 6),
)
"""The first labels of each file, by which it is recognized. Many public notebooks print them.

The split of S4 and S5 is over the files 1 … 5 in turn. Hugging Face's copy holds the same five in another order.
"""

MEANS = (0.4914 * 255, 0.4822 * 255, 0.4465 * 255)
"""The mean of red, green and blue in the training set, on the scale from 0 to 255, as state-spaces/s4 rounds them."""

DEVIATIONS = (0.247 * 255, 0.243 * 255, 0.261 * 255)
"""Their standard deviations over all pixels there. Other codes have those within images: 0.2023, 0.1994, 0.2010."""

UNPACKED = 160_000_000
"""The largest number of bytes that a parquet file may unpack to. The published one has 120 million."""

Records = Iterator[tuple[int, NDArray[np.uint8]]]
"""An iterator over file numbers and their rows, uint8 (n, RECORD)."""


def records(source: Path) -> Records:
    """Yield all six files in an order that is the same at every call.

    Raises UserError for a source that is not CIFAR-10 or not whole.
    """
    return _parquet(source) if _is_parquet(source) else _binary(source)


def locate(path: Path) -> list[Path]:
    """Find the files in or at `path`: the archive, or the six binary or two parquet files of one folder.

    Raises UserError if there are none.
    """
    if not path.is_dir():
        return [path]
    for folder, names in ((path, BINARY), (path / FOLDER, BINARY), (path, PARQUET), (path / "plain_text", PARQUET)):
        if all((folder / name).is_file() for name in names):
            return [folder / name for name in names]
    if (path / ARCHIVE).is_file():
        return [path / ARCHIVE]
    raise UserError(
        f"{path} holds neither {BINARY[0]} … {BINARY[-1]}, itself or in {FOLDER}, nor {ARCHIVE}, nor {PARQUET[0]}. "
        "The binary version of CIFAR-10 is read, not the one for Python or Matlab."
    )


def _is_parquet(source: Path) -> bool:
    return source.is_dir() and locate(source)[0].name == PARQUET[0]


def _number_of(name: str) -> int | None:
    base = re.split(r"[/\\]", name)[-1]
    return BINARY.index(base) if base in BINARY else None


def _binary(source: Path) -> Records:
    for name, content in files(source, lambda name: _number_of(name) is not None):
        number, where = _number_of(name), f"{source}: {name}"
        assert number is not None
        raw = whole(content, FILE_ROWS * RECORD, where)
        if not raw or len(raw) % RECORD:
            raise UserError(f"{where} has {len(raw):,} bytes, no multiple of {RECORD:,}: it is cut short.")
        rows = np.frombuffer(raw, np.uint8).reshape(-1, RECORD)
        if rows[:, 0].max() > 9 or (len(rows) == FILE_ROWS and not _begins(rows[:, 0], number)):
            raise UserError(f"{where} does not hold the labels of that file of CIFAR-10.")
        yield number, rows


def _begins(labels: NDArray[np.uint8], number: int) -> bool:
    expected = FIRST_LABELS[number]
    return labels[: len(expected)].tolist() == list(expected)


def _parquet(source: Path) -> Records:
    for name, numbers in zip(PARQUET, (range(TRAIN_FILES), range(TRAIN_FILES, TRAIN_FILES + 1)), strict=True):
        where = source / name
        labels, images = _columns(where, FILE_ROWS * len(numbers))
        for start in range(0, len(labels), FILE_ROWS):
            part = slice(start, start + FILE_ROWS)
            number = next((number for number in numbers if _begins(labels[part], number)), None)
            if number is None:
                raise UserError(f"{where}: rows {start:,} … are none of the files of CIFAR-10.")
            yield (
                number,
                np.stack([_record(f"{where}, row {i:,},", labels[i], next(images)) for i in _rows(labels, part)]),
            )


def _rows(labels: NDArray[np.uint8], part: slice) -> range:
    return range(*part.indices(len(labels)))


def _columns(where: Path, expected: int) -> tuple[NDArray[np.uint8], Iterator[bytes | None]]:
    """Return the labels of a parquet file, uint8 (expected,), and an iterator over its images as PNG files.

    What the file says of itself is checked before anything is read, because a small file can stand for gigabytes.
    Raises UserError for a file with other columns, types or numbers of rows.
    """
    from pyarrow import ArrowException

    need_regular(where)
    try:
        file = _checked(where, expected)
        labels = file.read(columns=["label"])["label"].to_numpy()
    except (ArrowException, OSError, ValueError) as error:
        raise _unreadable(where, error) from None
    if not ((labels >= 0) & (labels <= 9)).all():
        raise UserError(f"{where} has labels outside 0 … 9: it is not CIFAR-10.")
    return labels.astype(np.uint8), _images(where, file)


def _checked(where: Path, expected: int) -> Any:
    """Open a parquet file and check its rows, its size and the types of its columns."""
    from pyarrow import binary, large_binary, parquet, types

    file = parquet.ParquetFile(where)
    columns = {field.name: field.type for field in file.schema_arrow}
    missing = [name for name in ("img", "label") if name not in columns]
    if missing:
        raise UserError(f"{where} has no column {' and no column '.join(missing)}; found: {', '.join(columns)[:200]}.")
    image, png = columns["img"], None
    if types.is_struct(image) and image.get_field_index("bytes") >= 0:
        png = image.field("bytes").type
    if not types.is_integer(columns["label"]) or png not in (binary(), large_binary()):
        raise UserError(f"{where}: its columns are not the label as a whole number and the image as bytes and path.")
    rows = file.metadata.num_rows
    if rows != expected:
        raise UserError(f"{where} has {rows:,} rows; {expected:,} are expected.")
    groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
    if sum(group.num_rows for group in groups) != rows or sum(group.total_byte_size for group in groups) > UNPACKED:
        raise UserError(f"{where} unpacks to more than {UNPACKED:,} bytes: it is not CIFAR-10.")
    return file


def _images(where: Path, file: Any) -> Iterator[bytes | None]:
    """Yield the images as PNG files.

    They are read one at a time, because all rows of a file may name the same large image of a dictionary.
    """
    from pyarrow import ArrowException

    try:
        for batch in file.iter_batches(1, columns=["img.bytes"]):
            image = batch["img"].field("bytes")[0]
            if image.is_valid and len(image.as_buffer()) > LARGEST:
                raise UserError(f"{where} has an image of more than {LARGEST:,} bytes.")
            yield image.as_py()
    except (ArrowException, OSError, ValueError) as error:
        raise _unreadable(where, error) from None


def _unreadable(where: Path, error: Exception) -> UserError:
    return UserError(f"{where} cannot be read ({' '.join(str(error).split())[:200]}).")


def _record(where: str, label: np.uint8, png: bytes | None) -> NDArray[np.uint8]:
    if png is None:
        raise UserError(f"{where} has no image.")
    return np.concatenate([[label], color_planes(png, where, SIDE).ravel()]).astype(np.uint8)
