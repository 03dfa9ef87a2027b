"""MEGA-chunk: MEGA with attention in chunks. The network is the same, and the recipes name the size of the chunks."""

from lra_bench.models.mega import network

__all__ = ["network"]
