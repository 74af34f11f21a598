"""Molecules from XYZ files, with errors that a person can act on."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pyscf import gto, lib
from pyscf.data.elements import ELEMENTS
from pyscf.dft.rks import KohnShamDFT
from pyscf.lib.exceptions import BasisNotFoundError

from mlxc.errors import ConvergenceError, InputError

#: Atoms closer than this (Angstrom) are a mistake in the file.
CLOSEST = 0.1
#: Coordinates beyond this (Angstrom) are one as well: grids and integrals overflow.
FARTHEST = 1e6
_SYMBOLS = frozenset(ELEMENTS[1:])


def read_xyz(path: Path) -> list[tuple[str, tuple[float, float, float]]]:
    """Atoms (symbol, coordinates in Angstrom) of the first frame of an XYZ file.  Raises InputError."""
    try:
        lines = Path(path).read_text().splitlines()
    except (OSError, UnicodeDecodeError) as err:
        reason = err.strerror if isinstance(err, OSError) else "it is not text"
        raise InputError(f"cannot read {path}: {reason}") from err
    try:
        count = int(lines[0])
    except (IndexError, ValueError):
        raise InputError(f"{path} is not an XYZ file: its first line must be the number of atoms") from None
    body = lines[2 : 2 + count]
    if count < 1 or len(body) < count:
        raise InputError(f"{path} announces {count} atoms and has {len(body)}")
    following = " ".join(lines[2 + count : 3 + count]).split()
    if following and following[0].capitalize() in _SYMBOLS:  # not a further frame nor a comment
        raise InputError(f"{path} announces {count} atoms and has more: line {3 + count} is {' '.join(following)!r}")
    atoms = []
    for number, line in enumerate(body, start=3):
        words = line.split()
        try:
            symbol, (x, y, z) = words[0].capitalize(), map(float, words[1:4])
        except (IndexError, ValueError):
            raise InputError(f"{path}, line {number}: expected a symbol and three coordinates, got {line!r}") from None
        if symbol not in _SYMBOLS:
            raise InputError(f"{path}, line {number}: {words[0]!r} is not an element")
        if not all(map(math.isfinite, (x, y, z))):
            raise InputError(f"{path}, line {number}: the coordinates are not numbers: {line!r}")
        if max(map(abs, (x, y, z))) > FARTHEST:
            raise InputError(f"{path}, line {number}: more than {FARTHEST:.0e} Angstrom from the origin: {line!r}")
        atoms.append((symbol, (x, y, z)))
    pair = coinciding([x for _, x in atoms])
    if pair:
        raise InputError(f"{path}: atoms {pair[0] + 1} and {pair[1] + 1} lie on top of each other")
    return atoms


def parse_atoms(text: str) -> list[tuple[str, tuple[float, float, float]]]:
    """Atoms (symbol, coordinates in Angstrom) of "SYMBOL x y z; ...".  Raises ValueError for anything else."""
    rows = [line.split() for line in text.split(";")]
    atoms = [(symbol, (float(x), float(y), float(z))) for symbol, x, y, z in rows]
    unknown = [symbol for symbol, _ in atoms if symbol not in _SYMBOLS]
    if unknown:
        raise ValueError(f"{unknown[0]} is not an element")
    return atoms


def coinciding(coords: Sequence[Sequence[float]]) -> tuple[int, int] | None:
    """Two atoms closer to each other than CLOSEST, of coordinates in Angstrom; None where there are none."""
    for i, a in enumerate(coords):
        for j, b in enumerate(coords[:i]):
            if math.dist(a, b) < CLOSEST:
                return j, i
    return None


def count_electrons(symbols: Iterable[str], charge: int = 0) -> int:
    """Number of electrons of these atoms with this charge."""
    return sum(map(ELEMENTS.index, symbols)) - charge


def spin_is_possible(nelectron: int, spin: int) -> bool:
    """Whether so many electrons can have `spin`, 2S, of them unpaired."""
    return 0 <= spin <= nelectron and (nelectron - spin) % 2 == 0


def make_mole(
    atoms: Iterable, basis: Any, charge: int = 0, spin: int | None = None, symmetry: bool = False
) -> gto.Mole:
    """A PySCF molecule of (symbol, coordinates in Angstrom); spin = 2S, the lowest possible where None.

    The basis is a name, which brings the core potentials that belong to it, or a table of names by element; `symmetry`
    is PySCF's.

    Raises InputError for an impossible charge or spin, for two atoms in one place, for an element that the basis does
    not have and for one whose core potential is not at hand.
    """
    atoms = list(atoms)
    if pair := coinciding([x for _, x in atoms]):
        raise InputError(f"atoms {pair[0] + 1} and {pair[1] + 1} lie on top of each other")
    charge, spin = whole(charge, "charge"), spin if spin is None else whole(spin, "spin")
    if not basis:
        raise InputError("no basis is given: take one by name, for example def2-tzvp")
    nelectron = count_electrons((symbol for symbol, _ in atoms), charge)
    if nelectron < 1:
        raise InputError(f"charge {charge} leaves {nelectron} electrons: at least one is needed")
    if spin is None:
        spin = nelectron % 2
    if not spin_is_possible(nelectron, spin):
        raise InputError(
            f"{nelectron} electrons cannot have {spin} unpaired: --spin takes the number of unpaired electrons (2S), "
            f"here {'an odd' if nelectron % 2 else 'an even'} number"
        )
    try:
        with warnings.catch_warnings(action="ignore"):  # advice on further packages with bases
            mol = gto.M(
                atom=atoms, basis=basis, ecp=_ecp(atoms, basis), charge=charge, spin=spin, symmetry=symmetry, verbose=0
            )
    except AssertionError as err:
        raise InputError(f"--spin {spin} unpaired electrons are more than the core potentials leave") from err
    except (BasisNotFoundError, KeyError, RuntimeError) as err:
        elements = ", ".join(sorted({symbol for symbol, _ in atoms}))
        raise InputError(f"basis {basis!r} is unknown or lacks one of {elements}: {err}") from err
    without = sorted({symbol for symbol, _ in atoms if not mol._basis.get(symbol)})  # of which PySCF warns only
    if without:
        raise InputError(f"basis {basis!r} has nothing for {', '.join(without)}: name one for them, or a default")
    if mol.nelectron < 1:
        raise InputError(f"charge {charge} leaves no electrons outside the core potentials: at least one is needed")
    if max(mol.nelec) > mol.nao:
        raise InputError(
            f"basis {basis!r} has {mol.nao} orbitals for {max(mol.nelec)} electrons of one spin: take a larger one"
        )
    return mol


def whole(value: Any, what: str) -> int:
    """A charge or a number of unpaired electrons, of whatever type, as an int.  Raises InputError for parts of one."""
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        number = None
    if number is None or number != value:
        raise InputError(f"{what} {value!r} is not a whole number")
    return number


#: Names, as PySCF writes them, of bases whose core potentials it keeps under another name.
_FAMILIES = {
    r"(?:aug)?ccpw?c?v([dtq5])zpp": r"ccpv\1zpp",
    r"(ccecp(?:he|reg|28|36)?)(?:aug)?(?:ccpv[dtq56]z)?": r"\1",
    r"bfd(?:v[dtq5]z|pp)?": "bfd",
    r"(?:ma)?def2.*": "def2tzvp",
}


def _ecp(atoms: list, basis: Any) -> dict[str, Any]:
    """The effective core potentials that belong to a basis by name, for the elements that have one.

    Raises InputError where one belongs to it and neither PySCF nor basis_set_exchange has it.
    """
    found = {}
    for symbol in {symbol for symbol, _ in atoms}:
        name = basis if isinstance(basis, str) else basis.get(symbol, basis.get("default"))
        if not isinstance(name, str):
            continue
        name = re.sub("^unc[-_ ]?", "", name.lower())
        plain = re.sub("[-_() ]", "", name)
        family = next((re.sub(p, f, plain) for p, f in _FAMILIES.items() if re.fullmatch(p, plain)), None)
        heavy = ELEMENTS.index(symbol) > _KRYPTON
        ecp = _pyscf_ecp(name, symbol) or (family and _pyscf_ecp(family, symbol))
        ecp = ecp or (heavy and _exchanged_ecp(name, symbol))
        if ecp:
            found[symbol] = ecp
        elif plain.startswith("gth") or plain.endswith("ppnr"):
            raise InputError(f"mlxc has no core potential for the basis {name!r}, which is made for one: take another")
        elif family and (heavy or family.startswith(("ccecp", "bfd"))):
            raise InputError(
                f"no core potential for {symbol} with the basis {name!r}, which is made for one: take another "
                "basis, or pip install basis-set-exchange, which may have it"
            )
    return found


#: The last element without a core potential in the def2 bases.
_KRYPTON = 36


def _pyscf_ecp(name: str, symbol: str) -> Any:
    try:
        return gto.basis.load_ecp(name, symbol)
    except (BasisNotFoundError, KeyError, RuntimeError, TypeError, OSError):  # the usual case: none is needed
        return None


def _exchanged_ecp(name: str, symbol: str) -> Any:
    """What basis_set_exchange has, where it is installed: PySCF takes its bases by themselves, of lanthanides e.g."""
    try:
        from basis_set_exchange import get_basis

        text = get_basis(name, elements=[symbol], fmt="nwchem", header=False)
    except (ImportError, KeyError, RuntimeError):
        return None
    _, _, potential = text.partition("\nECP\n")
    return gto.basis.parse_nwchem_ecp.parse(potential, symbol) if potential else None


class _OfResult:
    """Mixed into PySCF's gradients: of converged calculations alone, where PySCF takes whatever orbitals there are."""

    base: Any

    def kernel(self, *args: Any, **kwargs: Any) -> Any:
        from mlxc.ongrid import need_converged

        mf = self.base
        if isinstance(self, lib.GradScanner) and not mf.converged:
            raise ConvergenceError("the SCF did not converge at a geometry of a scanner: see mlxc.optimization.Surface")
        if mf.mo_energy is None:
            mf.run()
        need_converged(mf, "gradients need")
        return super().kernel(*args, **kwargs)  # type: ignore[misc]


def gradient_method(mf: Any) -> Any:
    """The gradient of the energy that is printed: with the motion of the grid, which PySCF leaves out by default.

    That PySCF does not have for crystals.  Hartree-Fock, as a functional as well, has no grid, and PySCF's code for its
    motion fails there.  Its `kernel` raises InputError where the calculation has not converged, or was reset or given
    another functional since, and that of its scanner ConvergenceError.

    Raises InputError for an object without gradients, in a frozen solvent, where densities were fitted after a solvent
    or point charges had been added (PySCF then leaves these out, or stops), where a scanner has taken the grid to
    another geometry, and where `get_hcore` was replaced: by what, its gradient does not know.
    """
    if "get_hcore" in vars(mf):
        raise InputError("no gradients with a get_hcore of your own: they would lack what it adds to the energy")
    if getattr(getattr(mf, "with_solvent", None), "frozen", False):
        raise InputError("no gradients in a frozen solvent: set mf.with_solvent.frozen = False")
    from mlxc.ongrid import own_grid
    from mlxc.partition import ByProtons, nuclear_charges
    from mlxc.refused import refuse_late_fit

    refuse_late_fit(mf)
    own_grid(mf, "gradients need")
    try:
        gradients = mf.nuc_grad_method()
    except NotImplementedError as err:
        raise InputError(f"PySCF has no nuclear gradients of {type(mf).__name__}") from err
    if isinstance(mf, KohnShamDFT) and not hasattr(mf, "cell"):
        gradients.grid_response = mf._numint._xc_type(mf.xc) != "HF"
        if gradients.grid_response and (mf.mol.atom_charges() != nuclear_charges(mf.mol)).any():
            gradients.grids, gradients.nlcgrids = ByProtons(mf.grids), ByProtons(mf.nlcgrids)
    return lib.set_class(gradients, (_OfResult, type(gradients)), type(gradients).__name__)
