"""Benchmarks, each reproducible with `python -m bench.<name>`. Not shipped with the package."""
