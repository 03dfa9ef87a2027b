"""Random examples fit every recipe: as long as the task's, tokens the table has rows for, labels of its classes."""

import pytest

from lra_bench.bench.synthetic import synthetic_run, synthetic_split
from lra_bench.registry import recipes_of, task_module, task_names

CELLS = [(task, model) for task in task_names() for model in recipes_of(task)]


@pytest.mark.parametrize(("task", "model"), CELLS)
def test_examples_fit_the_recipe(task, model):
    run, shape = synthetic_run(model, task, None, {"batch_size": 2}, "float32")
    split = synthetic_split(run.recipe, shape, 3)
    spec = task_module(task).TASK
    documents = (2,) if spec.documents == 2 else ()
    assert split.inputs.shape == (3, *documents, spec.length)
    assert split.inputs.max() < (run.recipe.embedding or 256)
    assert (split.lengths == spec.length).all()
    assert set(split.labels) <= set(range(spec.classes))
