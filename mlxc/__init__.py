"""mlxc: machine-learned exchange-correlation functionals for PySCF."""

__version__ = "0.1.0"
