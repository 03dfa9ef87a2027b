"""GPU kernels of our own, for what XLA makes of many passes over memory. Each has a plain twin in `ssm/` or `models/`."""
