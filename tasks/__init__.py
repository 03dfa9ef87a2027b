"""The tasks: a file each, found by its name. It says what is classified and how raw files become examples."""
