"""Measuring throughput, memory and compile time of models at fixed shapes."""
