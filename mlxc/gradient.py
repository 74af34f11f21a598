"""Nuclear gradients of local hybrids: the exact derivative of the SCF energy, with the motion of the grid.

With D = sum_i s_i L_i L_i^T per spin, E_xc = sum_g w_g e(n, grad n, tau, ex)(g) and b_g = w_g de/dex (notation of
mlxc.exx), the derivative at fixed L has five parts, gathered in one pass over the points:

1. basis functions in n, grad n, tau and, times -1/2 b h_i, in ex (h_i is symmetric in both orbitals of ex);
2. potentials V_P(g) of the auxiliary functions: -1/2 W_P(g) dV_P(g), W_P = b sum_ij s_i s_j phi_i phi_j C^P_ij;
3. weights: e(g) dw_g (mlxc.partition);
4. points: all of 1 to 3 depend on differences of positions only, so a point that moves with its atom feels minus the
   sum of what it gives to all centres (Johnson, Gill, Pople, J. Chem. Phys. 98, 5612 (1993));
5. the fit C^P_ij = sum_Q (P|Q)^-1 (Q|ij): with Gamma^P_ij = sum_g b phi_i phi_j V_P and Z = (P|Q)^-1 Gamma,

       -1/2 sum_ij s_i s_j sum_Q Z^Q_ij [ d(Q|ij) - sum_P d(Q|P) C^P_ij ]

   (derivatives of fitted integrals: Weigend, Haeser, Theor. Chem. Acc. 97, 331 (1997)).

The change of L that keeps orbitals orthonormal is PySCF's energy-weighted density matrix.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from pyscf import df, gto, lib
from pyscf.grad import rks as rks_grad

from mlxc.dispersion import real_atoms
from mlxc.errors import InputError
from mlxc.exx import FittedExchange, factorize
from mlxc.integrate import Block, LocalHybridNumInt, potentials_of, semilocal_factors
from mlxc.pairs import packed_product, packed_products
from mlxc.partition import partitioned_points, weight_gradient
from mlxc.potentials import AuxiliaryPotentials

#: Memory (MB) to work with where `max_memory` leaves less.
LEAST = 100
#: At most so many points are handled at a time.
POINTS = 2048
#: Where PySCF keeps the second derivatives of basis functions: xx, xy, xz, yy, yz, zz.
_SECOND = ((4, 5, 6), (5, 7, 8), (6, 8, 9))


class LocalHybridGradients:
    """What `mlxc.hybridscf.LocalHybridSCF.nuc_grad_method` adds to the class of PySCF's gradient object."""

    __name_mixin__ = "LocalHybrid"
    base: Any
    mol: Any
    atmlst: Any
    max_memory: Any
    get_j: Any

    @property
    def grid_response(self) -> bool:
        """Always True: without the motion of the grid the gradient would not be that of the energy."""
        return True

    @grid_response.setter
    def grid_response(self, value: bool) -> None:
        if not value:
            raise InputError("gradients of a local hybrid always include the motion of the grid")

    def get_dispersion(self, *args: Any, **kwargs: Any) -> np.ndarray:
        """PySCF's, (natm, 3) or of the atoms in `atmlst`, without ghost atoms, as the energy."""
        mol, real = real_atoms(self.base.mol)
        out = np.zeros((self.base.mol.natm, 3))
        with lib.temporary_env(self.base, mol=mol):
            out[real] = super().get_dispersion(*args, **kwargs)  # type: ignore[misc]
        return out if self.atmlst is None else out[list(self.atmlst)]

    def get_veff(self, mol: Any = None, dm: Any = None) -> Any:
        """As PySCF's: the Coulomb part (3, nao, nao), per spin for open shells, tagged with dE_xc/dR as `exc1_grid`."""
        mf, ni = self.base, self.base._numint
        mol = self.mol if mol is None else mol
        dm = mf.make_rdm1() if dm is None else dm
        ni._xc_type(mf.xc)
        grids, nlcgrids = rks_grad._initialize_grids(self)
        max_memory = max(LEAST, 0.9 * self.max_memory - lib.current_memory()[0])
        restricted = np.ndim(dm) == 2
        spins = np.asarray(dm)[None] / 2 if restricted else np.asarray(dm)
        vj = self.get_j(mol, dm)
        vhf = np.array(vj if restricted else vj[0] + vj[1])
        tags = {"exc1_grid": xc_gradient(ni, mol, grids, spins, max_memory)}
        if hasattr(vj, "aux"):
            tags["aux"] = vj.aux.sum((0, 1))
        if mf.do_nlc():
            total = (3 - len(spins)) * spins.sum(0)
            exc, vnlc = rks_grad.get_nlc_vxc_full_response(ni, mol, nlcgrids, mf.nlc, total, max_memory=max_memory)
            tags["exc1_grid"] += exc
            vhf += vnlc
        return lib.tag_array(vhf if restricted else np.array([vhf, vhf]), **tags)


class PairsAt:
    """Pairs of one spin's orbitals where the auxiliary potentials are `table` (naux, g): a Block's `pairs`."""

    def __init__(self, pairs: Any, table: np.ndarray):
        self.local, self.signs = pairs.local, pairs.signs
        self.coefficients, self.table = pairs.coefficients, table

    def potential(self, phi: np.ndarray, p0: int) -> np.ndarray:
        """h (g, n) for the orbitals phi (g, n); p0 has no meaning here."""
        return packed_product(self.coefficients @ self.table, np.ascontiguousarray((phi * self.signs).T)).T

    def weighted(self, b: np.ndarray, phi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """W_P (naux, g) and the part of these points in Gamma (n (n + 1) / 2, naux), for b (g,) and phi (g, n)."""
        products = packed_products(np.ascontiguousarray(phi.T), b)
        gamma = products @ self.table.T
        products *= pair_signs(self.signs)[:, None]
        return self.coefficients.T @ products, gamma


def pair_signs(signs: np.ndarray) -> np.ndarray:
    """s_i s_j for pairs i >= j, twice for i > j, (n (n + 1) / 2,)."""
    both = 2 * np.outer(signs, signs)
    np.fill_diagonal(both, 1)
    return both[np.tril_indices(len(signs))]


def xc_gradient(ni: LocalHybridNumInt, mol: Any, grids: Any, dms: np.ndarray, max_memory: float = 2000) -> np.ndarray:
    """dE_xc/dR (natm, 3), Eh/Bohr, for spin density matrices dms (S, nao, nao), whose factors L are held fixed.

    S = 1 stands for two equal spins.  Raises InputError for a grid with another partition than Becke's.
    """
    spin, multiplicity = len(dms) - 1, 3 - len(dms)
    tables = ni.tables(mol, grids, max_memory)
    spins = [tables.pairs(*factorize(d)) for d in dms]
    gathered = [np.zeros_like(p.coefficients) for p in spins]
    potentials = AuxiliaryPotentials(tables.auxmol, tables.omega)
    numbers = 14 * mol.nao + 5 * tables.auxmol.nao + 20 * mol.natm**2 + sum(5 * len(p.coefficients) for p in spins)
    size = int(np.clip(max_memory / 2 / (8e-6 * numbers), 16, POINTS))
    gradient = np.zeros((mol.natm, 3))
    for atom, coords, volume, weight in partitioned_points(mol, grids, size):
        v, dv = potentials(coords), potentials.gradient(coords)
        ao = ni.eval_ao(mol, coords, deriv=2)
        blocks = [Block(ao[:4], PairsAt(p, v), 0) for p in spins]
        energy, derivatives = potentials_of(ni.functional, blocks, spin, weight)
        centres = weight_gradient(mol, grids, atom, coords, volume, weight, energy)
        for block, gamma, derivative in zip(blocks, gathered, derivatives, strict=True):
            w, part = block.pairs.weighted(derivative[-1], block.phi[0])
            gamma += part
            auxiliary = 0.5 * np.einsum("pg,xpg->xp", w, dv)  # V_P depends on g - R_P
            centres += multiplicity * by_atom(mol, basis_gradient(ao, block, *derivative))
            centres += multiplicity * by_atom(tables.auxmol, auxiliary)
        gradient += centres
        gradient[atom] -= centres.sum(0)
    return gradient + multiplicity * fit_gradient(mol, tables, spins, gathered, max_memory)


def basis_gradient(
    ao: np.ndarray, block: Block, vrho: np.ndarray, vgrad: np.ndarray, vtau: np.ndarray, vex: np.ndarray
) -> np.ndarray:
    """dE/d(centre of each basis function), (3, nao), at fixed points; ao (10, g, nao) up to second derivatives."""
    value, slope = semilocal_factors(block.phi, vrho, vgrad, vtau)
    value -= 0.5 * vex[:, None] * block.h
    signed = block.pairs.local * block.pairs.signs
    # Transposed, as PySCF keeps `ao` in memory.
    ao = ao.transpose(0, 2, 1)
    value, slopes = signed @ value.T, [signed @ s.T for s in slope]
    out = np.empty((3, ao.shape[1]))
    for x, second in enumerate(_SECOND):
        out[x] = np.einsum("mg,mg->m", ao[1 + x], value)
        for k, s in zip(second, slopes, strict=True):
            out[x] += np.einsum("mg,mg->m", ao[k], s)
    return -2 * out


def by_atom(mol: gto.Mole, x: np.ndarray) -> np.ndarray:
    """Sums over the basis functions of each atom, (natm, 3), of x (3, nao)."""
    return np.array([x[:, p0:p1].sum(1) for p0, p1 in mol.aoslice_by_atom()[:, 2:]])


def fit_gradient(
    mol: gto.Mole, tables: FittedExchange, spins: list[Any], gathered: list[np.ndarray], max_memory: float
) -> np.ndarray:
    """Part 5, (natm, 3), from Gamma (n (n + 1) / 2, naux) of each spin."""
    auxmol, nao = tables.auxmol, mol.nao
    fitted = [tables.solve(g.T) for g in gathered]
    metric = sum((z * pair_signs(p.signs)) @ p.coefficients for z, p in zip(fitted, spins, strict=True))
    auxiliary = -0.5 * np.einsum("xqp,qp->xq", auxmol.intor("int2c2e_ip1"), metric + metric.T)
    signed, basis = [p.local * p.signs for p in spins], np.zeros((3, nao))
    ao_loc = auxmol.ao_loc_nr()
    step = max(1, int(max_memory / 2 / (8e-6 * 6 * nao**2 * (ao_loc[1:] - ao_loc[:-1]).max())))
    for s0, s1 in lib.prange(0, auxmol.nbas, step):
        q = slice(ao_loc[s0], ao_loc[s1])
        shells = (0, mol.nbas, 0, mol.nbas, s0, s1)
        integrals = df.incore.aux_e2(mol, auxmol, "int3c2e_ip1", aosym="s1", comp=3, shls_slice=shells)
        z = sum(x @ lib.unpack_tril(np.ascontiguousarray(f[q])) @ x.T for x, f in zip(signed, fitted, strict=True))
        # (d mu nu|Q) + (mu d nu|Q) + (mu nu|d Q) = 0 gives the auxiliary function's derivative too.
        part = np.einsum("xqnm,qnm->xqm", integrals.transpose(0, 3, 2, 1), z)
        basis += part.sum(1)
        auxiliary[:, q] -= part.sum(2)
    return by_atom(mol, basis) + by_atom(auxmol, auxiliary)
