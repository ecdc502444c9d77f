"""Repeatable timings against a plain implementation: ``python -m benchmarks``, results in ``benchmarks/RESULTS.md``."""
