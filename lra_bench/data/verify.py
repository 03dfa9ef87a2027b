"""The check of `prepare --verify`.

It reads a prepared set again and checks everything that can be checked without the raw files.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lra_bench.data.manifest import Manifest, fingerprint_of, load_manifest, prepare_again
from lra_bench.data.meaning import Inputs, contents_notes, contents_problems, label_problems
from lra_bench.data.packed import PackedSplit, describe, majority_share, open_arrays
from lra_bench.data.raw.splits import order_problems
from lra_bench.data.tfds_builder import read_dataset
from lra_bench.datasource import DataSource, Rows
from lra_bench.errors import UserError
from lra_bench.progress import Progress
from lra_bench.registry import task_module
from lra_bench.spec import SPLITS, SplitName, Task

FEATURES = {"inputs": "inputs", "length": "lengths", "label": "labels"}
"""The field of `Rows` that each feature of the TFDS dataset holds."""

SHOWN = 3
"""The number of problems quoted in the error. The rest is counted."""


def verify(folder: Path) -> list[str]:
    """Check a prepared set and return what was checked, one line each.

    The checks cover hashes, fingerprint, shapes, padding, ranges, label shares, facts that only the task knows
    (`DataSource.problems`), repeats where there must be none, inputs that splits have in common, official contents, and
    the TFDS dataset's examples. Raises UserError with the first problems found.
    """
    manifest = load_manifest(folder)
    module = task_module(manifest.task)
    splits: dict[SplitName, PackedSplit] = {split: open_arrays(folder, manifest, split) for split in SPLITS}
    found = [*_hash_problems(folder, manifest), *order_problems()]
    found += contents_problems(manifest, module.TASK)
    title = f"{manifest.task}: verify"
    inputs, ranges = Inputs(manifest), _Ranges(manifest)
    with Progress(title, total=sum(manifest.counts.values()), unit="examples") as progress:
        for split in SPLITS:
            found += _label_problems(manifest, module.TASK, split, splits[split])
            for start, rows in splits[split].batches():
                known = inputs.add(split, rows)
                found += [f"{split}: {problem}" for problem in _row_problems(manifest, module.DATA, start, rows, known)]
                ranges.add(rows)
                progress.advance(len(rows.labels))
            if manifest.tfds:
                found += [f"{split}: {problem}" for problem in _dataset_problems(folder, split, splits[split])]
    if manifest.source != "generated":
        found += inputs.problems()
    if found:
        more = f" (and {len(found) - SHOWN} more)" if len(found) > SHOWN else ""
        raise UserError(
            f"{folder} is damaged: {'; '.join(found[:SHOWN])}{more}. "
            f"{prepare_again(folder, manifest.model_dump(mode='json'))}"
        )
    return [*_report(manifest), *ranges.notes(), *inputs.notes(), *contents_notes(manifest, module.TASK)]


class _Ranges:
    """The range and the mean of a set's shades, or of its lengths where the inputs are tokens."""

    def __init__(self, manifest: Manifest) -> None:
        self._pixels, self._gray = manifest.vocabulary is None, manifest.channels == 1
        self._least, self._most, self._sum, self._n = np.inf, -np.inf, 0.0, 0

    def add(self, rows: Rows) -> None:
        values = rows.inputs if self._pixels else rows.lengths
        self._least, self._most = min(self._least, float(values.min())), max(self._most, float(values.max()))
        self._sum, self._n = self._sum + float(values.sum(dtype=np.int64)), self._n + values.size

    def notes(self) -> list[str]:
        name = ("shades of gray" if self._gray else "shades of the colors") if self._pixels else "lengths"
        return [f"{name}: {self._least:,.0f} … {self._most:,.0f}, mean {self._sum / self._n:,.1f}"]


def _hash_problems(folder: Path, manifest: Manifest) -> Iterator[str]:
    packed = describe(folder)
    recorded = {file.path: file for file in manifest.packed}
    for file in packed:
        if recorded.get(file.path) != file:
            yield f"{file.path} has another SHA-256 than the manifest says"
    layout = manifest.layout
    if manifest.fingerprint != fingerprint_of(manifest.task, manifest.version, manifest.protocol, layout, packed):
        yield "the fingerprint is not that of the arrays"


def _label_problems(manifest: Manifest, task: Task, split: SplitName, rows: PackedSplit) -> list[str]:
    labels = np.asarray(rows.labels)
    problems = label_problems(manifest, task, split, labels)
    share = None if problems else majority_share(labels)
    if share is not None and share != manifest.majority.get(split):
        return [f"{split}: the majority class has {share:.4f} of the examples, not what the manifest says"]
    return problems


def _row_problems(manifest: Manifest, data: DataSource, start: int, rows: Rows, known: int) -> Iterator[str]:
    """Yield the problems that any task's rows can have, then those that only the task can recognize.

    `known` is the number of inputs among them that occurred before.
    """
    layout = manifest.layout
    steps = np.arange(layout.length)
    if ((rows.lengths < 1) | (rows.lengths > layout.length)).any():
        yield f"rows {start} …: lengths lie outside 1 … {layout.length}"
        return
    beyond = steps >= rows.lengths[..., None]
    if (rows.inputs * (beyond if layout.channels == 1 else beyond[..., None])).any():
        yield f"rows {start} …: inputs go on after their length"
    if layout.vocabulary is not None and rows.inputs.max() >= len(layout.vocabulary):
        yield f"rows {start} …: ids lie outside the vocabulary of {len(layout.vocabulary)}"
        return
    if manifest.distinct and known:
        yield f"rows {start} …: an example occurs twice in the set"
    for problem in data.problems(layout, rows, manifest.source):
        yield f"batch from row {start}: {problem}"


def _dataset_problems(folder: Path, split: SplitName, packed: PackedSplit) -> Iterator[str]:
    try:
        dataset = read_dataset(folder, split)
        if len(dataset) != len(packed.labels):
            yield f"the TFDS dataset has {len(dataset):,} examples"
            return
        for start, rows in packed.batches():
            examples = dataset.__getitems__(range(start, start + len(rows.labels)))
            for name, field in FEATURES.items():
                if not np.array_equal(np.stack([example[name] for example in examples]), getattr(rows, field)):
                    yield f"rows {start} …: {name} of the TFDS dataset differs from the packed arrays"
    except Exception as error:  # TFDS and ArrayRecord have no common error, and every failure to read means damage
        yield f"the TFDS dataset cannot be read ({type(error).__name__})"


def _report(manifest: Manifest) -> list[str]:
    counts = ", ".join(f"{split} {manifest.counts[split]:,}" for split in SPLITS)
    shares = ", ".join(f"{split} {100 * manifest.majority[split]:.1f} %" for split in SPLITS)
    lines = [
        f"{manifest.task}: {counts}; source {manifest.source} ({manifest.origin})"
        + ("; official contents" if manifest.official_contents else ""),
        f"majority class: {shares}",
        f"{'arrays, lengths, padding, labels' + (' and the TFDS dataset' if manifest.tfds else '')} agree; "
        f"fingerprint {manifest.fingerprint}",
    ]
    if manifest.validation_is_test:
        lines.append("validation is the test split, as published")
    return lines
