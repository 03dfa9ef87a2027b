"""The six tasks of the Long Range Arena, in the order of the paper's table: a module each, and its name below."""

TASK_MODULES = ("listops", "text", "retrieval", "image", "pathfinder", "pathx")

SCALING_MODULES = ("pathfinder64", "pathfinder256")
"""Further sizes of Pathfinder for scaling studies: no columns of the table, and not part of `prepare all`."""
