"""Learning rate schedules and optimizer groups.

Layers declare the roles of their parameters, and the recipe maps roles to optimizer groups.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array

from lra_bench.spec import Group, Recipe, Role

Schedule = Callable[[Array], Array]
"""A function from the number of a step, counted from 0, to the factor of the base learning rate."""


def reference_schedule(steps_per_epoch: int, epochs: float, warmup_epochs: float) -> Schedule:
    """The schedule that S5's training loop really uses, with its irregularities.

    The source is lindermanlab/S5 @ 3c18fdb6 s5/train.py and s5/train_helpers.py. The rate is set after each step, so
    step 0 has the full base rate and every later one has the rate of the step before it. The cosine counts from the
    start of training but ends `warmup_epochs` early, so the last `warmup_epochs` epochs have rate 0.
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
    """The schedule of a linear warm-up from 0, then half a cosine to 0 at `decay_epochs`."""
    decay_steps = round(decay_epochs * steps_per_epoch)
    return optax.warmup_cosine_decay_schedule(0.0, 1.0, round(warmup_epochs * steps_per_epoch), decay_steps)


def torch_cosine_schedule(steps_per_epoch: int, decay_epochs: float, warmup_epochs: float) -> Schedule:
    """The schedule of `cosine_schedule`, except that it rises again where training continues past `decay_epochs`.

    state-spaces/s4 calls it `cosine_warmup` (`get_cosine_schedule_with_warmup` of huggingface/transformers).
    """
    warmup, total = warmup_epochs * steps_per_epoch, decay_epochs * steps_per_epoch

    def schedule(update: Array) -> Array:
        progress = (update - warmup) / max(1.0, total - warmup)
        cosine = jnp.maximum(0.0, 0.5 * (1.0 + jnp.cos(jnp.pi * progress)))
        return jnp.where(update < warmup, update / max(1.0, warmup), cosine)

    return schedule


def linear_schedule(steps_per_epoch: int, decay_epochs: float, warmup_epochs: float, power: int) -> Schedule:
    """The schedule of a warm-up with this power of the step, then a line to 0 at `decay_epochs`.

    facebookresearch/mega calls it `linear_decay` (fairseq/optim/lr_scheduler/linear_decay_schedule.py).
    """
    warmup, total = warmup_epochs * steps_per_epoch, decay_epochs * steps_per_epoch

    def schedule(update: Array) -> Array:
        rising = (update / max(1.0, warmup)) ** power
        falling = jnp.maximum(0.0, (total - update) / max(1.0, total - warmup))
        return jnp.where(update < warmup, rising, falling)

    return schedule


def rsqrt_schedule(steps_per_epoch: int, warmup_epochs: float) -> Schedule:
    """The schedule of a linear warm-up, then 1/√step (long-range-arena lra_benchmarks/utils/train_utils.py)."""
    warmup = max(1.0, warmup_epochs * steps_per_epoch)
    return lambda update: jnp.minimum(1.0, update / warmup) / jnp.sqrt(jnp.maximum(update, warmup))


def warmup_constant_schedule(steps_per_epoch: int, warmup_epochs: float) -> Schedule:
    """The schedule of a linear warm-up from 0, then the full rate.

    IdoAmos/not-from-scratch calls it `constant_warmup` (`get_constant_schedule_with_warmup` of
    huggingface/transformers).
    """
    warmup = max(1.0, warmup_epochs * steps_per_epoch)
    return lambda update: jnp.minimum(1.0, update / warmup)


def make_schedule(recipe: Recipe, steps_per_epoch: int) -> Schedule:
    """Make the schedule that the recipe names."""
    match recipe.schedule:
        case "reference":
            return reference_schedule(steps_per_epoch, recipe.decay_epochs, recipe.warmup_epochs)
        case "cosine":
            return cosine_schedule(steps_per_epoch, recipe.decay_epochs, recipe.warmup_epochs)
        case "torch-cosine":
            return torch_cosine_schedule(steps_per_epoch, recipe.decay_epochs, recipe.warmup_epochs)
        case "linear":
            return linear_schedule(steps_per_epoch, recipe.decay_epochs, recipe.warmup_epochs, 1)
        case "quadratic-linear":
            return linear_schedule(steps_per_epoch, recipe.decay_epochs, recipe.warmup_epochs, 2)
        case "rsqrt":
            return rsqrt_schedule(steps_per_epoch, recipe.warmup_epochs)
        case "warmup-constant":
            return warmup_constant_schedule(steps_per_epoch, recipe.warmup_epochs)
        case "constant":
            return lambda update: jnp.ones_like(update, dtype=jnp.float32)


def group_of(variable: nnx.Variable, recipe: Recipe) -> Group:
    """The optimizer group of a parameter: that of its role, or `regular` without a role that the recipe names."""
    role = variable.get_metadata().get("role")
    return recipe.groups.get(role, "regular") if role else "regular"


def group_labels(params: nnx.State, recipe: Recipe) -> nnx.State:
    """The tree of `params` with each parameter replaced by the name of its optimizer group, or by its role where that
    has a learning rate of its own."""

    def label(variable: nnx.Variable) -> Group | Role:
        role = variable.get_metadata().get("role")
        return role if role in recipe.role_lr else group_of(variable, recipe)

    return jax.tree.map(label, params, is_leaf=lambda v: isinstance(v, nnx.Variable))


def make_optimizer(params: nnx.State, recipe: Recipe, steps_per_epoch: int) -> optax.GradientTransformation:
    """Make AdamW with a learning rate and a weight decay for each optimizer group, and for each role with a rate of its
    own, which keeps the decay of its group.

    The decay is decoupled and multiplied by the learning rate, as in torch. Where the recipe clips the gradient, it
    does so by the norm of all parameters together.
    """
    multiplier = make_schedule(recipe, steps_per_epoch)

    def adamw(base: float, weight_decay: float) -> optax.GradientTransformation:
        b2, eps = recipe.adam_b2, recipe.adam_eps
        return optax.adamw(lambda count: base * multiplier(count), b2=b2, eps=eps, weight_decay=weight_decay)

    groups: dict[Group | Role, optax.GradientTransformation] = {
        "regular": adamw(recipe.lr, recipe.weight_decay),
        "regular_no_decay": adamw(recipe.lr, 0.0),
        "ssm": adamw(recipe.ssm_lr, 0.0),
        "ssm_decay": adamw(recipe.ssm_lr, recipe.weight_decay),
        "frozen": optax.set_to_zero(),
    }
    for role, lr in recipe.role_lr.items():
        decays = recipe.groups.get(role, "regular") in ("regular", "ssm_decay")
        groups[role] = adamw(lr, recipe.weight_decay if decays else 0.0)
    grouped = optax.partition(groups, group_labels(params, recipe))
    if recipe.clip_norm is None:
        return grouped
    return optax.chain(optax.clip_by_global_norm(recipe.clip_norm), grouped)
