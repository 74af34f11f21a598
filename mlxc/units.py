"""Units that PySCF does not have: everything inside is in Hartree atomic units."""

from pyscf.data.nist import HARTREE2J
from scipy.constants import N_A, calorie, kilo

#: kcal/mol in one Hartree.
KCAL = HARTREE2J * N_A / (kilo * calorie)
