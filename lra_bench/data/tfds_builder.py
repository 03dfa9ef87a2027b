"""The prepared set as a standard TFDS dataset of ArrayRecord files, written and read without TensorFlow."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from lra_bench.data.manifest import Manifest
from lra_bench.data.packed import PackedSplit
from lra_bench.datasource import bytes_per_example
from lra_bench.errors import FULL, WorkError
from lra_bench.progress import Progress
from lra_bench.spec import SPLITS, SplitName, Task

SCRATCH = ".tfds"
"""The folder in which TFDS writes, below that of the prepared set."""

Splits = dict[SplitName, PackedSplit]
"""The packed arrays of each split."""


def builder_class(task: Task) -> type:
    """Return a `tfds.core.GeneratorBasedBuilder` named after the task, with its version, description and citation.

    Its examples are {"inputs", "length", "label"}, taken from packed arrays in their order, with padded inputs.
    """
    import tensorflow_datasets as tfds

    class PackedBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
        name = f"lra_{task.name}"
        VERSION = tfds.core.Version(task.version)

        def __init__(self, manifest: Manifest, splits: Splits, progress: Progress, data_dir: Path) -> None:
            self._manifest, self._splits, self._progress = manifest, splits, progress
            super().__init__(file_format="array_record", data_dir=str(data_dir))

        def _info(self) -> tfds.core.DatasetInfo:
            documents = () if self._manifest.documents == 1 else (self._manifest.documents,)
            # Without this encoding each byte becomes a varint, which is ten times slower to write.
            as_bytes = tfds.features.Encoding.BYTES
            features = {
                "inputs": tfds.features.Tensor(
                    shape=self._manifest.layout.row_shape, dtype=np.uint8, encoding=as_bytes
                ),
                "length": tfds.features.Tensor(shape=documents, dtype=np.int32),
                "label": tfds.features.ClassLabel(num_classes=task.classes),
            }
            return tfds.core.DatasetInfo(
                builder=self,
                description=_description(task, self._manifest),
                features=tfds.features.FeaturesDict(features),
                supervised_keys=("inputs", "label"),
                citation=task.citation,
                disable_shuffling=True,  # keys are row numbers, so the order on disk is that of the packed arrays
            )

        def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
            del dl_manager
            return {split: self._generate_examples(split) for split in SPLITS}

        def _generate_examples(self, split: SplitName) -> Iterator[tuple[int, dict[str, Any]]]:
            for start, rows in self._splits[split].batches():
                self._progress.advance(len(rows.labels))
                for offset, (inputs, length, label) in enumerate(zip(*rows, strict=True)):
                    yield start + offset, {"inputs": inputs, "length": length, "label": int(label)}

    PackedBuilder.__name__ = PackedBuilder.__qualname__ = f"Lra{task.title.replace('-', '')}"
    return PackedBuilder


def _description(task: Task, manifest: Manifest) -> str:
    """Return the dataset's description.

    It names the source of the examples and the size, so that a generated or tiny set is not mistaken for the full one.
    """
    size = "" if manifest.size == "full" else f" Not the full set: size {manifest.size}."
    return f"{task.description} Protocol {manifest.protocol}; examples: {manifest.source} ({manifest.origin}).{size}"


def write_dataset(folder: Path, task: Task, manifest: Manifest, splits: Splits) -> None:
    """Write the dataset's files into `folder`, readable with `tfds.builder_from_directory(folder).as_data_source()`.

    The examples are always the same. The bytes of the files are not, because protobuf writes the features of an example
    in any order. Raises OSError when the disk is full.
    """
    _refuse_too_little_memory(task, manifest)
    scratch = folder / SCRATCH
    shutil.rmtree(scratch, ignore_errors=True)
    with _quiet(), _disk_errors(), _buffered_in_memory():
        total = sum(manifest.counts.values())
        with Progress(f"{task.name}: TFDS dataset", total=total, unit="examples") as progress:
            builder = builder_class(task)(manifest, splits, progress, scratch)
            builder.download_and_prepare()
    for path in Path(builder.data_dir).iterdir():
        path.replace(folder / path.name)
    shutil.rmtree(scratch)


def _refuse_too_little_memory(task: Task, manifest: Manifest) -> None:
    """Check that the largest split fits into memory. Raises WorkError where it does not."""
    need = max(manifest.counts.values()) * bytes_per_example(manifest.layout)
    free = psutil.virtual_memory().available
    if need > free:
        raise WorkError(
            f"the TFDS dataset of {task.name} takes {need / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are free. "
            f"Training does not read it: type the same with --no-tfds."
        )


def read_dataset(folder: Path, split: SplitName) -> Any:
    """Open a split of a prepared folder as a random-access sequence of {"inputs", "length", "label"}."""
    import tensorflow_datasets as tfds

    with _quiet():
        return tfds.builder_from_directory(str(folder)).as_data_source(split=split)


@contextlib.contextmanager
def _buffered_in_memory() -> Iterator[None]:
    """Make TFDS buffer a whole split in memory during the context.

    A split larger than TFDS's buffer of one gigabyte (Path-X, Retrieval) is written through temporary files, which TFDS
    opens with TensorFlow.
    """
    from tensorflow_datasets.core import shuffle

    limit = shuffle.MAX_MEM_BUFFER_SIZE
    shuffle.MAX_MEM_BUFFER_SIZE = sys.maxsize
    try:
        yield
    finally:
        shuffle.MAX_MEM_BUFFER_SIZE = limit


@contextlib.contextmanager
def _disk_errors() -> Iterator[None]:
    """Turn the RuntimeError by which ArrayRecord's writer reports a full disk into an OSError."""
    try:
        yield
    except RuntimeError as error:
        for number in FULL:
            if os.strerror(number) in str(error):
                raise OSError(number, os.strerror(number)) from None
        raise


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the logs and progress bars of TFDS during the context, because `Progress` reports the same work."""
    import tensorflow_datasets as tfds

    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(previous)
