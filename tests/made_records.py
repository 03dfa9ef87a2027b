"""Result records made for tests: real models of the schema, with the fields a test is about set by it.

`train_record`, `bench_record` and `robustness_record` are made up: they prove nothing (fixture `unproved`). What
`honest_record` and `honest_bench` make follows from the package, as a real run's does.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lra_bench.records.files import load_any, record_files
from lra_bench.records.proof import bench_digest
from lra_bench.records.schema import BenchRecord, Record, RobustnessRecord, System, WindowRecord
from lra_bench.registry import task_module
from lra_bench.runs.run import Run, make_run
from lra_bench.spec import DataInfo

MAJORITY = {"listops": 0.17, "text": 0.5, "retrieval": 0.5, "image": 0.1, "pathfinder": 0.5, "pathx": 0.5}
LENGTH = {"listops": 2048, "text": 4096, "retrieval": 4000, "image": 1024, "pathfinder": 1024, "pathx": 16384}
TESTS = {"listops": 2000, "text": 25000, "retrieval": 17437, "image": 10000, "pathfinder": 20000, "pathx": 20000}

RECIPE: dict[str, Any] = {
    "reference": "made for a test",
    "published": 62.15,
    "notes": "",
    "n_layers": 6,
    "d_model": 128,
    "norm": "batch",
    "prenorm": True,
    "norm_decay": 0.95,
    "bidirectional": True,
    "pooling": "mean",
    "embedding": 20,
    "pixels": None,
    "dropout": 0.0,
    "layer": {},
    "batch_size": 50,
    "epochs": 40.0,
    "lr": 0.003,
    "ssm_lr": 0.001,
    "weight_decay": 0.07,
    "adam_b2": 0.999,
    "adam_eps": 1e-8,
    "schedule": "reference",
    "warmup_epochs": 1.0,
    "decay_epochs": 40.0,
    "groups": {},
}
SYSTEM: dict[str, Any] = {
    "platform": "gpu",
    "device_kind": "NVIDIA H200",
    "devices": 1,
    "processes": 1,
    "cpu": "x86-64",
    "cores": 16,
    "memory_gib": 128.0,
    "os": "Linux",
    "python": "3.12",
    "versions": {"jax": "0.12.0"},
    "precision": "float32",
    "matmul_precision": "highest",
}
PROVENANCE: dict[str, Any] = {
    "lra_bench_version": "0.1.0",
    "git_commit": "0123456789abcdef0123",
    "git_dirty": False,
    "finished": "2026-11-22T04:00:00Z",
    "command": "lra-bench train",
}


def data_info(task: str, **change: Any) -> dict[str, Any]:
    made = {
        "task": task,
        "version": "1.0.0",
        "protocol": "s4",
        "source": "official",
        "size": "full",
        "fingerprint": f"fp-{task}",
        "length": LENGTH.get(task, 1000),
        "classes": 10 if task in ("listops", "image") else 2,
        "counts": {"train": 96000, "val": 2000, "test": TESTS.get(task, 1000)},
        "validation_is_test": task == "text",
    }
    return {**made, **change}


def train_record(
    model: str = "s5",
    task: str = "listops",
    seed: int = 0,
    test: float | None = 0.6,
    *,
    data: dict[str, Any] | None = None,
    accuracy: dict[str, Any] | None = None,
    throughput: dict[str, Any] | None = None,
    system: dict[str, Any] | None = None,
    provenance: dict[str, Any] | None = None,
    epochs: int = 4,
    **change: Any,
) -> Record:
    """A completed full run of a published recipe, but for what is changed."""
    final = 0.5 if test is None else test
    fields: dict[str, Any] = {
        "schema_version": 1,
        "kind": "train",
        "model": model,
        "digest": "aaaaaaaaaaaa",
        "seed": seed,
        "status": "completed",
        "published_recipe": True,
        "data": data_info(task, **(data or {})),
        "recipe": RECIPE,
        "overrides": {},
        "parameters": 188490,
        "accuracy": {
            "selection": "test" if task == "text" else "val",
            "best_val": final,
            "best_epoch": 3.0,
            "test": test,
            "test_loss": 1.0,
            "last_val": final,
            "last_test": test,
            "majority": MAJORITY.get(task, 0.5),
            **(accuracy or {}),
        },
        "curve": [
            {
                "epoch": float(e),
                "step": 1920 * e,
                "train_loss": 2.0 / e,
                "train_accuracy": final * e / epochs,
                "val_loss": 2.0 / e,
                "val_accuracy": final * e / epochs,
            }
            for e in range(1, epochs + 1)
        ],
        "throughput": {
            "steps": 76800,
            "train_seconds": 768.0,
            "examples_per_second": 5000.0,
            "examples_per_second_per_device": 5000.0,
            "tokens_per_second": 5000.0 * LENGTH.get(task, 1000),
            "compile_seconds": 12.0,
            "peak_memory_bytes": 3 * 2**30,
            "peak_memory_source": "device",
            **(throughput or {}),
        },
        "system": {**SYSTEM, **(system or {})},
        "provenance": {
            **PROVENANCE,
            "command": f"lra-bench train --model {model} --task {task} --seed {seed}",
            **(provenance or {}),
        },
        "note": "",
    }
    return Record.model_validate({**fields, **change})


def measurement(median: float, batch: int, length: int, call: str = "train", **change: Any) -> dict[str, Any]:
    made = {
        "call": call,
        "input": "synthetic",
        "seconds": {
            "median": median,
            "q1": 0.9 * median,
            "q3": 1.2 * median,
            "windows": 5,
            "calls": 10,
            "warmup": 20,
        },
        "examples_per_second_per_device": None if call == "recurrent" else batch / median,
        "tokens_per_second_per_device": batch * length / median if call != "recurrent" else batch / median,
        "compile_seconds": 9.5,
        "peak_memory_bytes": 2 * 2**30,
        "peak_memory_source": "device",
        "flops": 3.5e12,
        "bytes_accessed": 1e11,
        "roofline_fraction": 0.4,
    }
    return {**made, **change}


def bench_record(
    model: str = "s5",
    task: str = "listops",
    length: int = 2048,
    seconds: float = 0.01,
    *,
    system: dict[str, Any] | None = None,
    **change: Any,
) -> BenchRecord:
    batch = change.get("batch_size", 50)
    fields: dict[str, Any] = {
        "schema_version": 1,
        "kind": "bench",
        "model": model,
        "digest": f"b{length:011d}",
        "task": task,
        "length": length,
        "batch_size": batch,
        "parameters": 188490,
        "recipe": RECIPE,
        "overrides": {},
        "measurements": [
            measurement(seconds, batch, length),
            measurement(seconds / 3, batch, length, "forward"),
            measurement(seconds / 100, batch, length, "recurrent"),
        ],
        "system": {**SYSTEM, **(system or {})},
        "provenance": PROVENANCE,
        "note": "",
    }
    return BenchRecord.model_validate({**fields, **change})


def robustness_record(
    model: str = "s5", task: str = "image", seed: int = 0, points: dict[float, float] | None = None, **change: Any
) -> RobustnessRecord:
    curve = points or {1.0: 0.85, 325.4: 0.2}
    fields: dict[str, Any] = {
        "schema_version": 1,
        "kind": "robustness",
        "model": model,
        "digest": "aaaaaaaaaaaa",
        "seed": seed,
        "published_recipe": True,
        "data": data_info(task),
        "clean": 0.88,
        "majority": 0.1,
        "examples": 10000,
        "noise_seed": 0,
        "points": [{"frequency": f, "amplitude": 0.1, "accuracy": a} for f, a in curve.items()],
        "system": SYSTEM,
        "provenance": PROVENANCE,
        "note": "",
    }
    return RobustnessRecord.model_validate({**fields, **change})


def window_record(window: int = 61, accuracy: float = 0.7, seed: int = 0, model: str = "s5") -> WindowRecord:
    fields = robustness_record(model, seed=seed).model_dump(exclude={"clean", "noise_seed", "points"})
    fields |= {"kind": "window", "window": window, "accuracy": accuracy, "whole": 0.88}
    return WindowRecord.model_validate(fields)


def honest_data(task: str = "listops", **change: Any) -> DataInfo:
    """The description of a full set: generated, or called official where the task cannot be generated."""
    described = task_module(task).TASK
    known = described.official.get("s4")
    made = data_info(
        task,
        version=described.version,
        source="official" if task in ("text", "image", "retrieval") else "generated",
        fingerprint=known or f"fp-{task}",
        length=described.length,
        classes=described.classes,
        counts=described.splits,
        validation_is_test=described.selects_on_test,
    )
    return DataInfo.model_validate({**made, **change})


def honest_record(
    model: str = "s5",
    task: str = "listops",
    seed: int = 0,
    test: float = 0.62,
    *,
    overrides: Mapping[str, Any] | None = None,
    data: Mapping[str, Any] | None = None,
    **change: Any,
) -> Record:
    """A completed run of a model of lra-bench, every number of which agrees with the others."""
    info = honest_data(task, **(data or {}))
    run = make_run(info, model, seed, overrides or {}, change.pop("precision", "float32"))
    n_train, n_val, n_test = (info.counts[split] for split in ("train", "val", "test"))
    batch, per_epoch = run.recipe.batch_size, info.counts["train"] // run.recipe.batch_size
    total = max(1, round(run.recipe.epochs * per_epoch))
    steps = [*range(per_epoch, total, per_epoch), total]
    own = zlib.crc32(f"{model} {task} {seed} {run.digest}".encode()) / 2**32
    right = round(test * n_test) / n_test

    def whole(share: float, n: int) -> float:
        return round(share * n) / n

    curve = [
        {
            "epoch": step / per_epoch,
            "step": step,
            "train_loss": 2.0 * (1 - right * i / len(steps)) + 0.1 * own,
            "train_accuracy": whole(right * i / len(steps), (step - previous) * batch),
            "val_loss": 2.0 * (1 - right * i / len(steps)) + 0.2 * own,
            "val_accuracy": right
            if i == len(steps) and info.validation_is_test
            else whole(right * i / len(steps), n_val),
        }
        for i, (previous, step) in enumerate(zip([0, *steps], steps, strict=False), start=1)
    ]
    best = max(curve, key=lambda point: point["val_accuracy"])
    last = {"test": right, "last_test": right, "best_val": best["val_accuracy"], "last_val": best["val_accuracy"]}
    rate = 5000.0
    made = train_record(
        run.model,
        task,
        seed,
        right,
        data=info.model_dump(exclude={"task"}),
        accuracy={
            **last,
            "selection": "test" if info.validation_is_test else "val",
            "best_epoch": best["epoch"],
            "test_loss": 2.0,
            "majority": math.ceil(task_module(task).TASK.majority * n_test) / n_test,
        },
        throughput={
            "steps": total,
            "train_seconds": total * batch / rate,
            "tokens_per_second": rate * info.length * task_module(task).TASK.documents,
        },
        system={"precision": run.precision},
        provenance={"command": run.command},
        digest=run.digest,
        published_recipe=run.is_published_recipe,
        recipe=run.recipe.model_dump(mode="json"),
        overrides=run.overrides,
        curve=curve,
    )
    assert n_train >= batch
    return edited(made, **change)


def honest_run(record: Record) -> Run:
    """The run that an honest record is of."""
    return make_run(record.data, record.model, record.seed, record.overrides, record.system.precision)


def honest_bench(model: str = "s5", task: str = "listops", length: int = 2048, **change: Any) -> BenchRecord:
    """A benchmark whose digest and recipe follow from the package."""
    overrides = change.pop("overrides", {"batch_size": 50})
    info = honest_data(task, size="synthetic", fingerprint="synthetic", length=length, source="generated")
    run = make_run(info, model, 0, overrides, "float32")
    system = System.model_validate(SYSTEM)
    made = bench_record(
        run.model,
        task,
        length,
        recipe=run.recipe.model_dump(mode="json"),
        overrides=overrides,
        batch_size=run.recipe.batch_size,
        digest=bench_digest(run.model, task, length, run.recipe, system, False),
    )
    return edited(made, **change)


def edited_json(record: Any, **changes: Any) -> dict[str, Any]:
    """The JSON values of a record with other values at some places: `accuracy__test=0.9`, `curve__0__step=3`."""
    values: dict[str, Any] = json.loads(record.model_dump_json())
    for place, value in changes.items():
        *steps, last = [int(step) if step.isdigit() else step for step in place.split("__")]
        inner: Any = values
        for step in steps:
            inner = inner[step]
        inner[last] = value
    return values


def edited(record: Any, **changes: Any) -> Any:
    """The record with other values at some places, as `edited_json`."""
    return type(record).model_validate(edited_json(record, **changes))


def load_records(results_dir: Path) -> list[Record]:
    """Read all training records below `results_dir`, in the order of their paths.

    Raises UserError for a file that is no record.
    """
    return [record for record in map(load_any, record_files(results_dir)) if isinstance(record, Record)]
