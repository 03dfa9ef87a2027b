"""The contract between a task and `prepare`: where raw files come from, how they, or a generator, become examples.

Every module of `tasks/` has `TASK` (lra_bench.spec.Task) and `DATA`, an object that fulfils `DataSource`. No JAX here.
`prepare` does the rest: downloads, locks, chunks, resumption, packed arrays, the TFDS dataset, the manifest.

Examples have one global index: train first, then val, then test, in their final order. A generator makes any range of
them; a reader may yield them in any order that is the same each time it reads the same files.
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
"""`full` as published, `tiny` for quickstart and tests, or a total number of examples, shared out like the full set."""


@dataclass(frozen=True)
class Request:
    """What was asked for; everything that decides the examples besides the raw files."""

    protocol: LraProtocol
    size: Size
    seed: int
    val_fraction: float | None


@dataclass(frozen=True)
class RemoteFile:
    """A file somewhere; `size` in bytes and `sha256` in hex are checked where known, None where nobody says."""

    url: str
    name: str
    size: int | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Origin:
    """One place that holds the task's raw files; `note` is for the user (license, known state of the server)."""

    kind: Literal["official", "mirror"]
    name: str
    files: tuple[RemoteFile, ...]
    note: str


@dataclass(frozen=True)
class Layout:
    """Shape and meaning of the packed arrays: `documents` × `length` uint8 per example, zero padded on the right."""

    counts: Mapping[SplitName, int]
    documents: Literal[1, 2]
    length: int
    classes: int
    vocabulary: tuple[str, ...] | None
    """Token of each id (id 0 pads); None where the inputs are pixels."""
    validation_is_test: bool = False
    """The protocol selects on test: counts["val"] == counts["test"]; readers leave val out, `prepare` copies test."""

    @property
    def total(self) -> int:
        return sum(self.counts[split] for split in SPLITS)

    @property
    def starts(self) -> dict[SplitName, int]:
        """Global index of each split's first example."""
        train, val = self.counts["train"], self.counts["val"]
        return {"train": 0, "val": train, "test": train + val}

    @property
    def row_shape(self) -> tuple[int, ...]:
        return (self.length,) if self.documents == 1 else (self.documents, self.length)


class Rows(NamedTuple):
    """n examples: inputs uint8 (n, L) or (n, 2, L), lengths int32 (n,) or (n, 2), labels int32 (n,)."""

    inputs: NDArray[np.uint8]
    lengths: NDArray[np.int32]
    labels: NDArray[np.int32]


class PlacedRows(NamedTuple):
    """Rows and the global index (train, val, test) of each: int64 (n,)."""

    indices: NDArray[np.int64]
    rows: Rows


class Reading(Protocol):
    """Raw files opened and understood: counts and vocabulary are known before the first example is yielded."""

    @property
    def layout(self) -> Layout: ...

    @property
    def parameters(self) -> Mapping[str, Any]:
        """What the manifest should tell about how the files were read (JSON values); `{}` if nothing."""

    def batches(self) -> Iterator[PlacedRows]:
        """All examples, 100 to 5,000 rows at a time, the same batches in the same order at every call.

        Raises UserError naming file and row where a file is truncated, edited or of another format.
        """


class Generator(Protocol):
    """Makes examples by index. Must pickle (it is sent to spawned processes); numba functions stay at module level."""

    @property
    def layout(self) -> Layout: ...

    @property
    def parameters(self) -> Mapping[str, Any]:
        """Everything but the seed that decides the examples, for the manifest (JSON values)."""

    @property
    def distinct(self) -> bool:
        """True: no example may occur twice in the set; `prepare` replaces repeats by those after the last index."""

    @property
    def chunk(self) -> int:
        """Examples per unit of work: about a second on one core. Does not change the examples."""

    @property
    def seconds_per_example(self) -> float:
        """On one core, measured; only for the estimate of `--dry-run`."""

    def generate(self, seed: int, start: int, stop: int) -> Rows:
        """Examples start … stop − 1. Example i depends on `seed` and i alone, whatever the chunks, jobs, or resumption.

        `stop` may exceed `layout.total` (see `distinct`).
        """


class DataSource(Protocol):
    """What each task module's `DATA` must offer."""

    @property
    def origins(self) -> tuple[Origin, ...]:
        """Official first, then pinned mirrors, in the order they are tried; may be empty."""

    def locate(self, path: Path) -> list[Path]:
        """The raw files of this task in or at `path`: an archive, or a folder in any layout found in the wild.

        A folder of very many files stands for them all. Quick: reads no content. The manifest records their sha256.
        Raises UserError saying what was looked for.
        """

    def read(self, path: Path, request: Request) -> Reading:
        """Open `path` (what `locate` accepted; for downloads the file, or the folder when an origin has several).

        May make a first pass (counts, vocabulary). Raises UserError for a wrong format or an impossible request.
        """

    def generator(self, request: Request) -> Generator | None:
        """The generator for this request, None if this task cannot be generated at this size and protocol."""

    def problems(self, layout: Layout, rows: Rows, source: Source) -> list[str]:
        """For `--verify`: what is wrong in these examples, one clause each naming the row within `rows`; [] if nothing.

        Checks what only the task knows (a label that can be recomputed, a marker that must be there).
        """

    def decode(self, layout: Layout, inputs: NDArray[np.uint8], lengths: NDArray[np.int32]) -> str:
        """Text of one example for `show`; inputs (L,) or (2, L), lengths () or (2,); pixels as lines of shades."""


def parse_size(text: str | int) -> Size:
    """`full`, `tiny` or a number of examples ≥ 10, as typed after `--size`. Raises UserError."""
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
    """Examples per split at `size`; a number is shared out as in `full`, at least one per split, the rest to train."""
    if size == "full":
        return dict(full)
    if size == "tiny":
        return dict(tiny)
    total = sum(full.values())
    val = max(1, size * full["val"] // total)
    test = max(1, size * full["test"] // total)
    return {"train": size - val - test, "val": val, "test": test}


def pad_rows(examples: Sequence[Sequence[NDArray[np.uint8]]], labels: Sequence[int], length: int) -> Rows:
    """Examples of one or two unpadded documents each, packed and zero padded to `length`.

    Raises ValueError for a document longer than `length`: cutting is the protocol's business, done by the reader.
    """
    documents = len(examples[0]) if examples else 1
    inputs = np.zeros((len(examples), documents, length), np.uint8)
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
    """The bytes of one example in the packed arrays on disk."""
    return layout.documents * (layout.length + 4) + 4
