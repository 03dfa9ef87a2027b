"""A small S5 recipe for tests; every field can be overridden by name, in the recipe or in the layer's settings."""

from lra_bench.recipes import s5
from lra_bench.spec import Recipe

LAYER = {
    "d_state": 16,
    "blocks": 2,
    "activation": "half_glu1",
    "c_init": "lecun_normal",
    "discretization": "zoh",
    "dt_min": 1e-3,
    "dt_max": 1e-1,
    "clip_eigs": False,
}

FIELDS = {
    "reference": "tests",
    "published": None,
    "notes": "",
    "n_layers": 1,
    "d_model": 4,
    "norm": "batch",
    "prenorm": True,
    "norm_decay": 0.95,
    "bidirectional": False,
    "pooling": "mean",
    "embedding": 5,
    "pixels": None,
    "dropout": 0.0,
    "batch_size": 4,
    "epochs": 2.0,
    "lr": 3e-3,
    "ssm_lr": 1e-3,
    "weight_decay": 0.05,
    "adam_b2": 0.999,
    "adam_eps": 1e-8,
    "schedule": "cosine",
    "warmup_epochs": 0.0,
    "decay_epochs": 2.0,
    "groups": {"eigenvalues": "ssm", "input": "ssm", "dt": "ssm"},
}


def s5_config(**changes):
    return s5.Config(**{**LAYER, **changes})


def s5_recipe(**changes):
    layer = {**LAYER, **{k: v for k, v in changes.items() if k in LAYER}}
    fields = {**FIELDS, **{k: v for k, v in changes.items() if k not in LAYER}}
    return Recipe(**{**fields, "layer": layer})
