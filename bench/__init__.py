"""Benchmarks, each reproducible with `python -m bench.<name>`. Not shipped with the package."""

from online_tapir.launch.threads import calm_threads

calm_threads()  # as the program does; before torch and numpy are loaded
