"""Measuring throughput, memory and compile time of models at fixed shapes; predicting and profiling training steps."""
