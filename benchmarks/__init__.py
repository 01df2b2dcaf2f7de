"""Benchmarks: each prints a table of ratios against a peer that runs beside it, in the same minutes."""
