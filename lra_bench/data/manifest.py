"""The manifest of a prepared set, and the search for prepared sets.

`manifest.json` is written last, so its presence means that the set is finished.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from lra_bench.datasource import Layout, Request
from lra_bench.errors import UserError
from lra_bench.json_files import read_json
from lra_bench.paths import data_folder
from lra_bench.plain_text import shortened
from lra_bench.progress import warn
from lra_bench.registry import every_task_name, has_official_contents, task_module
from lra_bench.spec import (
    SPLITS,
    Count,
    DataInfo,
    Frozen,
    Name,
    Positive,
    Protocol,
    Size,
    Source,
    SplitName,
    Text,
    explain,
    unknown,
)

MANIFEST_VERSION = 2
"""The version of the manifest's format. One of version 1 need not have a SHA-256 of its own."""

ONE = 25
"""The number of examples that chance gives one class only. A larger split of one class is a wrong set."""

FILE = "manifest.json"
"""The name of the manifest in a prepared folder."""


class RawFile(Frozen):
    """A raw file that the examples were read from."""

    name: str
    bytes: int
    sha256: str
    url: str | None = Field(description="the address of the download; None for a user's own copy")


class PackedFile(Frozen):
    """One packed array; `path` is relative to the prepared folder."""

    path: str
    bytes: int
    sha256: str = Field(description="the SHA-256 of the whole .npy file")
    data_sha256: str = Field(description="the SHA-256 of the array's bytes in C order, without the file's header")


class Manifest(Frozen):
    """The manifest holds everything that is known about one prepared set."""

    manifest_version: Literal[1, 2]
    task: Name
    version: Name
    protocol: Protocol
    source: Source
    origin: Text = Field(description="the server, file or generator in words")
    size: Size
    seed: int | None = Field(description="the seed of the generator; None where the examples were read from files")
    val_fraction: float | None
    parameters: dict[str, Any] = Field(description="the parameters of the generator or the reader")
    vocabulary: list[str] | None = Field(description="the token of each id; None for pixels")
    documents: Literal[1, 2]
    length: Positive
    classes: Positive
    counts: dict[SplitName, Count]
    validation_is_test: bool
    distinct: bool = Field(description="whether no two examples of the whole set are equal")
    majority: dict[SplitName, float] = Field(description="the fraction of each split in its most frequent class")
    raw: list[RawFile]
    packed: list[PackedFile]
    fingerprint: Name
    official_contents: bool = Field(
        default=False, description="whether the fingerprint is that of the official files, whoever's copy was read"
    )
    channels: Literal[1, 3] = Field(default=1, description="the values at each position: 3 for images in color")
    tfds: bool = Field(default=True, description="whether the folder also holds the examples as a TFDS dataset")
    lra_bench_version: str
    manifest_sha256: str | None = Field(
        default=None, description="the SHA-256 of the other fields; None in some sets of version 1"
    )

    @model_validator(mode="after")
    def _claims_what_can_be_computed_again(self) -> Manifest:
        if set(self.counts) != set(SPLITS):
            raise ValueError(f"it counts the examples of {', '.join(self.counts)}, not of {', '.join(SPLITS)}")
        if self.fingerprint != fingerprint_of(self.task, self.version, self.protocol, self.layout, self.packed):
            raise ValueError("its fingerprint is not that of the examples that it describes")
        if self.official_contents and not has_official_contents(self.task, self.protocol, self.fingerprint):
            raise ValueError("it claims official contents, and its fingerprint is another")
        problem = self._source_problem()
        if problem:
            raise ValueError(f"it calls its source {self.source}, and {problem}")
        return self

    def _source_problem(self) -> str | None:
        """What the manifest says of itself that contradicts its source kind; None where nothing does."""
        generated, downloaded = self.source == "generated", any(file.url for file in self.raw)
        if generated != (self.seed is not None):
            return "it has no seed of a generator" if generated else "it has the seed of a generator"
        if generated != (not self.raw):
            return "it was read from files" if generated else "it was read from no file"
        return "its files were downloaded" if self.source == "user" and downloaded else None

    @property
    def layout(self) -> Layout:
        """The layout of the packed arrays."""
        vocabulary = None if self.vocabulary is None else tuple(self.vocabulary)
        shape = self.documents, self.length, self.classes
        return Layout(self.counts, *shape, vocabulary, self.validation_is_test, self.channels)

    @property
    def data_info(self) -> DataInfo:
        """The part of the manifest that a result records about its data."""
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
    """Return the first 16 hex digits of the SHA-256 over everything that defines the examples.

    The headers of the files do not enter, so the fingerprint does not depend on the file format.
    """
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
    # Left out where there is one, so that fingerprints are those of versions that knew no channels.
    meaning |= {} if layout.channels == 1 else {"channels": layout.channels}
    return hashlib.sha256(json.dumps(meaning, sort_keys=True).encode()).hexdigest()[:16]


def manifest_text(manifest: Manifest) -> str:
    """Return the content of the manifest's file, with the SHA-256 of all of it."""
    values = json.loads(manifest.model_dump_json(exclude={"manifest_sha256"}))
    return json.dumps(values | {"manifest_sha256": _hash_of(values)}, indent=1, ensure_ascii=False) + "\n"


def _hash_of(values: dict[str, Any]) -> str:
    """Return the SHA-256 of a manifest's fields but for the hash itself, whatever their order."""
    fields = {key: value for key, value in values.items() if key != "manifest_sha256"}
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def typed_options(values: Mapping[str, Any]) -> str:
    """The options of `prepare` for a set, from its manifest's fields, which may be damaged."""
    legal = {"protocol": "s4|lra", "size": r"full|tiny|\d+", "seed": r"[1-9]\d*", "val_fraction": r"0\.\d+"}
    return "".join(
        f" --{name.replace('_', '-')} {values[name]}"
        for name, pattern in legal.items()
        if re.fullmatch(pattern, str(values.get(name)), re.ASCII)
    )


def prepare_again(folder: Path, values: Mapping[str, Any]) -> str:
    """Say what to type to prepare the set of a folder again, from its manifest's fields, which may be damaged."""
    own = " --from PATH" if values.get("source") == "user" else ""
    return f"Remove {folder}, then type: lra-bench prepare {folder.parent.name}{typed_options(values)}{own}"


def load_manifest(folder: Path) -> Manifest:
    """Read the manifest of a prepared folder.

    Raises UserError if it is missing, damaged, of another version, not as `prepare` wrote it, or of a set that is not
    what it says.
    """
    path = folder / FILE
    if not path.exists():
        raise UserError(f"{folder} is not a prepared task: it has no {FILE}.")
    try:
        # A vocabulary holds whatever characters the texts have.
        values = read_json(path, control_characters=True)
    except UserError as error:
        raise UserError(f"{error} {prepare_again(folder, {})}") from None
    fields = values if isinstance(values, dict) else {}
    found, again = fields.get("manifest_version"), prepare_again(folder, fields)
    if found not in (1, MANIFEST_VERSION):
        raise UserError(
            f"{path} has manifest version {shortened(repr(found))}; this lra-bench reads versions 1 and "
            f"{MANIFEST_VERSION}. {again}"
        )
    if fields.get("manifest_sha256") is None and found == MANIFEST_VERSION:
        raise UserError(f"{path} was changed after it was written: it has lost its SHA-256. {again}")
    if fields.get("manifest_sha256") not in (None, _hash_of(fields)):
        raise UserError(f"{path} was changed after it was written: its fields have another SHA-256. {again}")
    try:
        manifest = Manifest.model_validate(values, strict=True)
    except ValidationError as error:
        raise UserError(f"{path} is damaged ({explain(error)}) {again}") from None
    problem = _size_problem(manifest) or _class_problem(manifest)
    if problem:
        raise UserError(f"{folder} {problem}. {again}")
    return manifest


def _size_problem(manifest: Manifest) -> str | None:
    """What the number of examples of a set contradicts in its size; None where nothing does.

    Nothing is known of the sets of other versions of the task, or of tasks that this lra-bench does not have.
    """
    if manifest.task not in every_task_name() or manifest.version != task_module(manifest.task).TASK.version:
        return None
    counts, size = manifest.counts, manifest.size
    try:
        expected = _counts_of(manifest) if size in ("full", "tiny") else None
    except UserError:  # there is no such set of this task
        return "says that it was prepared with options which do not go with its task"
    if size.isdigit():
        fits = sum(counts.values()) == int(size)
    elif expected is None:
        fits = size == "tiny"
    elif size == "full" and manifest.val_fraction is not None:
        # Validation is cut out of train, so that only their sum is published.
        published = (expected["train"], expected["train"] + expected["val"])
        fits = counts["test"] == expected["test"] and counts["train"] + counts["val"] in published
    else:
        fits = counts == expected
    if fits:
        return None
    known = "" if expected is None else f"; those of this size are {_listed(expected)}"
    return f"is called {size} and holds {_listed(counts)} examples of {', '.join(SPLITS)}{known}"


def _counts_of(manifest: Manifest) -> Mapping[SplitName, int] | None:
    """The number of examples of each split of the full or the tiny set; None for a tiny set that cannot be made."""
    module = task_module(manifest.task)
    if manifest.size == "full":
        return module.TASK.splits
    made = module.DATA.generator(Request(manifest.protocol, "tiny", 0, manifest.val_fraction))
    return None if made is None else made.layout.counts


def _listed(counts: Mapping[SplitName, int]) -> str:
    return " / ".join(f"{counts[split]:,}" for split in SPLITS)


def _class_problem(manifest: Manifest) -> str | None:
    """That a split of a set has one class only, as earlier versions made them; None where none has."""
    if any(share == 1 and manifest.counts[split] > ONE for split, share in manifest.majority.items()):
        return "holds a split of one class only, as earlier versions made it"
    return None


def scan_sets(task: str | None = None) -> tuple[list[tuple[Path, Manifest]], dict[Path, str]]:
    """Return the folders and manifests of all prepared sets, or of those of one task, and the folders that cannot be
    used, with the reason.

    Tasks are in the paper's order. Within a task the best set comes first (see `find_prepared`). Raises UserError for
    an unknown task.
    """
    if task is not None and task not in every_task_name():
        raise unknown("task", task, every_task_name())
    found, damaged = [], {}
    for name in [task] if task else every_task_name():
        for path in sorted((data_folder() / name).glob(f"*/{FILE}")):
            folder = path.parent
            if folder.name.startswith("."):
                continue
            try:
                manifest = load_manifest(folder)
            except UserError as error:
                damaged[folder] = str(error)
                continue
            if manifest.task == name:
                found.append((folder, manifest))
            else:
                damaged[folder] = f"{path} is of {shortened(manifest.task)}, not of {name}. Remove the folder."
    order = every_task_name()
    return sorted(found, key=lambda item: (order.index(item[1].task), *_rank(item[1]), item[0].name)), damaged


def prepared_sets(task: str | None = None) -> list[tuple[Path, Manifest]]:
    """Return the folders and manifests of `scan_sets`, and warn of folders that cannot be used."""
    found, damaged = scan_sets(task)
    for reason in damaged.values():
        warn(f"left out: {reason}")
    return found


_SOURCES: tuple[Source, ...] = ("official", "mirror", "user", "generated")
"""The source kinds, best first."""


def _rank(manifest: Manifest) -> tuple[int, ...]:
    """Return the sort key of a set; the smallest is the best.

    Full sets precede numbers of examples, which precede tiny sets. Then come s4 before lra, the larger number, the
    published validation split, the best source kind and the smallest seed.
    """
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
    """Return the folder and the manifest of the prepared set that training uses.

    A full set is preferred to a number of examples and that to a tiny set, s4 to lra, official to generated. `name` is
    the name of the folder of one certain set. Raises UserError stating what to type if there is no such set.
    """
    everything = prepared_sets(task)
    if name is not None:
        everything = [(folder, manifest) for folder, manifest in everything if folder.name == name]
        if not everything and (data_folder() / task / name / FILE).exists():
            load_manifest(data_folder() / task / name)  # raises, with the reason why it is left out
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
