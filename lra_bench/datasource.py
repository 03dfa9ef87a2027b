"""The contract between a task and `prepare`.

A task states where its raw files are and how raw files, or a generator, become examples. Every module of `tasks/` has
`TASK` (`lra_bench.spec.Task`) and `DATA`, an object that fulfills `DataSource`. This module does not import JAX.
`prepare` does the rest: downloads, locks, chunks, resumption, packed arrays, the TFDS dataset and the manifest.

Every example has one global index. The indices number the train split first, then val, then test, each in its final
order. A generator makes any range of them. A reader may yield them in any order, as long as the order is the same each
time it reads the same files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from lra_bench.errors import UserError
from lra_bench.spec import SPLITS, Source, SplitName
from lra_bench.spec import Protocol as LraProtocol

Size = Literal["full", "tiny"] | int
"""The size of a set: `full` as published, `tiny` for quickstart and tests, or a total number of examples.

A number is divided among the splits in the proportions of the full set.
"""


@dataclass(frozen=True)
class Request:
    """A request holds everything that decides the examples besides the raw files."""

    protocol: LraProtocol
    size: Size
    seed: int
    val_fraction: float | None


@dataclass(frozen=True)
class RemoteFile:
    """A file to download.

    `size` (bytes) and `sha256` (hex) are checked after the download. None means that no value was published.
    """

    url: str
    name: str
    size: int | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Origin:
    """One server that holds the raw files of a task.

    `kind` is the source kind that its examples are recorded under. `note` is shown to the user: size, license, known
    state of the server.
    """

    kind: Literal["official", "mirror"]
    name: str
    files: tuple[RemoteFile, ...]
    note: str


@dataclass(frozen=True)
class Layout:
    """The shape and meaning of the packed arrays.

    One example is `documents` × `length` values of uint8, padded with zeros on the right. Where there are `channels`,
    each position has so many values.
    """

    counts: Mapping[SplitName, int]
    documents: Literal[1, 2]
    length: int
    classes: int
    vocabulary: tuple[str, ...] | None
    """The token of each id (id 0 is padding); None where the inputs are pixels."""
    validation_is_test: bool = False
    """Whether the protocol selects on test, which makes val a copy of test.

    Then counts["val"] == counts["test"]. Readers leave val out and `prepare` copies test into it.
    """
    channels: Literal[1, 3] = 1
    """The values at each position: red, green and blue of images in color."""

    @property
    def total(self) -> int:
        """The number of examples in all splits together."""
        return sum(self.counts[split] for split in SPLITS)

    @property
    def starts(self) -> dict[SplitName, int]:
        """The global index of each split's first example."""
        train, val = self.counts["train"], self.counts["val"]
        return {"train": 0, "val": train, "test": train + val}

    @property
    def row_shape(self) -> tuple[int, ...]:
        """The shape of one example's inputs: (L,) for one document, (2, L) for two, (L, 3) for an image in color."""
        documents = () if self.documents == 1 else (self.documents,)
        return (*documents, self.length, *(() if self.channels == 1 else (self.channels,)))


class Rows(NamedTuple):
    """Rows are n examples.

    Inputs are uint8 (n, L), (n, 2, L) or (n, L, 3), lengths int32 (n,) or (n, 2), labels int32 (n,).
    """

    inputs: NDArray[np.uint8]
    lengths: NDArray[np.int32]
    labels: NDArray[np.int32]


class PlacedRows(NamedTuple):
    """Rows with the global index (train, val, test) of each, int64 (n,)."""

    indices: NDArray[np.int64]
    rows: Rows


class Reader(Protocol):
    """A reader is raw files opened and understood.

    Counts and vocabulary are known before the first example is yielded.
    """

    @property
    def layout(self) -> Layout:
        """The layout of the examples that `batches` yields."""

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The manifest's entry on how the files were read (JSON values); `{}` if there is nothing to record."""

    def batches(self) -> Iterator[PlacedRows]:
        """Yield all examples, up to 5,000 rows at a time.

        Every call yields the same batches in the same order, because `prepare` resumes by batch number. Raises
        UserError naming file and row where a file is truncated, edited or of another format.
        """


class Generator(Protocol):
    """A generator makes examples by index.

    It must pickle, because it is sent to spawned processes. Its numba functions must therefore stay at module level.
    """

    @property
    def layout(self) -> Layout:
        """The layout of the examples that `generate` makes."""

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The manifest's entry on everything but the seed that decides the examples (JSON values)."""

    @property
    def distinct(self) -> bool:
        """Whether no example may occur twice in the set.

        `prepare` then replaces every repeat by an example after the last index.
        """

    @property
    def chunk(self) -> int:
        """The number of examples per unit of work, about a second on one core. It does not change the examples."""

    @property
    def seconds_per_example(self) -> float:
        """The seconds that one example takes on one core, as measured.

        The value serves the estimate of `--dry-run` and the decision whether worker processes are worth starting.
        """

    def generate(self, seed: int, start: int, stop: int) -> Rows:
        """Make the examples start … stop − 1.

        Example i depends on `seed` and i alone, whatever the chunks, the number of jobs and the resumption. `stop` may
        exceed `layout.total` (see `distinct`).
        """


class DataSource(Protocol):
    """The interface of each task module's `DATA`."""

    @property
    def origins(self) -> tuple[Origin, ...]:
        """The servers in the order they are tried: official first, then pinned mirrors. The tuple may be empty."""

    def locate(self, path: Path) -> list[Path]:
        """Find the raw files of this task in or at `path`.

        `path` is an archive, or a folder in any layout that is known to exist. A folder of very many files is returned
        as one entry. The call is quick, because it reads no content. The manifest records the SHA-256 of each entry.
        Raises UserError naming what was looked for.
        """

    def read(self, path: Path, request: Request) -> Reader:
        """Open the raw files at `path`.

        `path` is what `locate` accepted. For a download it is the file, or the folder if the origin has several files.
        The call may make a first pass over the content to find counts and vocabulary. Raises UserError for a wrong
        format or an impossible request.
        """

    def generator(self, request: Request) -> Generator | None:
        """Return the generator for this request; None if the task cannot be generated at this size and protocol."""

    def problems(self, layout: Layout, rows: Rows, source: Source) -> list[str]:
        """List the faults in these examples for `--verify`; [] if there are none.

        Each entry is one clause that names the row within `rows`. Only facts that the task alone knows are checked,
        such as a label that can be recomputed or a marker that must be present.
        """

    def decode(self, layout: Layout, inputs: NDArray[np.uint8], lengths: NDArray[np.int32]) -> str:
        """Return one example as text for `show`.

        `inputs` is (L,), (2, L) or (L, 3), `lengths` is () or (2,). Pixels become lines of characters of different
        shade.
        """


def parse_size(text: str | int) -> Size:
    """Parse the value of `--size`: `full`, `tiny` or a number of examples of at least 10.

    Raises UserError for anything else.
    """
    if text == "full":
        return "full"
    if text == "tiny":
        return "tiny"
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 10:
        raise UserError(f"--size takes full, tiny or a number of examples (at least 10); got {str(text)!r}.")
    return number


def counts_for(size: Size, full: Mapping[SplitName, int], tiny: Mapping[SplitName, int]) -> dict[SplitName, int]:
    """Return the number of examples per split at `size`.

    A number is divided in the proportions of `full`, with at least one example in val and in test. The rest is train.
    """
    if size == "full":
        return dict(full)
    if size == "tiny":
        return dict(tiny)
    total = sum(full.values())
    val = max(1, size * full["val"] // total)
    test = max(1, size * full["test"] // total)
    return {"train": size - val - test, "val": val, "test": test}


def pad_rows(examples: Sequence[Sequence[NDArray[np.uint8]]], labels: Sequence[int], length: int) -> Rows:
    """Pack examples of one or two unpadded documents each into arrays padded with zeros to `length`.

    A document is (steps,), or (steps, 3) for an image in color. Raises ValueError for a document longer than `length`.
    Readers must cut documents first, because the protocol decides how they are cut.
    """
    documents = len(examples[0]) if examples else 1
    channels = examples[0][0].shape[1:] if examples else ()
    inputs = np.zeros((len(examples), documents, length, *channels), np.uint8)
    lengths = np.zeros((len(examples), documents), np.int32)
    for row, example in enumerate(examples):
        for which, document in enumerate(example):
            if len(document) > length:
                raise ValueError(f"a document of {len(document)} steps does not fit in {length}")
            inputs[row, which, : len(document)] = document
            lengths[row, which] = len(document)
    if documents == 1:
        inputs, lengths = inputs[:, 0], lengths[:, 0]
    return Rows(inputs, lengths, np.asarray(labels, np.int32))


def bytes_per_example(layout: Layout) -> int:
    """Return the number of bytes that one example takes in the packed arrays on disk."""
    # uint8 inputs and an int32 length per document, and one int32 label.
    return layout.documents * (layout.channels * layout.length + 4) + 4
