"""The networks. A model is a file here, which is found by its name, and a file in `recipes/` with its settings."""
