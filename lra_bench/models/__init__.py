"""The networks. A model is a file here, found by its name, and a file of `recipes/` with its settings."""
