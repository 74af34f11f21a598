"""Benchmarks of functionals by self-consistent calculations: `mlxc bench` (docs/benchmarks.md)."""
