"""The six tasks of the Long Range Arena, in the order of the paper's table. A task is one module here and its line below."""

TASK_MODULES = ("listops",)
