"""The tasks, one file each, found by its name.

A task file defines what is classified and how raw files become examples.
"""
