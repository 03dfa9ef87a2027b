"""The task Image: classify CIFAR-10 in shades of gray, read pixel by pixel."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lra_bench.data.generators.tiny import TINY_SPLITS, Drawn, TinyGenerator
from lra_bench.data.raw import cifar
from lra_bench.data.raw.cifar import SIDE, TRAIN_FILES
from lra_bench.data.raw.pixels import shades
from lra_bench.data.raw.reading import BATCH, MANY, global_indices, no_val_fraction, wanted_counts
from lra_bench.data.raw.splits import tfds_order, torch_permutation
from lra_bench.datasource import Generator, Layout, Origin, PlacedRows, Reader, RemoteFile, Request, Rows
from lra_bench.errors import UserError
from lra_bench.spec import HealthMark, Protocol, Source, SplitName, Task

TASK = Task(
    name="image",
    title="Image",
    version="1.0.0",
    description="CIFAR-10 as sequences of 1,024 shades of gray; ten classes.",
    citation="Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009; "
    "Tay et al., Long Range Arena, ICLR 2021",
    inputs="pixels",
    documents=1,
    length=1_024,
    classes=10,
    variable_length=False,
    splits={"train": 45_000, "val": 5_000, "test": 10_000},
    majority=0.1,
    selects_on_test=False,
    column=4,
    like=None,
    health=(HealthMark(epoch=1, accuracy=40), HealthMark(epoch=20, accuracy=75)),
    official={"s4": "53b6601bed287557", "lra": "aee21e8020a119a8"},
)

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
"""The meaning of each label."""


_MIRROR = "https://huggingface.co/datasets/uoft-cs/cifar10/resolve/0b2714987fa478483af9968de7c934580d0bb9a2/plain_text"
_MIRROR_SHA256 = (
    "8428b53a88a11ac374111006708df51469e315a22ac6d66470afd9c78d2ae883",
    "841389e6f2d64f28bf17310e430aebac20ec3ba611a3c5e231dc93c645ce84de",
)

ORIGINS = (
    Origin(
        kind="official",
        name=cifar.ARCHIVE,
        files=(
            RemoteFile(
                f"https://www.cs.toronto.edu/~kriz/{cifar.ARCHIVE}",
                cifar.ARCHIVE,
                170_052_171,
                "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            ),
        ),
        note="170 MB; checksum as in TensorFlow Datasets' cifar10 3.0.2",
    ),
    Origin(
        kind="mirror",
        name="uoft-cs/cifar10 on Hugging Face",
        files=tuple(
            RemoteFile(f"{_MIRROR}/{name}", name, sha256=sha256)
            for name, sha256 in zip(cifar.PARQUET, _MIRROR_SHA256, strict=True)
        ),
        note="144 MB, the same images at a fixed revision, put back into the order of the binary files",
    ),
)


def gray_pil(colors: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Turn colors (n, 3, pixels) into shades of gray (n, pixels) exactly as PIL's `convert("L")`.

    S4 and S5 use that function.
    """
    red, green, blue = colors.astype(np.uint32).swapaxes(0, 1)
    return ((19595 * red + 38470 * green + 7471 * blue + 32768) >> 16).astype(np.uint8)


def gray_tf(colors: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Turn colors (n, 3, pixels) into shades of gray (n, pixels) as `tf.image.rgb_to_grayscale`.

    The official LRA uses that function. It computes in float32 and truncates. Its order of operations is kept: scale to
    [0, 1], weight, scale to [0, 255.5]. Another order changes 8 colors in a million by one.
    """
    red, green, blue = (colors.astype(np.float32) * np.float32(1 / 255)).swapaxes(0, 1)
    mixed = np.float32(0.2989) * red + np.float32(0.587) * green + np.float32(0.114) * blue
    return (mixed * np.float32(255.5)).astype(np.uint8)


def train_order(n: int, protocol: Protocol) -> NDArray[np.int64]:
    """Return the order of CIFAR's n training images, int64 (n,), whose last tenth is validation.

    s4 is S4's permutation of seed 42; lra is the order in which TFDS stores the images.
    """
    return torch_permutation(n) if protocol == "s4" else tfds_order(range(n), "train")


Conversion = Callable[[NDArray[np.uint8], NDArray[np.int64]], NDArray[np.uint8]]
"""A function from colors (n, 3, pixels) and the raw indices (n,) of the images to the inputs of examples."""


@dataclass(frozen=True)
class CifarReader:
    """A reader of CIFAR-10's files; see `lra_bench.datasource.Reader`.

    A raw index counts the images in the order of the six files of the binary version.
    """

    path: Path
    layout: Layout
    convert: Conversion
    first: tuple[int, ...]
    """The raw index of each file's first image."""
    index_of: NDArray[np.int64]
    """The global index of each raw image, −1 where it is left out."""
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def batches(self) -> Iterator[PlacedRows]:
        """Yield all examples; see `Reader.batches`."""
        for number, rows in cifar.records(self.path):
            indices = self.index_of[self.first[number] : self.first[number] + len(rows)]
            kept = np.flatnonzero(indices >= 0)
            for at in np.split(kept, range(BATCH, len(kept), BATCH)):
                if len(at):
                    yield PlacedRows(indices[at], self._rows(rows[at], self.first[number] + at))

    def _rows(self, rows: NDArray[np.uint8], raw: NDArray[np.int64]) -> Rows:
        inputs = self.convert(rows[:, 1:].reshape(len(rows), 3, -1), raw)
        return Rows(inputs, np.full(len(rows), self.layout.length, np.int32), rows[:, 0].astype(np.int32))


def read(
    path: Path,
    request: Request,
    task: Task,
    layout_of: Callable[[Mapping[SplitName, int]], Layout],
    convert: Conversion,
    parameters: Mapping[str, Any],
) -> CifarReader:
    """Open the archive or the extracted folder for a task of CIFAR-10's images; see `DataSource.read`."""
    found = cifar.locate(path)
    path = found[0] if len(found) == 1 else found[0].parent
    sizes = [0] * (TRAIN_FILES + 1)
    for number, rows in cifar.records(path):
        if sizes[number]:
            raise UserError(
                f"{path} holds the files of CIFAR-10 twice. Give the folder {cifar.FOLDER} itself, or the archive."
            )
        sizes[number] = len(rows)
    if not all(sizes):
        raise UserError(f"{path} lacks data_batch_1.bin … data_batch_5.bin or test_batch.bin: is it {cifar.ARCHIVE}?")
    n_train, n_test = sum(sizes[:TRAIN_FILES]), sizes[TRAIN_FILES]
    order = train_order(n_train, request.protocol)
    n_fit = int(n_train * 0.9)  # 45,000 of 50,000; the rest is val
    have: dict[SplitName, int] = {"train": n_fit, "val": n_train - n_fit, "test": n_test}
    counts = wanted_counts(request, task.splits, TINY_SPLITS, have, path)
    train, val, test = order[:n_fit], order[n_fit:], np.arange(n_train, n_train + n_test)
    chosen = [train[: counts["train"]], val[: counts["val"]], test[: counts["test"]]]
    first = tuple(np.cumsum([0, *sizes[:TRAIN_FILES]]).tolist())
    index_of = global_indices(n_train + n_test, chosen)
    return CifarReader(path, layout_of(counts), convert, first, index_of, parameters)


def layout_of(counts: Mapping[SplitName, int], length: int = SIDE * SIDE) -> Layout:
    """Return the layout of gray images of `length` pixels."""
    return Layout(counts, 1, length, TASK.classes, vocabulary=None)


TINY_SIDE = 16
"""The side of the made-up images in pixels."""


def draw_stripes(rng: np.random.Generator, layout: Layout) -> Drawn:
    """Draw noisy stripes. The class is their direction, a multiple of 18 degrees."""
    del layout  # `TinyGenerator.draw` demands it
    label = int(rng.integers(TASK.classes))
    angle, phase = label * np.pi / TASK.classes, rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[:TINY_SIDE, :TINY_SIDE]
    waves = np.sin((x * np.cos(angle) + y * np.sin(angle)) * 2 * np.pi / 6 + phase)
    noisy = 128 + 70 * waves + 25 * rng.standard_normal(waves.shape)
    return (np.clip(noisy, 0, 255).astype(np.uint8).ravel(),), label


MEAN, MEAN_RANGE = 122.6, 8.0
"""The mean shade of CIFAR-10, and how far that of `MANY` images may be from it: more than five standard errors."""

LARGEST_STEP = 20.0
"""The largest average difference of neighboring pixels.

CIFAR-10 has 13.5 along rows and 15.3 along columns, in every thousand images. Pixels in any order have 55.
"""


class ImageData:
    """The data source of Image; see `lra_bench.datasource.DataSource`."""

    origins = ORIGINS

    def locate(self, path: Path) -> list[Path]:
        """Find the raw files; see `DataSource.locate`."""
        return cifar.locate(path)

    def read(self, path: Path, request: Request) -> Reader:
        """Open the raw files; see `DataSource.read`."""
        no_val_fraction(request, TASK)
        gray = gray_pil if request.protocol == "s4" else gray_tf
        return read(path, request, TASK, layout_of, lambda colors, _: gray(colors), {})

    def generator(self, request: Request) -> Generator | None:
        """Return the generator; see `DataSource.generator`."""
        no_val_fraction(request, TASK)
        if request.size != "tiny":
            return None
        return TinyGenerator(layout_of(TINY_SPLITS, TINY_SIDE * TINY_SIDE), draw_stripes)

    def problems(self, layout: Layout, rows: Rows, source: Source) -> list[str]:
        """List images of one even shade, and files whose average is not that of CIFAR-10; see `DataSource.problems`."""
        del layout
        blank = rows.inputs.min(axis=1) == rows.inputs.max(axis=1)
        found = [f"row {row} is one even shade" for row in np.flatnonzero(blank)]
        if source == "generated" or len(rows.inputs) < MANY:
            return found
        pictures = rows.inputs.reshape(-1, SIDE, SIDE).astype(np.int16)
        mean = float(pictures.mean())
        down, across = (float(np.abs(np.diff(pictures, axis=axis)).mean()) for axis in (1, 2))
        if abs(mean - MEAN) > MEAN_RANGE:
            found.append(f"the mean shade of {len(pictures):,} images is {mean:.1f}; CIFAR-10 has {MEAN}")
        if max(across, down) > LARGEST_STEP:
            found.append(
                f"neighboring pixels of {len(pictures):,} images differ by {max(across, down):.1f} shades on average, "
                "those of CIFAR-10 by 15: the pixels are in another order"
            )
        elif across > down:
            found.append(f"{len(pictures):,} images change more along rows than along columns: they lie on their side")
        return found

    def decode(self, layout: Layout, inputs: NDArray[np.uint8], lengths: NDArray[np.int32]) -> str:
        """Return an image as lines of characters; see `DataSource.decode`."""
        del layout, lengths
        return shades(inputs)


DATA = ImageData()
