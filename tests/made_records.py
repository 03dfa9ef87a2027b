"""Result records made for tests: real models of the schema, with the fields a test is about set by it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lra_bench.records.files import load_any, record_files
from lra_bench.records.schema import BenchRecord, Record, RobustnessRecord

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


def load_records(results_dir: Path) -> list[Record]:
    """Read all training records below `results_dir`, in the order of their paths.

    Raises UserError for a file that is no record.
    """
    return [record for record in map(load_any, record_files(results_dir)) if isinstance(record, Record)]
