"""Exact conditions: one file for each family, and `mlxc check`, which asks any functional which of them it obeys.

A Condition measures its violation by a Subject, a functional of libxc or of mlxc.  What training penalises is made of
the same pieces: rows of fractional charges and spins (`fractional`), densities and points (`penalties`, `radial`,
`mass`).
"""
