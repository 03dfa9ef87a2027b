"""The result record: one immutable JSON per finished run. This model is the truth; `results/schema.json` is made from it. No JAX."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from lra_bench import UserError
from lra_bench.spec import Frozen, Protocol, Recipe, Source, SplitName, explain

SCHEMA_VERSION = 1


class DataInfo(Frozen):
    """Which examples were used: records with different fingerprints never share a table cell."""

    task: str
    version: str
    protocol: Protocol
    source: Source
    size: str = Field(description="`full`, or what else was prepared: `tiny`, or a number of examples")
    fingerprint: str
    length: int = Field(description="L, padded steps per document")
    classes: int
    counts: dict[SplitName, int]
    validation_is_test: bool = Field(description="the published protocol of Text has no validation split and selects on test")


class Accuracies(Frozen):
    """Accuracies in [0, 1]. `test` is of the checkpoint that was best on `selection`, scored once from that restored checkpoint."""

    selection: Literal["val", "test", "last"]
    best_val: float | None
    best_epoch: float | None
    test: float | None
    test_loss: float | None
    last_val: float | None
    last_test: float | None = Field(description="test accuracy of the final step's parameters")
    majority: float = Field(description="share of the most frequent class in the test split used")


class CurvePoint(Frozen):
    epoch: float
    step: int
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float


class Throughput(Frozen):
    """What the training run itself measured, after compilation. `bench` measures with more care."""

    steps: int
    train_seconds: float = Field(description="in training steps, over all sessions of the run; evaluation and compilation excluded")
    examples_per_second: float
    examples_per_second_per_device: float
    tokens_per_second: float
    compile_seconds: float
    peak_memory_bytes: int | None
    peak_memory_source: Literal["device", "compiler estimate", "not measured"]


class System(Frozen):
    """Hardware and software, without host or user names."""

    platform: str = Field(description="cpu, gpu or tpu")
    device_kind: str
    devices: int
    processes: int
    cpu: str
    cores: int
    memory_gib: float
    os: str
    python: str
    versions: dict[str, str]
    precision: str
    matmul_precision: str


class Provenance(Frozen):
    lra_bench_version: str
    git_commit: str | None
    git_dirty: bool | None
    finished: str = Field(description="UTC date and time, ISO 8601")
    command: str = Field(description="what repeats the run")


class Record(Frozen):
    """One training run."""

    schema_version: Literal[1]
    kind: Literal["train"]
    model: str
    digest: str = Field(description="over everything that changes the numbers but the seed")
    seed: int
    status: Literal["completed", "diverged", "interrupted"]
    published_recipe: bool = Field(description="the recipe as published, on the full data, nothing overridden, nothing cut short")
    data: DataInfo
    recipe: Recipe
    overrides: dict[str, Any]
    parameters: int
    accuracy: Accuracies
    curve: list[CurvePoint]
    throughput: Throughput
    system: System
    provenance: Provenance
    note: str = ""


def record_path(results_dir: Path, task: str, model: str, digest: str, seed: int) -> Path:
    return results_dir / task / model / f"{digest}-s{seed}.json"


def write_atomically(path: Path, text: str) -> None:
    """Write `text` so that a reader, or a crash, sees the whole file or none of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_record(results_dir: Path, record: Record) -> Path:
    """Write the record once; an existing file with the same content is left alone, one with other content is an error."""
    path = record_path(results_dir, record.data.task, record.model, record.digest, record.seed)
    text = json.dumps(record.model_dump(mode="json"), indent=1, sort_keys=True) + "\n"
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return path
    if path.exists():
        raise UserError(f"{path} already holds another result of this run. Records are never edited: remove it to write anew.")
    write_atomically(path, text)
    return path


def load_record(path: Path) -> Record:
    """Read one record. Raises UserError naming the file and what is wrong in it."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        found = data.get("schema_version") if isinstance(data, dict) else None
        if found != SCHEMA_VERSION:
            raise UserError(
                f"{path} has schema version {found!r}; this lra-bench reads version {SCHEMA_VERSION}. "
                "Use the lra-bench that wrote it, or remove it."
            )
        return Record.model_validate(data)
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not JSON: {error}.") from None
    except ValidationError as error:
        raise UserError(f"{path} is not a result record: {explain(error)}") from None


def load_records(results_dir: Path) -> list[Record]:
    """All records below `results_dir`, in path order."""
    return [load_record(path) for path in sorted(results_dir.glob("*/*/*-s*.json"))]
