"""Training of functionals."""
