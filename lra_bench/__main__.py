"""`python -m lra_bench` is `lra-bench`."""

from lra_bench.cli import app

app()
