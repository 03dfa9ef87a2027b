"""Pathfinder: do the two discs lie on the same dashed curve? 32 × 32 pixels. Made here, or read from LRA's images."""

from __future__ import annotations

import io
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from lra_bench.data.raw import lra_release
from lra_bench.data.raw.archive import files
from lra_bench.data.raw.pixels import shades
from lra_bench.data.raw.reading import Example, in_batches, no_val_fraction, places, wanted_counts
from lra_bench.data.raw.splits import tenths, tfds_order, torch_permutation
from lra_bench.datasource import Generator, Layout, PlacedRows, Reading, Request, Rows, counts_for
from lra_bench.errors import UserError
from lra_bench.progress import Progress
from lra_bench.spec import Protocol, Source, SplitName, Task

TASK = Task(
    name="pathfinder",
    title="Pathfinder",
    version="1.0.0",
    description="Whether two discs are joined by one of many dashed curves, in 32 × 32 pixels read one by one.",
    citation="Linsley et al., Learning long-range spatial dependencies with horizontal gated recurrent units, "
    "NeurIPS 2018; Tay et al., Long Range Arena, ICLR 2021",
    inputs="pixels",
    documents=1,
    length=1_024,
    classes=2,
    variable_length=False,
    splits={"train": 160_000, "val": 20_000, "test": 20_000},
    majority=0.5,
    selects_on_test=False,
    column=5,
    like=None,
)

CLASSES = ("discs on two curves", "discs on one curve")


DIFFICULTY = "curv_contour_length_14"
"""LRA's `hard`, the one both tasks use (google-research/long-range-arena issue 11)."""

TINY_RESOLUTION = 25
TINY_SPLITS: dict[SplitName, int] = {"train": 4_000, "val": 500, "test": 500}
"""Of the tiny sets at every resolution: short curves, few examples, so that a small network learns them in minutes."""

MARKERS_KNOWN = 128
"""Resolution whose released images the generator's markers were compared with, pixel by pixel."""

SECONDS = {25: 1e-4, 32: 2.5e-4, 64: 7e-3, 128: 2.8e-3, 256: 8e-4}
"""To make one image on one core."""


@dataclass(frozen=True)
class Drawing:
    """One line of the metadata: the image's path below the difficulty's folder, its label, its key in LRA's TFDS."""

    image: str
    label: int
    key: str


def drawings(lines: bytes, where: str) -> list[Drawing]:
    """The images of one metadata file: plain text in spite of its name `0.npy`. Raises UserError naming a bad line."""
    found = []
    for number, line in enumerate(lines.splitlines(), start=1):
        fields = line.decode(errors="replace").split()
        if len(fields) < 4 or fields[3] not in ("0", "1"):
            raise UserError(
                f"{where}, line {number}, is not of the form `imgs/43 sample_0.png 0 LABEL …`: {fields[:4]}."
            )
        found.append(Drawing(f"{fields[0]}/{fields[1]}", int(fields[3]), f"{fields[0]}_{fields[1]}_{number}"))
    return found


@dataclass
class Survey:
    """What one folder of an archive holds: metadata by file number, images, and those of them that are empty files."""

    metadata: dict[int, list[Drawing]] = field(default_factory=dict)
    images: set[str] = field(default_factory=set)
    empty: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class ImagesReading:
    """`pattern` matches a file's path as root, metadata number and image; `wanted` maps images to index and label."""

    path: Path
    root: str
    pattern: re.Pattern[str]
    resolution: int
    layout: Layout
    wanted: Mapping[str, tuple[int, int]]
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def batches(self) -> Iterator[PlacedRows]:
        return in_batches(self._examples(), self.layout.length)

    def _examples(self) -> Iterator[Example]:
        for name, content in files(self.path, self._is_wanted):
            index, label = self.wanted[name.removeprefix(self.root)]
            yield index, (pixels_of(content.read(), f"{self.path}: {name}", self.resolution),), label

    def _is_wanted(self, name: str) -> bool:
        return name.startswith(self.root) and name.removeprefix(self.root) in self.wanted


def pixels_of(png: bytes, where: str, resolution: int) -> NDArray[np.uint8]:
    """The image's shades of gray, (resolution²,)."""
    try:
        with Image.open(io.BytesIO(png)) as image:
            pixels = np.asarray(image.convert("L"))
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise UserError(f"{where} is no readable image ({error}).") from None
    if pixels.shape != (resolution, resolution):
        raise UserError(
            f"{where} is {pixels.shape[1]} × {pixels.shape[0]} pixels; {resolution} × {resolution} are expected."
        )
    return pixels.ravel()


def survey(path: Path, pattern: re.Pattern[str]) -> tuple[str, Survey]:
    """The folder that is meant, and what it holds: one pass over everything, without decoding an image."""
    found: dict[str, Survey] = defaultdict(Survey)
    with Progress("Pathfinder: looking through the images", total=None, unit="files") as progress:
        for name, content in files(path, lambda name: pattern.fullmatch(name) is not None):
            match = pattern.fullmatch(name)
            assert match is not None
            here = found[match["root"]]
            if match["metadata"]:
                here.metadata[int(match["metadata"])] = drawings(content.read(), f"{path}: {name}")
            else:
                here.images.add(match["image"])
                if not content.read(1):
                    here.empty.add(match["image"])
            progress.advance(1)
    root = lra_release.innermost(found, path, f"{DIFFICULTY}/metadata/0.npy")
    return root, found[root]


def orders(all_drawings: list[Drawing], protocol: Protocol) -> list[NDArray[np.int64]]:
    """Indices of the train, val and test images. S4: metadata order, shuffled by seed 42; lra: as TFDS stores them."""
    n = len(all_drawings)
    order = torch_permutation(n) if protocol == "s4" else tfds_order([drawing.key for drawing in all_drawings], "hard")
    first_val, first_test = tenths(n)
    return [order[:first_val], order[first_val:first_test], order[first_test:]]


def read(path: Path, pattern: re.Pattern[str], resolution: int, request: Request) -> ImagesReading:
    """Open the archive or the difficulty's folder. See `DataSource.read`."""
    root, found = survey(path, pattern)
    everything = [drawing for number in sorted(found.metadata) for drawing in found.metadata[number]]
    if not everything:
        raise UserError(f"{path} holds no metadata/0.npy and so on beside its images.")
    missing = [drawing.image for drawing in everything if drawing.image not in found.images]
    if missing:
        raise UserError(f"{path} lacks {len(missing):,} of {len(everything):,} images, {root}{missing[0]} first.")
    empty = np.array([drawing.image in found.empty for drawing in everything])
    parts = [part[~empty[part]] for part in orders(everything, request.protocol)]  # after the split, as LRA does
    have: dict[SplitName, int] = {"train": len(parts[0]), "val": len(parts[1]), "test": len(parts[2])}
    counts = wanted_counts(request, TASK.splits, TINY_SPLITS, have, path)
    chosen = [part[: counts[split]] for part, split in zip(parts, counts, strict=True)]
    place = places(len(everything), chosen)
    wanted = {d.image: (int(index), d.label) for d, index in zip(everything, place, strict=True) if index >= 0}
    if len(wanted) < sum(counts.values()):
        raise UserError(f"{path}: the metadata name an image twice.")
    parameters = {"empty_images_left_out": int(empty.sum())}
    return ImagesReading(path, root, pattern, resolution, layout_of(counts, resolution), wanted, parameters)


def layout_of(counts: Mapping[SplitName, int], resolution: int) -> Layout:
    return Layout(counts, 1, resolution * resolution, TASK.classes, vocabulary=None)


@dataclass(frozen=True)
class SnakeGenerator:
    """Image i of the snake generator for its resolution. There is no official order, so the splits are ranges."""

    layout: Layout
    resolution: int
    distinct: bool = False

    @property
    def seconds_per_example(self) -> float:
        return SECONDS[self.resolution]

    @property
    def chunk(self) -> int:
        return max(10, round(1 / self.seconds_per_example))

    @property
    def parameters(self) -> dict[str, Any]:
        from lra_bench.data.generators.snakes import PARAMETERS

        return PARAMETERS[self.resolution].model_dump(mode="json")

    def generate(self, seed: int, start: int, stop: int) -> Rows:
        from lra_bench.data.generators.snakes import (  # numba is slow to import and `ls` needs TASK only
            PARAMETERS,
            generate,
        )

        images, labels = generate(PARAMETERS[self.resolution], seed, start, stop)
        n = stop - start
        return Rows(images.reshape(n, -1), np.full(n, self.layout.length, np.int32), labels)


class PathfinderData:
    """Where the images of one resolution come from (`lra_bench.datasource.DataSource`)."""

    origins = (lra_release.ORIGIN,)

    def __init__(self, task: Task, resolution: int) -> None:
        self.task, self.resolution = task, resolution

    def locate(self, path: Path) -> list[Path]:
        return [lra_release.locate_part(path, (f"pathfinder{self.resolution}/{DIFFICULTY}",), "metadata")]

    def read(self, path: Path, request: Request) -> Reading:
        no_val_fraction(request, self.task)
        (source,) = self.locate(path)
        root = "" if source.is_dir() else rf"(?:.*/)?pathfinder{self.resolution}/{DIFFICULTY}/"
        inside = r"(?:metadata/(?P<metadata>\d+)\.npy|(?P<image>imgs/\d+/sample_\d+\.png))"
        return read(source, re.compile(f"(?P<root>{root}){inside}"), self.resolution, request)

    def generator(self, request: Request) -> Generator | None:
        no_val_fraction(request, self.task)
        counts = counts_for(request.size, self.task.splits, TINY_SPLITS)
        resolution = TINY_RESOLUTION if request.size == "tiny" else self.resolution
        return SnakeGenerator(layout_of(counts, resolution), resolution)

    def problems(self, layout: Layout, rows: Rows, source: Source) -> list[str]:
        """Every image must hold the marker exactly twice, and use the whole range of gray.

        How markers were drawn is known for images made here and, from released ones, for Path-X; images of other sizes
        that were read are only checked for the range.
        """
        from lra_bench.data.generators.snakes import PARAMETERS, find_markers

        side = round(layout.length**0.5)
        if source != "generated" and side != MARKERS_KNOWN:
            return [f"row {row} has no white pixel" for row in np.flatnonzero(rows.inputs.max(axis=1) < 255)]
        found = []
        for row, pixels in enumerate(rows.inputs):
            markers = len(find_markers(pixels.reshape(side, side), PARAMETERS[side]))
            if markers != 2:
                found.append(f"row {row} shows {markers} markers instead of 2")
            elif pixels.max() != 255:
                found.append(f"row {row} has no white pixel")
        return found

    def decode(self, layout: Layout, inputs: NDArray[np.uint8], lengths: NDArray[np.int32]) -> str:
        return shades(inputs)


DATA = PathfinderData(TASK, 32)
