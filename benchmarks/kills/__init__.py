"""Kills with -9 all over the wheel: see `benchmarks.kills.__main__`."""
