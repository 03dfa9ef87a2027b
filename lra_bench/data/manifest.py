"""What a prepared task is: `manifest.json`, written last, so its presence means done. Finding and choosing sets."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from lra_bench.datasource import Layout
from lra_bench.errors import UserError
from lra_bench.paths import data_folder
from lra_bench.registry import every_task_name
from lra_bench.spec import SPLITS, DataInfo, Frozen, Protocol, Source, SplitName, explain, unknown

MANIFEST_VERSION = 1
FILE = "manifest.json"


class RawFile(Frozen):
    """A file the examples were read from."""

    name: str
    bytes: int
    sha256: str
    url: str | None = Field(description="where it was downloaded; None for a user's own copy")


class PackedFile(Frozen):
    """One array, relative to the prepared folder."""

    path: str
    bytes: int
    sha256: str = Field(description="of the whole .npy file")
    data_sha256: str = Field(description="of the array's bytes in C order, without the file's header")


class Manifest(Frozen):
    """Everything that is known about one prepared set."""

    manifest_version: Literal[1]
    task: str
    version: str
    protocol: Protocol
    source: Source
    origin: str = Field(description="which server, file or generator, for people")
    size: str
    seed: int | None = Field(description="of the generator; None where the examples were read")
    val_fraction: float | None
    parameters: dict[str, Any] = Field(description="of the generator, or how the files were read")
    vocabulary: list[str] | None = Field(description="token of each id; None for pixels")
    documents: Literal[1, 2]
    length: int
    classes: int
    counts: dict[SplitName, int]
    validation_is_test: bool
    distinct: bool = Field(description="no two examples of the whole set are equal")
    majority: dict[SplitName, float] = Field(description="share of the most frequent class")
    raw: list[RawFile]
    packed: list[PackedFile]
    fingerprint: str
    lra_bench_version: str

    @property
    def layout(self) -> Layout:
        vocabulary = None if self.vocabulary is None else tuple(self.vocabulary)
        return Layout(self.counts, self.documents, self.length, self.classes, vocabulary, self.validation_is_test)

    @property
    def data_info(self) -> DataInfo:
        """What a result records about its data."""
        return DataInfo(
            task=self.task,
            version=self.version,
            protocol=self.protocol,
            source=self.source,
            size=self.size,
            fingerprint=self.fingerprint,
            length=self.length,
            classes=self.classes,
            counts=self.counts,
            validation_is_test=self.validation_is_test,
        )


def fingerprint_of(task: str, version: str, protocol: Protocol, layout: Layout, packed: list[PackedFile]) -> str:
    """First 16 hex digits of the SHA-256 over all that defines the examples, whatever the layout of the files."""
    meaning = {
        "task": task,
        "version": version,
        "protocol": protocol,
        "vocabulary": layout.vocabulary,
        "documents": layout.documents,
        "length": layout.length,
        "classes": layout.classes,
        "counts": {split: layout.counts[split] for split in SPLITS},
        "validation_is_test": layout.validation_is_test,
        "arrays": {file.path: file.data_sha256 for file in packed},
    }
    return hashlib.sha256(json.dumps(meaning, sort_keys=True).encode()).hexdigest()[:16]


def load_manifest(folder: Path) -> Manifest:
    """Raises UserError where the manifest is missing, damaged or of another version."""
    path = folder / FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        found = values.get("manifest_version") if isinstance(values, dict) else None
        if found != MANIFEST_VERSION:
            raise UserError(
                f"{path} has manifest version {found!r}; this lra-bench reads version {MANIFEST_VERSION}. "
                "Remove the folder and prepare the task again."
            )
        return Manifest.model_validate(values)
    except FileNotFoundError:
        raise UserError(f"{folder} is not a prepared task: it has no {FILE}.") from None
    except ValidationError as error:
        raise UserError(f"{path} is damaged ({explain(error)}) Remove the folder and prepare the task again.") from None
    except ValueError:
        raise UserError(f"{path} is not JSON. Remove the folder and prepare the task again.") from None


def prepared_sets(task: str | None = None) -> list[tuple[Path, Manifest]]:
    """All prepared sets, or those of one task: tasks in the paper's order, the best set (see `find_prepared`) first."""
    if task is not None and task not in every_task_name():
        raise unknown("task", task, every_task_name())
    found = [
        (path.parent, load_manifest(path.parent))
        for name in ([task] if task else every_task_name())
        for path in sorted((data_folder() / name).glob(f"*/{FILE}"))
        if not path.parent.name.startswith(".")
    ]
    order = every_task_name()
    return sorted(found, key=lambda item: (order.index(item[1].task), *_rank(item[1]), item[0].name))


_SOURCES: tuple[Source, ...] = ("official", "mirror", "user", "generated")


def _rank(manifest: Manifest) -> tuple[int, ...]:
    """Full sets before numbers before tiny ones, then s4 first, the published validation split, the best source."""
    return (
        {"full": 0, "tiny": 2}.get(manifest.size, 1),
        manifest.protocol != "s4",
        -int(manifest.size) if manifest.size.isdigit() else 0,
        manifest.val_fraction is not None,
        _SOURCES.index(manifest.source),
        manifest.seed or 0,
    )


def find_prepared(
    task: str, protocol: Protocol | None = None, size: str | None = None, name: str | None = None
) -> tuple[Path, Manifest]:
    """The prepared set that training uses: full before a number before tiny, s4 before lra, official before generated;
    or the one whose folder is called `name`.

    Raises UserError saying what to type where there is none.
    """
    everything = prepared_sets(task)
    if name is not None:
        everything = [(folder, manifest) for folder, manifest in everything if folder.name == name]
        if not everything:
            raise unknown(f"prepared set of {task}", name, [folder.name for folder, _ in prepared_sets(task)])
    fitting = [
        (folder, manifest)
        for folder, manifest in everything
        if protocol in (None, manifest.protocol) and size in (None, manifest.size)
    ]
    if fitting:
        return fitting[0]
    options = "".join(f" --{key} {value}" for key, value in (("protocol", protocol), ("size", size)) if value)
    have = ", ".join(f"{manifest.protocol} {manifest.size}" for _, manifest in everything)
    others = f" (prepared: {have})" if have else ""
    asked = f" with{options}" if options else ""
    raise UserError(f"{task} is not prepared{asked}{others}. Type: lra-bench prepare {task}{options}")
