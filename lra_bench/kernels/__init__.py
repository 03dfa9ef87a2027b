"""GPU kernels of our own, where XLA needs many passes over memory. Each has a plain twin in `ssm/` or `models/`."""
