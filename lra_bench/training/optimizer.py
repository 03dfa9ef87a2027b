"""Learning-rate schedules and optimizer groups. Each parameter's role is declared by its layer; the recipe maps roles
to groups."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array

from lra_bench.spec import Group, Recipe

Schedule = Callable[[Array], Array]
"""Optimizer update number, from 0 → multiplier of the base learning rate."""


def reference_schedule(steps_per_epoch: int, epochs: float, warmup_epochs: float) -> Schedule:
    """The rate S5's training loop really uses (lindermanlab/S5 @ 3c18fdb6 s5/train.py, s5/train_helpers.py), quirks
    included.

    The rate is written after each update, so update 0 runs at the full base rate and every later one lags by one. The
    cosine counts steps from the start of training but ends `warmup_epochs` early, so the last `warmup_epochs` epochs
    run at rate 0.
    """
    warmup = warmup_epochs * steps_per_epoch
    end = (epochs - warmup_epochs) * steps_per_epoch

    def schedule(update: Array) -> Array:
        step = update - 1.0
        linear = (step + 1.0) / jnp.maximum(warmup, 1.0)
        cosine = 0.5 * (1.0 + jnp.cos(jnp.pi * jnp.minimum(step, end) / end))
        return jnp.where(update == 0, 1.0, jnp.where(step < warmup, linear, cosine))

    return schedule


def cosine_schedule(steps_per_epoch: int, decay_epochs: float, warmup_epochs: float) -> Schedule:
    """Linear warm-up from 0, then half a cosine to 0."""
    decay_steps = round(decay_epochs * steps_per_epoch)
    return optax.warmup_cosine_decay_schedule(0.0, 1.0, round(warmup_epochs * steps_per_epoch), decay_steps)


def torch_cosine_schedule(steps_per_epoch: int, decay_epochs: float, warmup_epochs: float) -> Schedule:
    """What state-spaces/s4 calls `cosine_warmup` (`get_cosine_schedule_with_warmup` of huggingface/transformers): as
    above, but it rises again when training goes on past `decay_epochs`."""
    warmup, total = warmup_epochs * steps_per_epoch, decay_epochs * steps_per_epoch

    def schedule(update: Array) -> Array:
        progress = (update - warmup) / max(1.0, total - warmup)
        cosine = jnp.maximum(0.0, 0.5 * (1.0 + jnp.cos(jnp.pi * progress)))
        return jnp.where(update < warmup, update / max(1.0, warmup), cosine)

    return schedule


def rsqrt_schedule(steps_per_epoch: int, warmup_epochs: float) -> Schedule:
    """Linear warm-up, then 1/√step (long-range-arena lra_benchmarks/utils/train_utils.py)."""
    warmup = max(1.0, warmup_epochs * steps_per_epoch)
    return lambda update: jnp.minimum(1.0, update / warmup) / jnp.sqrt(jnp.maximum(update, warmup))


def make_schedule(recipe: Recipe, steps_per_epoch: int) -> Schedule:
    match recipe.schedule:
        case "reference":
            return reference_schedule(steps_per_epoch, recipe.decay_epochs, recipe.warmup_epochs)
        case "cosine":
            return cosine_schedule(steps_per_epoch, recipe.decay_epochs, recipe.warmup_epochs)
        case "torch-cosine":
            return torch_cosine_schedule(steps_per_epoch, recipe.decay_epochs, recipe.warmup_epochs)
        case "rsqrt":
            return rsqrt_schedule(steps_per_epoch, recipe.warmup_epochs)
        case "constant":
            return lambda update: jnp.ones_like(update, dtype=jnp.float32)


def group_of(variable: nnx.Variable, recipe: Recipe) -> Group:
    """The optimizer group of a parameter: by its role if it declares one that the recipe names, else `regular`."""
    role = variable.get_metadata().get("role")
    return recipe.groups.get(role, "regular") if role else "regular"


def group_labels(params: nnx.State, recipe: Recipe) -> nnx.State:
    """The tree of `params` with each parameter replaced by the name of its group."""
    return jax.tree.map(lambda v: group_of(v, recipe), params, is_leaf=lambda v: isinstance(v, nnx.Variable))


def make_optimizer(params: nnx.State, recipe: Recipe, steps_per_epoch: int) -> optax.GradientTransformation:
    """AdamW with one learning rate and one weight decay per group; decay is decoupled and multiplied by the rate, as
    in torch."""
    multiplier = make_schedule(recipe, steps_per_epoch)

    def adamw(base: float, weight_decay: float) -> optax.GradientTransformation:
        return optax.adamw(lambda count: base * multiplier(count), b2=recipe.adam_b2, weight_decay=weight_decay)

    groups: dict[Group, optax.GradientTransformation] = {
        "regular": adamw(recipe.lr, recipe.weight_decay),
        "regular_no_decay": adamw(recipe.lr, 0.0),
        "ssm": adamw(recipe.ssm_lr, 0.0),
        "ssm_decay": adamw(recipe.ssm_lr, recipe.weight_decay),
    }
    return optax.partition(groups, group_labels(params, recipe))
