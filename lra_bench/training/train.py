"""The training loop: one function, read from top to bottom. The same run again continues where it stopped, bit for
bit."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np

from lra_bench.data.packed import majority_share
from lra_bench.errors import UserError
from lra_bench.machine.processes import from_first, is_first, on_first
from lra_bench.models.network import model_config
from lra_bench.progress import Progress
from lra_bench.recipes import Perturbed
from lra_bench.records.finished import is_finished, load_finished, mend_finished
from lra_bench.records.schema import CurvePoint, Record, Status
from lra_bench.registry import task_module
from lra_bench.runs.run import Run, write_settings
from lra_bench.runs.standing import PositionWriter, failure_noted
from lra_bench.spec import HealthMark, Placement, Recipe, validated
from lra_bench.ssm.ptd import solved_here
from lra_bench.training.checkpoint import Checkpoints
from lra_bench.training.epoch import Epochs
from lra_bench.training.history import History
from lra_bench.training.mesh import replicate
from lra_bench.training.pretraining import PretrainingDivergedError, pretrain, refuse_microbatch
from lra_bench.training.result import Score, accuracies, devices_of, make_record, throughput, write_result
from lra_bench.training.saving import Saver
from lra_bench.training.setup import set_up
from lra_bench.training.state import Totals, stream_key
from lra_bench.training.stopping import StopRequest, only_process_of, out_of_memory_in_words
from lra_bench.training.tracking import TrackerName, Tracking


def train(
    run: Run,
    data_folder: Path,
    results_dir: Path,
    deadline: float | None = None,
    placement: Placement = "auto",
    remat: bool = False,
    microbatch: int | None = None,
    trackers: Sequence[TrackerName] = (),
    health: Sequence[HealthMark] = (),
) -> Record:
    """Train, choose the best checkpoint on validation, test it once, write the record. A finished run returns at once.

    remat: save memory for time (`models/remat.py`). microbatch: the examples whose gradient is computed at once. The
    mathematics are the same and the roundings are not, so both are no part of what names the run.
    trackers: where the learning curve is sent as well (`training/tracking.py`).
    health: marks below which the run ends as failed after an epoch. They are no part of what names the run either.

    Raises Interrupted (a signal) or OutOfTime (`deadline`, on the clock of `time.monotonic`) after saving, WorkError
    when the loss stops being finite, a mark is missed, the device's memory does not suffice, or another process trains
    the same run.

    Several processes may train the run together (`machine/processes.py`). Each calls this, and process 0 writes.
    """
    refuse_microbatch(run, microbatch)
    microbatch = None if microbatch is None else min(microbatch, run.recipe.batch_size)
    with (
        only_process_of(run),
        failure_noted(run) if is_first() else nullcontext(),
        out_of_memory_in_words(run),
        StopRequest(deadline) as stop,
        Tracking(run, trackers if is_first() else ()) as log,
    ):
        if from_first(is_finished(run.folder)):
            on_first(lambda: mend_finished(run, results_dir))
            return write_result(load_finished(run.folder), run, results_dir)

        # ---------------------------------------------------------------- set up
        setup, state = set_up(run, data_folder, placement, remat, microbatch)
        checkpoints = Checkpoints(run.folder / "checkpoints")
        history = History()
        dropout_key = replicate(stream_key(run.seed, 2), setup.mesh)
        advice = growth_advice(run.recipe)

        def record(
            status: Status,
            test: Score | None = None,
            last_test: Score | None = None,
            note: str = "",
        ) -> Record:
            accuracy = accuracies(run, history, majority_share(setup.data["test"].labels), test, last_test)
            tokens = task_module(run.data.task).TASK.documents * run.data.length
            speed = throughput(run, history, setup.cost, tokens, remat, microbatch)
            return make_record(run, status, setup.network.parameters, history, accuracy, speed, note)

        # ---------------------------------------------------------------- continue an earlier session
        resumed = checkpoints.restore_last(state)
        if resumed is not None:
            state, history = resumed
            checkpoints.mend_best(history, state)
        else:
            refuse_other_perturbation(run)
        on_first(lambda: write_settings(run))  # not before, so that a run that is refused leaves no folder
        history = history.on(devices_of(run, remat, microbatch), setup.cost.compile_seconds)
        history.write_metrics(run)  # an epoch after the checkpoint will be repeated: its line goes now
        log.update(history.curve)
        stop.agree()
        since = " since the last save" if resumed else " yet"
        stop.raise_if_signaled(f"nothing was trained{since}. Type the same again: {run.command}")

        # ---------------------------------------------------------------- pretrain, where the run says so
        if run.pretraining is not None and history.pretrained is None:
            try:
                devices = devices_of(run, remat, microbatch)
                state, pretrained = pretrain(run, setup, state, stop, devices, remat)
            except PretrainingDivergedError as error:
                return write_result(record("diverged", note=f"{error}{advice}"), run, results_dir)
            history = history.model_copy(update={"pretrained": pretrained})

        # ---------------------------------------------------------------- train
        saver, scored = Saver(checkpoints), False
        step, total, per_epoch = int(state.step), run.steps_of(run.recipe.epochs), run.steps_per_epoch
        epochs = Epochs(
            run,
            setup.train,
            setup.data["train"],
            dropout_key,
            total,
            per_epoch,
            saver,
            stop,
            PositionWriter(run.folder),
            classifies=True,
        )
        with Progress(f"{run.data.task} {run.model} seed {run.seed}", total=total, unit="steps") as progress:
            progress.at(step, total)
            while step < total:
                step, state, history, loss, correct, first_bad = epochs.train(step, state, history, progress)
                if first_bad >= 0:
                    saver.save_best(history)
                    note = f"the loss or the gradient of step {first_bad} was not finite{advice}"
                    return write_result(record("diverged", note=note), run, results_dir)

                # ---- score on validation, and keep the best
                if not scored:
                    progress.log("compiling the evaluation…")
                    scored = True
                val = setup.evaluate(state.params, state.stats, "val")
                if not np.isfinite([loss, val.loss]).all():
                    saver.save_best(history)
                    which = "validation loss" if np.isfinite(loss) else "mean loss of the epoch"
                    note = f"the {which} after step {step} was not finite{advice}"
                    return write_result(record("diverged", note=note), run, results_dir)
                point = CurvePoint(
                    epoch=step / per_epoch,
                    step=step,
                    train_loss=loss,
                    train_accuracy=correct,
                    val_loss=val.loss,
                    val_accuracy=val.accuracy,
                )
                history = history.after_epoch(point)
                state = state._replace(totals=replicate(Totals.zero(), setup.mesh))
                if history.last_is_best:
                    saver.keep_best(step, state)
                history.write_metrics(run)
                log.update(history.curve)
                progress.log(history.describe_epoch())
                if step < total and (ill := history.below(health)):
                    saver.save(step, state, history)
                    checkpoints.close()
                    return write_result(record("stopped", note=ill), run, results_dir)
                epochs.save_if_due(step, state, history)

        # ---------------------------------------------------------------- test the best checkpoint, once
        last_test = setup.evaluate(state.params, state.stats, "test")
        assert history.best_step is not None, "the last step ends an epoch, and each epoch is evaluated"
        test = setup.evaluate(*checkpoints.restore_best(history.best_step, state), "test")
        checkpoints.close()
        written = write_result(record("completed", test, last_test), run, results_dir, test.correct)
        stop.agree()
        stop.raise_if_signaled(f"{run.name} had just ended, and its record is written.")
        return written


def refuse_other_perturbation(run: Run) -> None:
    """Check that this machine begins a run from the E that names it. Raises UserError where its solver finds another.

    A run that was begun elsewhere goes on here all the same, because E is in its initial values only.
    """
    config = validated(model_config(run.model), run.recipe.layer)
    if isinstance(config, Perturbed) and config.perturbation not in (None, solved_here(*config.problem)):
        raise UserError(
            f"{run.name} starts from the perturbation {config.perturbation}, and this machine's solver finds "
            f"{solved_here(*config.problem)}. Begin the run where it was named, or leave --set perturbation out."
        )


def growth_advice(recipe: Recipe) -> str:
    """How to hold Re Λ negative in a layer that leaves it free, where a mode that grows overflows; else ""."""
    switches = [name for name in ("clip_eigs", "force_negative") if name in recipe.layer]
    if not switches or any(recipe.layer[name] for name in switches):
        return ""
    return f"; Re Λ is free, so a mode may grow: {' or '.join(f'--set {name}=true' for name in switches)} forbids it"
