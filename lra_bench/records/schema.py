"""The result records: one immutable JSON per finished run, benchmark or robustness measurement.

These models are the truth; `results/schema.json` is made from them. No JAX.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from lra_bench.spec import DataInfo, Frozen, Recipe

SCHEMA_VERSION = 1


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
    roofline_fraction: float | None = Field(
        description="least seconds by the best rates measured on the device / median seconds; None if not measured"
    )


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
    """One trained run, tested under Fourier-mode noise (Yu et al. 2024, arXiv 2310.01698, section 3)."""

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
any_record: TypeAdapter[Record | BenchRecord | RobustnessRecord] = TypeAdapter(AnyRecord)


def schema() -> dict[str, Any]:
    """The JSON schema of every record kind, as `results/schema.json` holds it."""
    dialect = "https://json-schema.org/draft/2020-12/schema"
    return {"$schema": dialect, "title": "lra-bench result record", **any_record.json_schema()}
