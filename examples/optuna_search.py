"""A search over settings with Optuna: pip install optuna && python examples/optuna_search.py

Each trial is a run, so an interrupted search goes on where it was if its study is kept (`storage`).
"""

import optuna

import lra_bench
from lra_bench.errors import WorkError

SIZE = "tiny"
FIXED = {"n_layers": 2, "d_model": 32, "batch_size": 40, "epochs": 2.0, "warmup_epochs": 0.2, "decay_epochs": 2.0}


def objective(trial):
    """Train a small S5 on ListOps, and return its best accuracy on validation. The test split decides nothing."""
    searched = {
        "lr": trial.suggest_float("lr", 1e-4, 1e-2, log=True),
        "dropout": trial.suggest_float("dropout", 0.0, 0.3),
    }
    try:
        record = lra_bench.train("s5", "listops", size=SIZE, settings={**FIXED, **searched})
    except WorkError as error:  # it diverged, for one
        raise optuna.TrialPruned(str(error)) from error
    return record.accuracy.best_val


def search(trials):
    """Search with so many trials, and return the study."""
    lra_bench.prepare("listops", size=SIZE)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0))
    study.optimize(objective, n_trials=trials)
    return study


if __name__ == "__main__":
    print(search(20).best_params)
