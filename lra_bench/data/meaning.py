"""What the examples of a set must mean, whatever their shape: balanced classes, separate splits, official contents.

Chance and the few repeats of the published sets are allowed for. Everything is found in the packed arrays.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from lra_bench.data.manifest import Manifest
from lra_bench.data.packed import PackedSplit, majority_share
from lra_bench.datasource import Rows
from lra_bench.spec import SPLITS, SplitName, Task

BALANCE = 0.03
"""The allowed difference between a split's majority rate and the task's, besides chance."""

ODDS = 1e-6
"""The probability below which chance is no explanation."""

COMMON = 0.1
"""The share of a split's inputs that may also occur elsewhere. In the published sets it is below a hundredth."""

FEW = 5
"""The number of common inputs that says nothing about a set."""

UNKNOWN = "<unk>"
"""The token of everything that the vocabulary of a protocol leaves out."""

EXAMPLES_PER_CLASS = 20
"""The number of examples of a split, per class, from which every class must occur.

The rarest class of all tasks has 0.7 times its equal share, so a class that is missing then has a chance below `ODDS`.
"""


class Inputs:
    """The inputs of a set, to find those that occur more than once.

    An input with `<unk>` is left out, because different texts can become the same ids.
    """

    def __init__(self, manifest: Manifest) -> None:
        """Begin without inputs of the set that `manifest` describes."""
        self._manifest = manifest
        words = manifest.vocabulary or []
        self._unknown = words.index(UNKNOWN) if UNKNOWN in words else None
        self._splits: dict[bytes, set[SplitName]] = {}
        self.repeats: Counter[SplitName] = Counter()
        """The inputs of a split that repeat an earlier one of it."""
        self.common: Counter[tuple[SplitName, SplitName]] = Counter()
        """The different inputs of a split (first) that also occur in an earlier split (second)."""

    def add(self, split: SplitName, rows: Rows) -> int:
        """Add rows of a split. Splits come in the order of `SPLITS`. Returns how many inputs occurred before."""
        known = 0
        whole = rows.inputs if self._unknown is None else rows.inputs[~self._has_unknown(rows)]
        for row in whole:
            key = hashlib.blake2b(row.tobytes(), digest_size=16).digest()
            have = self._splits.setdefault(key, set())
            known += bool(have)
            if split in have:
                self.repeats[split] += 1
            for other in have - {split}:
                self.common[split, other] += split not in have
            have.add(split)
        return known

    def _has_unknown(self, rows: Rows) -> NDArray[np.bool_]:
        return (rows.inputs == self._unknown).reshape(len(rows.inputs), -1).any(axis=1)

    def problems(self) -> list[str]:
        """List splits that are not separate, and splits of few different inputs."""
        counts, found = self._manifest.counts, []
        for (split, other), n in self._common().items():
            if n >= FEW and n > COMMON * counts[split]:
                found.append(f"{split}: {n:,} of {counts[split]:,} inputs also occur in {other}")
        for split, n in self.repeats.items():
            if n >= FEW and n > COMMON * counts[split]:
                found.append(f"{split}: {n:,} of {counts[split]:,} inputs repeat another one of the split")
        return found

    def notes(self) -> list[str]:
        """Return one line that counts what occurs more than once; none if nothing does."""
        told = [f"{n:,} of {split} also in {other}" for (split, other), n in self._common().items()]
        told += [f"{n:,} of {split} twice" for split, n in self.repeats.items() if n]
        return [f"equal inputs: {', '.join(told)}"] if told else []

    def _common(self) -> dict[tuple[SplitName, SplitName], int]:
        """Return the common inputs, without those of a validation split that is the test split."""
        copies = {("test", "val")} if self._manifest.validation_is_test else set()
        return {key: n for key, n in self.common.items() if n and key not in copies}


def label_problems(manifest: Manifest, task: Task, split: SplitName, labels: NDArray[np.int32]) -> list[str]:
    """List what is wrong with the classes of a split: their range, their number, the share of the most frequent one."""
    if ((labels < 0) | (labels >= manifest.classes)).any():
        return [f"{split}: labels lie outside 0 … {manifest.classes - 1}"]
    if manifest.source == "generated" and manifest.size == "tiny":
        return []
    n, share = len(labels), majority_share(labels)
    if manifest.size == "full":
        chance = 4 * (task.majority * (1 - task.majority) / n) ** 0.5
        wrong = abs(share - task.majority) > BALANCE + chance
    else:
        wrong = _is_no_chance(share, task.majority + BALANCE, n, manifest.classes)
    if wrong:
        return [f"{split}: the majority class has {share:.1%} of the examples; about {task.majority:.1%} are expected"]
    missing = set(range(manifest.classes)) - set(np.unique(labels).tolist())
    if missing and n >= EXAMPLES_PER_CLASS * manifest.classes:
        return [f"{split}: none of {n:,} examples has the class {', '.join(map(str, sorted(missing)))}"]
    return []


def _is_no_chance(share: float, expected: float, n: int, classes: int) -> bool:
    """Whether one of the classes has such a share of n examples with a probability below `ODDS` (Chernoff's bound)."""
    if share <= expected:
        return False
    divergence = share * math.log(share / expected)
    if share < 1:
        divergence += (1 - share) * math.log((1 - share) / (1 - expected))
    return classes * math.exp(-n * divergence) < ODDS


def contents_problems(manifest: Manifest, task: Task) -> list[str]:
    """List a set that claims to be the official one and has other examples."""
    if manifest.source in ("official", "mirror") and _differs(manifest, task):
        return ["the examples are not those of the official files"]
    return []


def contents_notes(manifest: Manifest, task: Task) -> list[str]:
    """Return one line where a whole set of the user's has other examples than the official files; none elsewhere."""
    if manifest.source == "user" and _differs(manifest, task):
        return ["the contents differ from those of the official files: results are not comparable with published ones"]
    return []


def _differs(manifest: Manifest, task: Task) -> bool:
    known = manifest.protocol in task.official
    return manifest.size == "full" and manifest.val_fraction is None and known and not manifest.official_contents


def problems_of_files(manifest: Manifest, task: Task, splits: Mapping[SplitName, PackedSplit]) -> Iterator[str]:
    """Yield everything that is wrong with the meaning of a set that was read from files."""
    yield from contents_problems(manifest, task)
    inputs = Inputs(manifest)
    for split in SPLITS:
        yield from label_problems(manifest, task, split, np.asarray(splits[split].labels))
        for _, rows in splits[split].batches():
            inputs.add(split, rows)
    yield from inputs.problems()
