"""Averages of errors: per set, and the weighted ones of GMTKN55.

WTMAD-1 and WTMAD-2: Goerigk, Hansen, Bauer, Ehrlich, Najibi, Grimme, Phys. Chem. Chem. Phys. 19, 32184 (2017).
WTMAD-4: Bryenton, Johnson (2025), weights that make a typical functional's sets count alike (those of ten functionals
with D3).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Weights:
    """A set of GMTKN55: rows in all, mean absolute reference energy (kcal/mol), and its weight in WTMAD-4."""

    rows: int
    energy: float
    wtmad4: float

    @property
    def class_weight(self) -> float:
        """In WTMAD-1: sets of small energies count ten times, of large ones a tenth."""
        return 10.0 if self.energy < 7.5 else 0.1 if self.energy > 75 else 1.0


#: Mean of the 55 mean absolute energies, kcal/mol, as WTMAD-2 is defined with.
MEAN_ENERGY = 56.84
GMTKN55 = {
    "AL2X6": Weights(6, 35.88, 3.27),
    "ALK8": Weights(8, 62.60, 1.30),
    "ALKBDE10": Weights(10, 100.69, 1.06),
    "BH76RC": Weights(30, 21.39, 2.55),
    "DC13": Weights(13, 54.98, 0.78),
    "DIPCS10": Weights(10, 654.26, 1.65),
    "FH51": Weights(51, 31.01, 2.39),
    "G21EA": Weights(25, 33.62, 2.15),
    "G21IP": Weights(36, 257.61, 1.63),
    "G2RC": Weights(25, 51.26, 1.12),
    "HEAVYSB11": Weights(11, 58.02, 2.73),
    "NBPRC": Weights(12, 27.71, 2.32),
    "PA26": Weights(26, 189.05, 1.98),
    "RC21": Weights(21, 35.70, 1.45),
    "SIE4x4": Weights(16, 33.72, 0.469),
    "TAUT15": Weights(15, 3.05, 5.80),
    "W4-11": Weights(140, 306.91, 1.07),
    "YBDE18": Weights(18, 49.28, 2.55),
    "BSR36": Weights(36, 16.20, 2.03),
    "C60ISO": Weights(9, 98.25, 1.19),
    "CDIE20": Weights(20, 4.06, 5.75),
    "DARC": Weights(14, 32.47, 1.44),
    "ISO34": Weights(34, 14.57, 4.49),
    "ISOL24": Weights(24, 21.92, 1.99),
    "MB16-43": Weights(43, 414.73, 0.329),
    "PArel": Weights(20, 4.63, 5.51),
    "RSE43": Weights(43, 7.60, 5.27),
    "BH76": Weights(76, 18.61, 1.53),
    "BHDIV10": Weights(10, 45.33, 1.66),
    "BHPERI": Weights(26, 20.87, 2.29),
    "BHROT27": Weights(27, 6.27, 11.0),
    "INV24": Weights(24, 31.85, 4.41),
    "PX13": Weights(13, 33.36, 1.18),
    "WCPT18": Weights(18, 34.99, 1.77),
    "ADIM6": Weights(6, 3.36, 36.8),
    "AHB21": Weights(21, 22.49, 6.24),
    "CARBHB12": Weights(12, 6.04, 5.50),
    "CHB6": Weights(6, 26.79, 4.14),
    "HAL59": Weights(59, 4.59, 9.63),
    "HEAVY28": Weights(28, 1.24, 14.0),
    "IL16": Weights(16, 109.04, 11.5),
    "PNICO23": Weights(23, 4.27, 7.86),
    "RG18": Weights(18, 0.58, 29.9),
    "S22": Weights(22, 7.30, 13.5),
    "S66": Weights(66, 5.47, 18.4),
    "WATER27": Weights(27, 81.14, 1.43),
    "ACONF": Weights(15, 1.83, 61.2),
    "Amino20x4": Weights(80, 2.44, 22.6),
    "BUT14DIOL": Weights(64, 2.80, 30.0),
    "ICONF": Weights(17, 3.27, 20.0),
    "IDISP": Weights(6, 14.22, 2.50),
    "MCONF": Weights(51, 4.97, 21.2),
    "PCONF21": Weights(18, 1.62, 8.66),
    "SCONF": Weights(17, 4.60, 19.1),
    "UPU23": Weights(23, 5.72, 10.1),
}


def averages(errors: Iterable[float]) -> dict[str, float | int]:
    """n, MAE, ME, RMSE and the largest error in size, with its sign; n alone where there are none."""
    e = np.array(list(errors), dtype=float)
    if not len(e):
        return {"n": 0}
    return {
        "n": len(e),
        "mae": float(abs(e).mean()),
        "me": float(e.mean()),
        "rmse": float(np.sqrt((e**2).mean())),
        "max": float(e[abs(e).argmax()]),
    }


def weighted(maes: Mapping[str, float], counts: Mapping[str, int]) -> dict[str, float]:
    """wtmad1, wtmad2, wtmad4 over the sets of GMTKN55 among those given, and how many sets and rows these are.

    maes : kcal/mol; counts : rows that were computed.  Empty where there is none of these sets.
    """
    sets = [s for s in maes if s in GMTKN55]
    if not sets:
        return {}
    rows = sum(counts[s] for s in sets)
    return {
        "sets": len(sets),
        "rows": rows,
        "wtmad1": sum(GMTKN55[s].class_weight * maes[s] for s in sets) / len(sets),
        "wtmad2": sum(counts[s] * MEAN_ENERGY / GMTKN55[s].energy * maes[s] for s in sets) / rows,
        "wtmad4": sum(GMTKN55[s].wtmad4 * maes[s] for s in sets) / len(sets),
    }
