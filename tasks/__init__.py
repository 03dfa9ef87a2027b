"""The six tasks of the Long Range Arena, in the order of the paper's table: a module each, and its name below."""

TASK_MODULES = ("listops", "text", "retrieval", "image", "pathfinder", "pathx")
