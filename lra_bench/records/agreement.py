"""The numbers of a record that follow from each other: shares of examples, the curve, the checkpoints, the rates.

This module imports no JAX.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime

from lra_bench.records.schema import (
    AnyRecord,
    BenchRecord,
    CurvePoint,
    PretrainingPoint,
    Record,
    RobustnessRecord,
    WindowRecord,
)
from lra_bench.registry import every_task_name, has_official_contents, task_module

WHOLE = 0.01
"""The accepted distance of share × examples from a whole number."""

ONE_EXAMPLE = 1.5
"""The accepted difference in examples between two scores of the same parameters on the same split.

A score on a GPU may round a tie differently the second time.
"""

LEAST_LOSS = 0.98 * math.log(2)
"""The least cross-entropy of an example that is classified wrongly: its class has at most half of the probability.

Two hundredths are left for rounding in 16 bits.
"""

RATES = 0.01
"""The accepted relative difference between a rate and what it follows from."""


def disagreements(record: AnyRecord) -> Iterator[str]:
    """Yield each number of the record that contradicts another one."""
    yield from _time(record)
    if isinstance(record, Record):
        for check in _TRAINING:
            yield from check(record)
    elif isinstance(record, BenchRecord):
        yield from _bench(record)
    elif isinstance(record, WindowRecord):
        yield from _window(record)
    else:
        yield from _robustness(record)


def _time(record: AnyRecord) -> Iterator[str]:
    try:
        datetime.fromisoformat(record.provenance.finished)
    except ValueError:
        yield f"finished is no ISO 8601 time: {record.provenance.finished!r}"


def _ended(record: Record) -> Iterator[str]:
    """Check that a run has the results of its status, and none of another."""
    accuracy = record.accuracy
    if record.status != "completed":
        if accuracy.test is not None or accuracy.last_test is not None:
            yield f"called {record.status}, with a test accuracy"
        return
    missing = [name for name, value in accuracy.model_dump(exclude={"test_loss"}).items() if value is None]
    if accuracy.test is None:
        yield "completed without a test accuracy"
    elif missing:
        yield f"completed without {', '.join(missing)}"
    if not record.curve:
        yield "completed without a learning curve"


def _shares(record: Record) -> Iterator[str]:
    """Check that every accuracy is a whole number of examples, and the majority class no smaller than possible."""
    counts, accuracy = record.data.counts, record.accuracy
    shares = [("test", accuracy.test, "test"), ("last_test", accuracy.last_test, "test")]
    shares += [("best_val", accuracy.best_val, "val"), ("last_val", accuracy.last_val, "val")]
    shares.append(("majority", accuracy.majority, "test"))
    for name, share, split in shares:
        n = counts["test" if split == "test" else "val"]
        if share is not None and n and not _whole(share, n):
            yield f"{name} {share} is no whole number of {n} examples: some were left out or counted twice"
    if accuracy.majority < 1 / record.data.classes - 1e-9:
        yield f"majority {accuracy.majority} is less than an even share of {record.data.classes} classes"
    data = record.data
    if has_official_contents(data.task, data.protocol, data.fingerprint):
        known = task_module(data.task).TASK.majority
        if not math.isclose(accuracy.majority, known, abs_tol=1e-3):
            yield f"majority is {accuracy.majority}, but {known} in the official files"
    chosen_on = "test" if data.validation_is_test else "val"
    if accuracy.selection != chosen_on:
        yield (
            f"says the checkpoint was chosen on {accuracy.selection}, but validation is "
            f"{'the test set' if data.validation_is_test else 'not the test set'} here"
        )


def _whole(share: float, n: int) -> bool:
    return abs(share * n - round(share * n)) <= WHOLE


def _curve(record: Record) -> Iterator[str]:
    """Check that the curve has a point at the end of each epoch, and that a completed run came to the last one."""
    curve, recipe = record.curve, record.recipe
    per_epoch = record.data.counts["train"] // recipe.batch_size
    if per_epoch == 0:
        yield f"its batch of {recipe.batch_size} is larger than its {record.data.counts['train']} training examples"
        return
    total = max(1, round(recipe.epochs * per_epoch))
    points = -(-total // per_epoch)
    if record.status == "completed" and len(curve) < points:
        yield f"called completed after {len(curve)} of {points} epochs"
    if not _at_epoch_ends(curve, total, per_epoch):
        yield f"its curve is not one of {total} steps, {per_epoch} in an epoch"
        return
    start = 0
    for point in curve:
        seen, start = (point.step - start) * recipe.batch_size, point.step
        n_val = record.data.counts["val"]
        if not _whole(point.train_accuracy, seen) or (n_val and not _whole(point.val_accuracy, n_val)):
            yield f"an accuracy of its curve at step {point.step} is no whole number of examples"
            break
        if point.val_loss < (1 - point.val_accuracy) * LEAST_LOSS:
            yield f"the validation loss at step {point.step} is too small for so many errors"
            break
    if record.throughput.steps > total:  # fewer are legal: those on other devices before a resumption are not timed
        yield f"timed {record.throughput.steps} steps of {total}"


def _at_epoch_ends(curve: Sequence[CurvePoint] | Sequence[PretrainingPoint], total: int, per_epoch: int) -> bool:
    """Whether the points of a curve are at the ends of the first epochs, of `total` steps in all."""
    ends = [min((epoch + 1) * per_epoch, total) for epoch in range(min(len(curve), -(-total // per_epoch)))]
    epochs_fit = all(math.isclose(point.epoch, point.step / per_epoch, rel_tol=1e-6) for point in curve)
    return epochs_fit and [point.step for point in curve] == ends


def _pretrained(record: Record) -> Iterator[str]:
    """Check that a self-pretraining that ended has its whole curve, whose least validation loss is called the best."""
    per_epoch = record.data.counts["train"] // record.recipe.batch_size
    if record.pretraining is None or record.pretrained is None or per_epoch == 0:
        return
    curve, total = record.pretrained.curve, max(1, round(record.pretraining.pretrain_epochs * per_epoch))
    if not (curve and curve[-1].step == record.pretrained.steps == total and _at_epoch_ends(curve, total, per_epoch)):
        yield f"the curve of its pretraining is not one of {total} steps, {per_epoch} in an epoch"
        return
    best = min(curve, key=lambda point: point.val_loss)  # the first of equals, as training keeps it
    if (best.epoch, best.val_loss) != (record.pretrained.best_epoch, record.pretrained.best_val_loss):
        yield f"the best epoch of its pretraining is not that of least validation loss, {best.epoch:g}"


def _checkpoints(record: Record) -> Iterator[str]:
    """Check that the best and the last accuracies are those of the curve, and equal where the checkpoints are."""
    curve, accuracy, n = record.curve, record.accuracy, record.data.counts["test"]
    if not curve:
        return
    best = max(curve, key=lambda point: point.val_accuracy)  # the first of equals, as training keeps it
    if accuracy.best_val is not None and not math.isclose(best.val_accuracy, accuracy.best_val, abs_tol=1e-6):
        yield f"best_val {accuracy.best_val:.4f} is not the best of its curve, {best.val_accuracy:.4f}"
    elif accuracy.best_epoch is not None and not math.isclose(best.epoch, accuracy.best_epoch, rel_tol=1e-6):
        yield f"best_epoch {accuracy.best_epoch:g} is not that of the best point of its curve, {best.epoch:g}"
    if accuracy.last_val is not None and not math.isclose(curve[-1].val_accuracy, accuracy.last_val, abs_tol=1e-6):
        yield f"last_val {accuracy.last_val:.4f} is not the last of its curve, {curve[-1].val_accuracy:.4f}"
    test, last_test = accuracy.test, accuracy.last_test
    if test is None or last_test is None:
        return
    if best.step == curve[-1].step and _apart(test, last_test, n):
        yield f"last_test {last_test:.4f} contradicts test {test:.4f}: the last checkpoint is the best one"
    if record.data.validation_is_test:
        for name, share, other in (("test", test, accuracy.best_val), ("last_test", last_test, accuracy.last_val)):
            if other is not None and _apart(share, other, n):
                yield f"{name} {share:.4f} is not its validation accuracy {other:.4f}, which is on the same examples"
    if accuracy.test_loss is not None and accuracy.test_loss < (1 - test) * LEAST_LOSS:
        yield f"test_loss {accuracy.test_loss:.4g} is too small for a test accuracy of {test:.4f}"


def _apart(one: float, other: float, n: int) -> bool:
    return abs(one - other) * n > ONE_EXAMPLE


def _speed(record: Record) -> Iterator[str]:
    """Check that steps, seconds, batch size and rates agree."""
    speed, data = record.throughput, record.data
    rate = speed.steps * record.recipe.batch_size / speed.train_seconds if speed.train_seconds > 0 else 0.0
    if not math.isclose(rate, speed.examples_per_second, rel_tol=RATES):
        yield f"{speed.examples_per_second:.4g} examples/s, but steps, batch and seconds give {rate:.4g}"
    per_device = speed.examples_per_second_per_device * record.system.devices
    if not math.isclose(per_device, speed.examples_per_second, rel_tol=RATES):
        yield "examples/s per device times devices is not examples/s"
    if data.task in every_task_name():
        tokens = speed.examples_per_second * data.length * task_module(data.task).TASK.documents
        if not math.isclose(tokens, speed.tokens_per_second, rel_tol=RATES):
            yield f"{speed.tokens_per_second:.4g} tokens/s, but examples/s and length give {tokens:.4g}"


_TRAINING: Sequence[Callable[[Record], Iterator[str]]] = (_ended, _shares, _curve, _pretrained, _checkpoints, _speed)
"""The checks of a training record."""


def _bench(record: BenchRecord) -> Iterator[str]:
    """Check that batch, times and rates agree."""
    if record.batch_size != record.recipe.batch_size:
        yield f"its batch is {record.batch_size}, but {record.recipe.batch_size} in its recipe"
    for measured in record.measurements:
        seconds = measured.seconds
        if not seconds.q1 <= seconds.median <= seconds.q3:
            yield f"{measured.call}: the median is not between its quartiles"
        rate = record.batch_size / (seconds.median * record.system.devices)
        found = measured.examples_per_second_per_device
        if found is not None and not math.isclose(found, rate, rel_tol=RATES):
            yield f"{measured.call}: {found:.4g} examples/s/device, but batch and median give {rate:.4g}"
        if record.task in every_task_name():
            steps = 1 if measured.call == "recurrent" else record.length
            tokens = rate * task_module(record.task).TASK.documents * steps
            if not math.isclose(measured.tokens_per_second_per_device, tokens, rel_tol=RATES):
                told = measured.tokens_per_second_per_device
                yield f"{measured.call}: {told:.4g} tokens/s/device, but batch, length and median give {tokens:.4g}"


def _robustness(record: RobustnessRecord) -> Iterator[str]:
    """Check that every accuracy is a whole number of examples, and that only a mode has a frequency."""
    if any((point.frequency is None) != (point.noise == "gaussian") for point in record.points):
        yield "a mode without a frequency, or Gaussian noise with one"
    for share in (record.clean, *(point.accuracy for point in record.points)):
        if not _whole(share, record.examples):
            yield f"accuracy {share} is no whole number of {record.examples} examples"
            return
    yield from _whole_split(record)


def _window(record: WindowRecord) -> Iterator[str]:
    """Check that every accuracy is a whole number of the test split's examples."""
    for share in (record.accuracy, record.whole):
        if not _whole(share, record.examples):
            yield f"accuracy {share} is no whole number of {record.examples} examples"
            return
    yield from _whole_split(record)


def _whole_split(record: RobustnessRecord | WindowRecord) -> Iterator[str]:
    if record.examples != record.data.counts["test"]:
        yield f"{record.examples} examples were scored, and the test split has {record.data.counts['test']}"
