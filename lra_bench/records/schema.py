"""The schema of the result records: one immutable JSON file per finished run, benchmark, or further test of a run.

`results/schema.json` is generated from these models. This module imports no JAX.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from lra_bench.runs.pretraining import Pretraining
from lra_bench.spec import (
    Amount,
    Count,
    DataInfo,
    Frozen,
    Label,
    Loss,
    Name,
    NoiseKind,
    NoisePlace,
    Positive,
    Precision,
    Recipe,
    Seed,
    Share,
    Text,
)

SCHEMA_VERSION = 1
"""The `schema_version` of the records that this lra-bench writes and reads."""

MemorySource = Literal["device", "compiler estimate"]
"""The origin of a peak of memory: a measurement on the device, or the compiler's estimate for the program."""

REMAT = "whether blocks kept their input only, and the backward pass computed the rest again"
"""The description of the field `remat`, which two kinds of record have."""


class Accuracies(Frozen):
    """The accuracies of a run, as shares in [0, 1]."""

    selection: Literal["val", "test"] = Field(description="split on which the best checkpoint was chosen")
    best_val: Share | None = Field(description="highest validation accuracy of the run")
    best_epoch: Amount | None = Field(description="epochs after which the best checkpoint was saved")
    test: Share | None = Field(description="test accuracy of the best checkpoint, scored once after restoring it")
    test_loss: Loss | None = Field(description="mean test loss of the best checkpoint; None if not finite")
    last_val: Share | None = Field(description="validation accuracy of the final step's parameters")
    last_test: Share | None = Field(description="test accuracy of the final step's parameters")
    majority: Share = Field(description="share of the most frequent class in the test split used")


class CurvePoint(Frozen):
    """One point of a learning curve: losses, and accuracies in [0, 1], after `epoch` epochs of training."""

    epoch: Amount
    step: Count
    train_loss: Loss
    train_accuracy: Share
    val_loss: Loss
    val_accuracy: Share


class PretrainingPoint(Frozen):
    """One point of the curve of a self-pretraining: the mean loss of a predicted position after `epoch` epochs."""

    epoch: Amount
    step: Count
    train_loss: Loss
    val_loss: Loss


class Pretrained(Frozen):
    """What a self-pretraining took, and the epoch whose parameters the run starts from: that of least validation loss.

    Validation hides the same positions at every epoch. The head that predicts is dropped.
    """

    steps: Count
    seconds: Amount = Field(description="seconds spent in its training steps, over all sessions on these devices")
    best_epoch: Amount
    best_val_loss: Loss
    curve: list[PretrainingPoint]


class Throughput(Frozen):
    """The speed and memory that a run measured while it trained.

    `lra-bench bench` measures the same with warm-up and repeated windows.
    """

    steps: Count
    train_seconds: Amount = Field(
        description="seconds spent in training steps, over all sessions on these devices; evaluation and compilation "
        "excluded"
    )
    examples_per_second: Amount
    examples_per_second_per_device: Amount
    tokens_per_second: Amount
    compile_seconds: Amount
    peak_memory_bytes: Count | None
    peak_memory_source: MemorySource
    remat: bool = Field(default=False, description=REMAT)
    microbatch: Positive | None = Field(
        default=None, description="examples whose gradient was computed at once; None means the whole batch"
    )


class System(Frozen):
    """The hardware and software of a measurement, without host or user names."""

    platform: Label = Field(description="platform of JAX: cpu, gpu or tpu")
    device_kind: Label
    devices: Positive
    processes: Positive
    cpu: Label
    cores: Positive
    memory_gib: Amount
    os: Label
    python: Label
    versions: dict[Label, Label]
    precision: Precision = Field(description="precision that was asked for; records of different ones share no cell")
    matmul_precision: Label = Field(description="JAX's name for the products of float32 matrices that it stands for")


class Provenance(Frozen):
    """The origin of a record: the code, the time and the command."""

    lra_bench_version: Label
    git_commit: Label | None
    git_dirty: bool | None
    finished: Name = Field(description="UTC date and time of the end, ISO 8601")
    command: Text = Field(description="command that repeats the run")


Status = Literal["completed", "diverged", "stopped"]
"""How a run ended: with a test, at a loss that was not finite, or below a health mark."""


class Record(Frozen):
    """The record of one training run."""

    schema_version: Literal[1]
    kind: Literal["train"]
    model: Name
    digest: Name = Field(description="hash of everything that changes the numbers, except the seed")
    seed: Seed
    status: Status
    published_recipe: bool = Field(
        description="whether the recipe was used as published: full data, nothing overridden or cut short, no bfloat16"
    )
    data: DataInfo
    recipe: Recipe
    overrides: dict[str, Any]
    parameters: Count
    accuracy: Accuracies
    curve: list[CurvePoint]
    throughput: Throughput
    system: System
    provenance: Provenance
    note: Text = ""
    code: Name | None = Field(
        default=None,
        description="first digits of the SHA-256 of the file that defines a user's own layer; None for other models",
    )
    pretraining: Pretraining | None = Field(
        default=None, description="self-pretraining before the run; None for a run from random weights"
    )
    pretrained: Pretrained | None = Field(
        default=None, description="what the self-pretraining came to; None without one, and where it did not end"
    )


class Timing(Frozen):
    """The seconds of one call: median and quartiles over timed windows after warm-up, without compilation."""

    median: float = Field(gt=0, le=1e9)
    q1: float = Field(gt=0, le=1e9, description="first quartile")
    q3: float = Field(gt=0, le=1e9, description="third quartile")
    windows: Positive = Field(description="number of timed windows")
    calls: Positive = Field(description="number of calls in each window")
    warmup: Count = Field(description="number of calls before the first window")


class Measurement(Frozen):
    """The measurement of one kind of call at one fixed shape.

    Rates are per device: global batch / (median seconds x devices).
    """

    call: Literal["train", "forward", "recurrent"]
    input: Literal["synthetic", "data"]
    seconds: Timing
    examples_per_second_per_device: Amount | None = Field(
        description="examples per second per device; None for the recurrent step, which sees no whole example"
    )
    tokens_per_second_per_device: Amount
    compile_seconds: Amount
    peak_memory_bytes: Count | None = Field(description="peak memory per device, in bytes")
    peak_memory_source: MemorySource
    flops: float | None = Field(description="operations of one call, from the compiler's cost analysis")
    bytes_accessed: float | None = Field(description="bytes that one call accesses, from the compiler's cost analysis")
    roofline_fraction: float | None = Field(
        description="least possible seconds by the best rates measured on the device / median seconds; "
        "None where those rates were not measured"
    )


class BenchRecord(Frozen):
    """The record of a benchmark: speed and memory of one model at one fixed shape on one kind of device."""

    schema_version: Literal[1]
    kind: Literal["bench"]
    model: Name
    digest: Name = Field(description="hash of recipe, shape, precision and device kind")
    task: Name = Field(description="task that the shape is taken from")
    length: Positive = Field(description="L, the number of steps of each document")
    batch_size: Positive = Field(description="global batch size")
    parameters: Count
    recipe: Recipe
    overrides: dict[str, Any]
    remat: bool = Field(default=False, description=REMAT)
    measurements: list[Measurement] = Field(max_length=100)
    system: System
    provenance: Provenance
    note: Text = ""


class NoisePoint(Frozen):
    """The test accuracy under one noise, drawn with one seed."""

    frequency: float | None = Field(
        ge=-1e18,
        le=1e18,
        description="ω of the added mode cos(ω·Δ·t): in the continuous time of each channel, with its step Δ, where "
        "the noise is on the layers; in radians per pixel where it is on the input; None for Gaussian noise",
    )
    amplitude: Amount = Field(
        description="factor of the mode, which has another one, uniform in [0, 1], for each example and channel; "
        "standard deviation of Gaussian noise"
    )
    accuracy: Share
    place: NoisePlace = Field(
        default="layers", description="whether noise is added to the input of every layer, or to the scaled pixels"
    )
    noise: NoiseKind = "cosine"
    noise_seed: Seed | None = Field(default=None, description="seed of the noise; None means that of the record")


class RobustnessRecord(Frozen):
    """The record of a run tested under noise (Yu et al. 2024, arXiv 2310.01698, section 3)."""

    schema_version: Literal[1]
    kind: Literal["robustness"]
    model: Name
    digest: Name = Field(description="digest of the training run")
    seed: Seed = Field(description="seed of the training run")
    published_recipe: bool
    data: DataInfo
    clean: Share = Field(description="test accuracy without noise, of the same checkpoint and examples")
    majority: Share = Field(description="share of the most frequent class in the test split")
    examples: Positive = Field(description="number of test examples scored at each point")
    noise_seed: Seed
    points: list[NoisePoint] = Field(max_length=10_000)
    system: System
    provenance: Provenance
    note: Text = ""

    @property
    def noises(self) -> list[tuple[str, str, float | None, float, int]]:
        """What was measured: place, kind, frequency, amplitude and seed of every point's noise."""
        return [
            (
                point.place,
                point.noise,
                point.frequency,
                point.amplitude,
                self.noise_seed if point.noise_seed is None else point.noise_seed,
            )
            for point in self.points
        ]


class WindowRecord(Frozen):
    """The record of a run tested with every layer cut to a window: how far its accuracy rests on distant inputs."""

    schema_version: Literal[1]
    kind: Literal["window"]
    model: Name
    digest: Name = Field(description="digest of the training run")
    seed: Seed = Field(description="seed of the training run")
    published_recipe: bool
    data: DataInfo
    window: Positive = Field(
        description="w: in each layer, an output depends on the inputs less than w steps away, in each direction it has"
    )
    accuracy: Share = Field(description="test accuracy with this window, of the best checkpoint")
    whole: Share = Field(description="test accuracy without a window, of the same checkpoint and examples")
    majority: Share = Field(description="share of the most frequent class in the test split")
    examples: Positive = Field(description="number of test examples scored")
    system: System
    provenance: Provenance
    note: Text = ""


AnyRecord = Annotated[Record | BenchRecord | RobustnessRecord | WindowRecord, Field(discriminator="kind")]
"""A record of any kind; its field `kind` tells which."""

any_record: TypeAdapter[Record | BenchRecord | RobustnessRecord | WindowRecord] = TypeAdapter(AnyRecord)
"""The validator of a record of any kind."""


def schema() -> dict[str, Any]:
    """Return the JSON schema of every kind of record, the content of `results/schema.json`."""
    dialect = "https://json-schema.org/draft/2020-12/schema"
    return {"$schema": dialect, "title": "lra-bench result record", **any_record.json_schema()}
