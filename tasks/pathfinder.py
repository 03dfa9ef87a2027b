"""The task Pathfinder: decide whether two discs lie on the same dashed curve, in 32 × 32 pixels.

Images are generated here, or read from LRA's images. The module also serves the other resolutions.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lra_bench.data.raw import lra_release
from lra_bench.data.raw.archive import files, whole, without_mark
from lra_bench.data.raw.pixels import shades
from lra_bench.data.raw.png import LARGEST, gray_pixels
from lra_bench.data.raw.reading import Example, global_indices, in_batches, no_val_fraction, wanted_counts
from lra_bench.data.raw.splits import tenths, tfds_order, torch_permutation
from lra_bench.datasource import Generator, Layout, PlacedRows, Reader, Request, Rows, counts_for
from lra_bench.errors import UserError
from lra_bench.progress import Progress
from lra_bench.spec import HealthMark, Protocol, Source, SplitName, Task

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
    health=(HealthMark(epoch=5, accuracy=55), HealthMark(epoch=20, accuracy=90)),
)

CLASSES = ("discs on two curves", "discs on one curve")
"""The meaning of each label."""


DIFFICULTY = "curv_contour_length_14"
"""The folder of LRA's difficulty `hard`.

Pathfinder and Path-X use it (google-research/long-range-arena issue 11).
"""

TINY_RESOLUTION = 25
"""The side of the images of the tiny sets in pixels."""

TINY_SPLITS: dict[SplitName, int] = {"train": 4_000, "val": 500, "test": 500}
"""The splits of the tiny sets, the same for every resolution.

The curves are short and the examples few, so that a small network learns the sets in minutes.
"""

CONTOUR_LENGTH = 14
"""The number of paddles of a long curve at that difficulty, which is field 5 of the metadata."""

METADATA = 64 << 20
"""The largest number of bytes of a metadata file. An official one has some 60,000."""

MOST_FILES = 500_000
"""The number of images and metadata files from which a source is refused without reading on.

LRA's archive has 200,200 of a resolution, and of 128 pixels twice as many.
"""

LIGHT = 127.0
"""The largest mean shade of an image. Curves are thin and light on a black ground."""

MARKERS_KNOWN = 128
"""The resolution whose released images were compared pixel by pixel with the generator's markers."""

SECONDS = {25: 1e-4, 32: 2.5e-4, 64: 7e-3, 128: 2.8e-3, 256: 8e-4}
"""The seconds that one image takes on one core, by resolution."""


@dataclass(frozen=True)
class Drawing:
    """A drawing is one line of the metadata."""

    image: str
    """The image's path below the difficulty's folder."""
    label: int
    key: str
    """The image's key in LRA's TFDS dataset, which decides its order there."""


def drawings(lines: bytes, where: str) -> list[Drawing]:
    """Parse one metadata file, which is plain text in spite of its name `0.npy`.

    Raises UserError naming a line that is bad or describes an image of another difficulty.
    """
    found = []
    for number, line in enumerate(without_mark(lines, where).splitlines(), start=1):
        fields = line.decode(errors="replace").split()
        if len(fields) < 4 or fields[3] not in ("0", "1"):
            shown = [field[:20] for field in fields[:4]]
            raise UserError(f"{where}, line {number}, is not of the form `imgs/43 sample_0.png 0 LABEL …`: {shown}.")
        if len(fields) > 5 and not _is_hard(fields[5]):
            raise UserError(
                f"{where}, line {number}, has curves of {fields[5][:20]} paddles; those of {DIFFICULTY} have "
                f"{CONTOUR_LENGTH}: the folder has the name of another difficulty."
            )
        found.append(Drawing(f"{fields[0]}/{fields[1]}", int(fields[3]), f"{fields[0]}_{fields[1]}_{number}"))
    return found


def _is_hard(field: str) -> bool:
    """Whether a field of the metadata is the number of paddles of the difficulty."""
    try:
        return float(field) == CONTOUR_LENGTH
    except ValueError:
        return False


@dataclass
class Contents:
    """The contents of one folder of an archive."""

    metadata: dict[int, list[Drawing]] = field(default_factory=dict)
    """The drawings by the number of the metadata file."""
    images: set[str] = field(default_factory=set)
    """The paths of all images below the folder."""
    empty: set[str] = field(default_factory=set)
    """The paths of the images that are empty files."""


@dataclass(frozen=True)
class ImagesReader:
    """A reader of LRA's images of one resolution; see `lra_bench.datasource.Reader`."""

    path: Path
    root: str
    """The path of the difficulty's folder inside `path`, with a trailing slash; empty if it is `path` itself."""
    pattern: re.Pattern[str]
    """The pattern of a file's path, with the groups root, metadata (number) and image."""
    resolution: int
    layout: Layout
    wanted: Mapping[str, tuple[int, int]]
    """The global index and the label of each image to read, by its path below `root`."""
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def batches(self) -> Iterator[PlacedRows]:
        """Yield all examples; see `Reader.batches`."""
        return in_batches(self._examples(), self.layout.length)

    def _examples(self) -> Iterator[Example]:
        for name, content in files(self.path, self._is_wanted):
            index, label = self.wanted[name.removeprefix(self.root)]
            where = f"{self.path}: {name}"
            yield index, (gray_pixels(whole(content, LARGEST, where), where, self.resolution),), label

    def _is_wanted(self, name: str) -> bool:
        return name.startswith(self.root) and name.removeprefix(self.root) in self.wanted


def list_contents(path: Path, pattern: re.Pattern[str]) -> tuple[str, Contents]:
    """Find the folder that is meant; return its path inside `path` and its contents.

    The function makes one pass over everything and decodes no image. Raises UserError if there is no such folder.
    """
    found: dict[str, Contents] = defaultdict(Contents)
    with Progress("Pathfinder: looking through the images", total=None, unit="files") as progress:
        for name, content in files(path, lambda name: pattern.fullmatch(name) is not None):
            match = pattern.fullmatch(name)
            assert match is not None
            here = found[match["root"]]
            if match["metadata"]:
                where = f"{path}: {name}"
                here.metadata[int(match["metadata"])] = drawings(whole(content, METADATA, where), where)
            else:
                here.images.add(match["image"])
                if not content.read(1):
                    here.empty.add(match["image"])
            progress.advance(1)
            if progress.done > MOST_FILES:
                raise UserError(f"{path} holds more than {MOST_FILES:,} images: it is another data set.")
    root = lra_release.innermost(found, path, f"{DIFFICULTY}/metadata/0.npy")
    return root, found[root]


def orders(all_drawings: list[Drawing], protocol: Protocol) -> list[NDArray[np.int64]]:
    """Return the indices of the train, val and test images.

    s4 shuffles the order of the metadata with seed 42. lra takes the order in which TFDS stores the images.
    """
    n = len(all_drawings)
    order = torch_permutation(n) if protocol == "s4" else tfds_order([drawing.key for drawing in all_drawings], "hard")
    first_val, first_test = tenths(n)
    return [order[:first_val], order[first_val:first_test], order[first_test:]]


def read(path: Path, pattern: re.Pattern[str], resolution: int, request: Request) -> ImagesReader:
    """Open the archive or the difficulty's folder; see `DataSource.read`."""
    root, found = list_contents(path, pattern)
    everything = [drawing for number in sorted(found.metadata) for drawing in found.metadata[number]]
    if not everything:
        raise UserError(f"{path} holds no metadata/0.npy and so on beside its images.")
    missing = [drawing.image for drawing in everything if drawing.image not in found.images]
    if missing:
        raise UserError(f"{path} lacks {len(missing):,} of {len(everything):,} images, {root}{missing[0]} first.")
    empty = np.array([drawing.image in found.empty for drawing in everything])
    # Empty images are left out after the split, as LRA does, so that they do not shift the others.
    parts = [part[~empty[part]] for part in orders(everything, request.protocol)]
    have: dict[SplitName, int] = {"train": len(parts[0]), "val": len(parts[1]), "test": len(parts[2])}
    counts = wanted_counts(request, TASK.splits, TINY_SPLITS, have, path)
    chosen = [part[: counts[split]] for part, split in zip(parts, counts, strict=True)]
    index_of = global_indices(len(everything), chosen)
    wanted = {d.image: (int(index), d.label) for d, index in zip(everything, index_of, strict=True) if index >= 0}
    if len(wanted) < sum(counts.values()):
        raise UserError(f"{path}: the metadata name an image twice.")
    parameters = {"empty_images_left_out": int(empty.sum())}
    return ImagesReader(path, root, pattern, resolution, layout_of(counts, resolution), wanted, parameters)


def layout_of(counts: Mapping[SplitName, int], resolution: int) -> Layout:
    """Return the layout of square images with `resolution` pixels per side."""
    return Layout(counts, 1, resolution * resolution, TASK.classes, vocabulary=None)


@dataclass(frozen=True)
class SnakeGenerator:
    """The Pathfinder generator of one resolution; see `lra_bench.datasource.Generator`.

    There is no official order of images, so the splits are ranges of the index.
    """

    layout: Layout
    resolution: int
    distinct: bool = False

    @property
    def seconds_per_example(self) -> float:
        """The seconds that one image takes on one core."""
        return SECONDS[self.resolution]

    @property
    def chunk(self) -> int:
        """The number of images that take about one second."""
        return max(10, round(1 / self.seconds_per_example))

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters of the data set, for the manifest."""
        from lra_bench.data.generators.snakes import PARAMETERS

        return PARAMETERS[self.resolution].model_dump(mode="json")

    def generate(self, seed: int, start: int, stop: int) -> Rows:
        """Make the images start … stop − 1; see `Generator.generate`."""
        # Imported here because numba is slow to import and `ls` needs TASK only.
        from lra_bench.data.generators.snakes import PARAMETERS, generate

        images, labels = generate(PARAMETERS[self.resolution], seed, start, stop)
        n = stop - start
        return Rows(images.reshape(n, -1), np.full(n, self.layout.length, np.int32), labels)


class PathfinderData:
    """The data source of one resolution; see `lra_bench.datasource.DataSource`."""

    origins = (lra_release.ORIGIN,)

    def __init__(self, task: Task, resolution: int) -> None:
        """Serve `task` with images of `resolution` pixels per side."""
        self.task, self.resolution = task, resolution

    def locate(self, path: Path) -> list[Path]:
        """Find the raw files; see `DataSource.locate`."""
        return [lra_release.locate_part(path, (f"pathfinder{self.resolution}/{DIFFICULTY}",), "metadata")]

    def read(self, path: Path, request: Request) -> Reader:
        """Open the raw files; see `DataSource.read`."""
        no_val_fraction(request, self.task)
        (source,) = self.locate(path)
        root = "" if source.is_dir() else rf"(?:.*/)?pathfinder{self.resolution}/{DIFFICULTY}/"
        inside = r"(?:metadata/(?P<metadata>[0-9]{1,9})\.npy|(?P<image>imgs/[0-9]{1,9}/sample_[0-9]{1,9}\.png))"
        return read(source, re.compile(f"(?P<root>{root}){inside}"), self.resolution, request)

    def generator(self, request: Request) -> Generator | None:
        """Return the generator; see `DataSource.generator`."""
        no_val_fraction(request, self.task)
        counts = counts_for(request.size, self.task.splits, TINY_SPLITS)
        resolution = TINY_RESOLUTION if request.size == "tiny" else self.resolution
        return SnakeGenerator(layout_of(counts, resolution), resolution)

    def problems(self, layout: Layout, rows: Rows, source: Source) -> list[str]:
        """List images that do not hold the marker exactly twice, do not use the whole range of gray, or are inverted.

        The drawing of markers is known for images made here and, from released images, for Path-X. Images of other
        sizes that were read from files are checked for the range only. See `DataSource.problems`.
        """
        from lra_bench.data.generators.snakes import PARAMETERS, find_markers

        side = round(layout.length**0.5)
        found = [f"row {row} is mostly white" for row in np.flatnonzero(rows.inputs.mean(axis=1) > LIGHT)]
        if source != "generated" and side != MARKERS_KNOWN:
            return found + [f"row {row} has no white pixel" for row in np.flatnonzero(rows.inputs.max(axis=1) < 255)]
        for row, pixels in enumerate(rows.inputs):
            markers = len(find_markers(pixels.reshape(side, side), PARAMETERS[side]))
            if markers != 2:
                found.append(f"row {row} shows {markers} markers instead of 2")
            elif pixels.max() != 255:
                found.append(f"row {row} has no white pixel")
        return found

    def decode(self, layout: Layout, inputs: NDArray[np.uint8], lengths: NDArray[np.int32]) -> str:
        """Return an image as lines of characters; see `DataSource.decode`."""
        del layout, lengths
        return shades(inputs)


DATA = PathfinderData(TASK, 32)
