"""The result records: one immutable JSON per finished run, benchmark or robustness measurement.

These models are the truth; `results/schema.json` is made from them. No JAX.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

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
    validation_is_test: bool = Field(description="Text as published has no validation split and selects on test")


class Accuracies(Frozen):
    """Accuracies in [0, 1].

    `test` is of the checkpoint that was best on `selection`, scored once from that restored checkpoint.
    """

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


REMAT = "blocks kept their input only, and the backward pass computed the rest again"


class Throughput(Frozen):
    """What the training run itself measured, after compilation. `bench` measures with more care."""

    steps: int
    train_seconds: float = Field(
        description="in training steps, over all sessions; evaluation and compilation excluded"
    )
    examples_per_second: float
    examples_per_second_per_device: float
    tokens_per_second: float
    compile_seconds: float
    peak_memory_bytes: int | None
    peak_memory_source: Literal["device", "compiler estimate", "not measured"]
    remat: bool = Field(default=False, description=REMAT)


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
    published_recipe: bool = Field(description="as published, on the full data, nothing overridden, nothing cut short")
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


class Timing(Frozen):
    """Seconds of one call, from timed windows after warm-up; compilation is apart."""

    median: float = Field(gt=0)
    q1: float = Field(gt=0)
    q3: float = Field(gt=0)
    windows: int = Field(ge=1)
    calls: int = Field(ge=1, description="calls in each window")
    warmup: int = Field(ge=0, description="calls before the first window")


class Measurement(Frozen):
    """One kind of call at one fixed shape. Rates are per device: global batch / (median seconds x devices)."""

    call: Literal["train", "forward", "recurrent"]
    input: Literal["synthetic", "data"]
    seconds: Timing
    examples_per_second_per_device: float | None = Field(
        description="None for the recurrent step: it sees no whole example"
    )
    tokens_per_second_per_device: float
    compile_seconds: float
    peak_memory_bytes: int | None = Field(description="per device")
    peak_memory_source: Literal["device", "compiler estimate", "not measured"]
    flops: float | None = Field(description="of one call, from the compiler's cost analysis")
    bytes_accessed: float | None = Field(description="of one call, from the compiler's cost analysis")
    floor_fraction: float | None = Field(description="measured device floor / median seconds; None if not measured")


class BenchRecord(Frozen):
    """Speed and memory of one model at one fixed shape on one kind of device."""

    schema_version: Literal[1]
    kind: Literal["bench"]
    model: str
    digest: str = Field(description="over recipe, shape, precision and device kind")
    task: str = Field(description="whose shape this is")
    length: int = Field(ge=1, description="L, steps of each document")
    batch_size: int = Field(ge=1, description="global batch")
    parameters: int
    recipe: Recipe
    overrides: dict[str, Any]
    remat: bool = Field(default=False, description=REMAT)
    measurements: list[Measurement]
    system: System
    provenance: Provenance
    note: str = ""


class NoisePoint(Frozen):
    """Test accuracy with one Fourier mode added to the input of every state space layer."""

    frequency: float = Field(description="ω of cos(ω·Δ·t), in the continuous time of each channel")
    amplitude: float = Field(ge=0)
    accuracy: float = Field(ge=0, le=1)


class RobustnessRecord(Frozen):
    """One trained run, tested under Fourier-mode noise (PTD paper §3; spec/models.md §4.1)."""

    schema_version: Literal[1]
    kind: Literal["robustness"]
    model: str
    digest: str = Field(description="of the training run")
    seed: int = Field(description="of the training run")
    published_recipe: bool
    data: DataInfo
    clean: float = Field(ge=0, le=1, description="test accuracy without noise, same checkpoint and examples")
    majority: float = Field(ge=0, le=1)
    examples: int = Field(ge=1, description="test examples scored at each point")
    noise_seed: int
    points: list[NoisePoint]
    system: System
    provenance: Provenance
    note: str = ""


AnyRecord = Annotated[Record | BenchRecord | RobustnessRecord, Field(discriminator="kind")]
_ANY: TypeAdapter[Record | BenchRecord | RobustnessRecord] = TypeAdapter(AnyRecord)

MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}
"""From each older schema version to the next. A record is lifted step by step, in memory; its file stays as written."""


def schema() -> dict[str, Any]:
    """The JSON schema of every record kind, as `results/schema.json` holds it."""
    dialect = "https://json-schema.org/draft/2020-12/schema"
    return {"$schema": dialect, "title": "lra-bench result record", **_ANY.json_schema()}


def record_path(results_dir: Path, task: str, model: str, digest: str, seed: int) -> Path:
    """Where a training record lies."""
    return results_dir / _folder(task) / _folder(model) / f"{_folder(digest)}-s{seed}.json"


def path_of(results_dir: Path, record: AnyRecord) -> Path:
    """Where this record lies, whatever its kind."""
    if isinstance(record, Record):
        return record_path(results_dir, record.data.task, record.model, record.digest, record.seed)
    if isinstance(record, RobustnessRecord):
        folder = results_dir / _folder(record.data.task) / _folder(record.model)
        return folder / f"robustness-{_folder(record.digest)}-s{record.seed}.json"
    return results_dir / _folder(record.task) / _folder(record.model) / f"bench-{_folder(record.digest)}.json"


def _folder(name: str) -> str:
    """`name`, if it can be one folder or file name: a record from elsewhere must not write outside results/."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.:+-]*", name):
        raise UserError(
            f"{name!r} cannot name a results folder: legal are letters, digits and _ . : + -, at first no . : + -."
        )
    return name


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write `content` (text as UTF-8) so that a reader, or a crash, sees the whole file or none of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as out:
            out.write(content.encode() if isinstance(content, str) else content)
            out.flush()
            os.fsync(out.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_record(results_dir: Path, record: AnyRecord) -> Path:
    """Write the record once; a file with the same content is left alone, one with other content is an error."""
    path = path_of(results_dir, record)
    text = json.dumps(record.model_dump(mode="json"), indent=1, sort_keys=True) + "\n"
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return path
    if path.exists():
        raise UserError(f"{path} already holds another result of this run. Records are never edited: remove it first.")
    write_atomically(path, text)
    return path


def parse_record(text: str, name: str) -> Record | BenchRecord | RobustnessRecord:
    """The record in `text`, lifted to this schema version. Raises UserError naming `name` and what is wrong in it."""
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{name} is not JSON: {error}.") from None
    found = data.get("schema_version") if isinstance(data, dict) else None
    while isinstance(found, int) and found in MIGRATIONS:
        data = MIGRATIONS[found](data)
        found = data["schema_version"]
    if found != SCHEMA_VERSION or isinstance(found, bool):
        raise UserError(
            f"{name} has schema version {found!r}; this lra-bench reads version {SCHEMA_VERSION}. "
            "Use the lra-bench that wrote it, or remove it."
        )
    try:
        return _ANY.validate_python(data)
    except ValidationError as error:
        raise UserError(f"{name} is not a result record: {explain(error)}") from None


def load_any(path: Path) -> Record | BenchRecord | RobustnessRecord:
    """Read one record of any kind. Raises UserError naming the file and what is wrong in it."""
    try:
        return parse_record(path.read_text(encoding="utf-8"), str(path))
    except UnicodeDecodeError:
        raise UserError(f"{path} is not JSON: it is not UTF-8 text.") from None


def load_record(path: Path) -> Record:
    """Read one training record. Raises UserError naming the file and what is wrong in it."""
    record = load_any(path)
    if not isinstance(record, Record):
        raise UserError(f"{path} is a {record.kind} record; a training record (kind train) is wanted here.")
    return record


def record_files(results_dir: Path) -> list[Path]:
    """The files of all records below `results_dir`, in path order."""
    return sorted(path for path in results_dir.glob("*/*/*.json") if not path.name.startswith("."))


def load_records(results_dir: Path) -> list[Record]:
    """All training records below `results_dir`, in path order."""
    return [record for record in map(load_any, record_files(results_dir)) if isinstance(record, Record)]
