"""What a functional makes of a molecule: density, enhancement factor and exact exchange in a plane of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pyscf.data.nist import BOHR

from mlxc.constraints.points import slater
from mlxc.constraints.subject import Subject
from mlxc.features import Features
from mlxc.geometry import make_mole, read_xyz
from mlxc.ongrid import FULL_RANGE, exchange_at, features_at, spin_densities
from mlxc.plots import figures
from mlxc.plots.saved import field, header, solved, subjects
from mlxc.plots.section import Plane, extent, mark_atoms, plane_of

#: Where the density (Bohr^-3) is lower nothing but density is drawn, and of a spin's mixing function where its own is.
EMPTY = 1e-4
#: Densities (Bohr^-3) at both ends of the scale of colours.
DENSITIES = (EMPTY, 1.0)
CONTOURS = (1e-3, 1e-2, 1e-1, 1.0)
#: The scale of enhancement factors is that of places with such densities, Bohr^-3, where the energy is.
DENSE = 1e-2
TITLES = {
    "density": "density, Bohr$^{-3}$",
    "enhancement": r"$F_\mathrm{xc} = e_\mathrm{xc} / e_\mathrm{x}^\mathrm{LDA}$",
    "fraction": "share of exact exchange",
}


def exact_fraction(subject: Subject, features: Features, full: torch.Tensor | None) -> torch.Tensor:
    """Share of the exact exchange energy density that the functional takes, (G,).

    sum_s a_s ex_s / sum_s ex_s of a local hybrid, sum_omega c_omega ex_omega / ex of a range-separated one, the
    constant of a global one, 0 without exact exchange.

    features : as the functional takes them; full : (S, G), exact exchange of the full range, None where none is taken
    """
    if full is None:
        return torch.zeros_like(features.total_rho)
    taken = features.exact_exchange
    if subject.functional.exx_omega is not None:
        taken = subject.functional.local_mixing(features) * taken
    return taken.sum(0) / full.sum(0)


def fields(subject: Subject, mf: Any, plane: Plane) -> dict[str, Any]:
    """`density` (Bohr^-3), `enhancement` and `fraction`, (nv, nu) each, of a converged calculation in a plane.

    enhancement is the energy per volume over the exchange of the unpolarised uniform gas, without VV10.  Of a local
    hybrid and an open shell also `mixing`, the mixing functions, and `spin_density`, (2, nv, nu) each.
    """
    coords, dms = plane.points(), torch.from_numpy(spin_densities(mf))
    shape = (len(plane.v), len(plane.u))
    with torch.no_grad():
        features = features_at(mf.mol, coords, dms, subject.mixed)
        ranged = subject.mixed and subject.mixed != FULL_RANGE
        full = exchange_at(mf.mol, coords, dms) if ranged else features.ex
        found = {
            "density": features.total_rho,
            "enhancement": subject.functional(features) / slater(features),
            "fraction": exact_fraction(subject, features, full),
        }
        if subject.functional.exx_omega is not None and mf.mol.spin:
            found["mixing"] = subject.functional.local_mixing(features)
            found["spin_density"] = features.rho
    return {k: x.numpy().reshape(*x.shape[:-1], *shape) for k, x in found.items()}


def compute(
    path: Path,
    xcs: list[str],
    basis: str = "def2-tzvp",
    charge: int = 0,
    spin: int | None = None,
    atoms: Sequence[int] | None = None,
) -> dict[str, Any]:
    """Results of all functionals for the molecule of an XYZ file, in the plane of three `atoms` or the best one.

    Raises InputError and its kin for what cannot be done; a calculation that does not converge has no fields.
    """
    mol = make_mole(read_xyz(path), basis, charge, spin)
    plane = plane_of(mol.atom_coords(), atoms)
    rows = []
    for subject, row in subjects(xcs):
        mf = solved(subject, mol)
        row |= {"converged": mf is not None, "without_vv10": subject.with_nonlocal}
        if mf is not None:
            row |= {"energy_hartree": float(mf.e_tot)}
            row |= {k: field(x) for k, x in fields(subject, mf, plane).items()}
        rows.append(row)
    symbols = [mol.atom_pure_symbol(i) for i in range(mol.natm)]
    molecule = {"name": path.stem, "symbols": symbols, "coords_bohr": mol.atom_coords().tolist(), "charge": charge,
                "spin": int(mol.spin)}  # fmt: skip
    shown = plane.content(symbols, mol.atom_coords())
    return header("plane", basis) | {"molecule": molecule, "plane": shown, "functionals": rows}


def draw(content: dict[str, Any]) -> dict[str, Any]:
    """Figures by what is added to the file's name: the plane, and the line through an atom or a linear molecule."""
    done = [f for f in content["functionals"] if f["converged"]]
    drawn = {"": _maps(content, done)}
    if content["plane"]["rank"] < 2:
        drawn["-line"] = _lines(content, done)
    return drawn


def _fields_of(functional: dict[str, Any]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """What is drawn of a functional, by its title, and the densities that say where it is."""
    density = np.array(functional["density"], dtype=float)
    shown = {k: (np.array(functional[k], dtype=float), density) for k in ("density", "enhancement", "fraction")}
    spins = zip(("up", "down"), functional.get("mixing", []), functional.get("spin_density", []), strict=False)
    for name, a, rho in spins:
        shown[f"mixing function, spin {name}"] = np.array(a, dtype=float), np.array(rho, dtype=float)
    return {k: (x, n) for k, (x, n) in shown.items() if (n > EMPTY).any()}


def _range(shown: list[dict[str, tuple[np.ndarray, np.ndarray]]]) -> tuple[float, float]:
    """Lowest and highest enhancement factor where the density is not low."""
    values = np.concatenate([x[n > DENSE] for x, n in (f["enhancement"] for f in shown)])
    return float(np.nanmin(values)), float(np.nanmax(values))


def _caption(content: dict[str, Any]) -> str:
    molecule = content["molecule"]
    charge = f", charge {molecule['charge']:+d}" if molecule["charge"] else ""
    return f"{molecule['name']}{charge}, {content['basis']}"


def _label(functional: dict[str, Any], name: str) -> str:
    return f"{functional['xc']}{' without VV10' if name == 'enhancement' and functional['without_vv10'] else ''}"


def _maps(content: dict[str, Any], done: list[dict[str, Any]]) -> Any:
    """One row for each quantity, one column for each functional."""
    from matplotlib.colors import LogNorm

    shown = [_fields_of(f) for f in done]
    names = list(dict.fromkeys(k for fields in shown for k in fields))
    box = extent(content["plane"])
    height = 2.4 if box[1] - box[0] < 3 * (box[3] - box[2]) else 1.8
    figure = figures.figure(max(4.5, 1.2 + 3.2 * len(done)), 0.5 + height * max(1, len(names)))
    figure.suptitle(_caption(content))
    grid = figure.subplots(max(1, len(names)), max(1, len(done)), squeeze=False, sharex=True, sharey=True)
    for name, row in zip(names, grid, strict=False):
        low, high = _range(shown) if name == "enhancement" else (0.0, 1.0)
        scale = {"norm": LogNorm(*DENSITIES)} if name == "density" else {"vmin": low, "vmax": high}
        image = None
        for axes, functional, fields in zip(row, done, shown, strict=True):
            axes.set(title=_label(functional, name), xlim=box[:2], ylim=box[2:], aspect="equal")
            if name not in fields:
                axes.text(0.5, 0.5, "no local hybrid", transform=axes.transAxes, ha="center", va="center")
                continue
            values, density = fields[name]
            image = axes.imshow(values, extent=box, origin="lower", cmap=figures.GROWING, **scale)
            if name == "density":
                axes.contour(density, levels=CONTOURS, extent=box, colors="white", linewidths=0.6)
            axes.contourf(density, levels=(-1.0, EMPTY), extent=box, colors="white")
            mark_atoms(axes, content["plane"])
        extend = {"enhancement": "both", "density": "max"}.get(name, "neither")
        figure.colorbar(image, ax=list(row), label=TITLES.get(name, name), extend=extend)
    for axes in grid[-1]:
        axes.set_xlabel("Å")
    for axes in grid[:, 0]:
        axes.set_ylabel("Å")
    return figure


def _middle(values: np.ndarray, density: np.ndarray) -> np.ndarray:
    """The middle row, nan where the density is too low."""
    half = len(values) // 2
    return np.where(density[half] > EMPTY, values[half], np.nan)


def _lines(content: dict[str, Any], done: list[dict[str, Any]]) -> Any:
    """The same along the axis of a linear molecule, or through an atom: the middle row of the plane."""
    shown = [{k: _middle(*x) for k, x in _fields_of(f).items()} for f in done]
    names = list(dict.fromkeys(k for fields in shown for k in fields))
    u = np.array(content["plane"]["u_bohr"]) * BOHR
    figure = figures.figure(6.5, 0.5 + 2.2 * max(1, len(names)))
    figure.suptitle(f"{_caption(content)}: {'along the axis' if content['plane']['rank'] else 'through the nucleus'}")
    grid = figure.subplots(max(1, len(names)), 1, squeeze=False, sharex=True)[:, 0]
    for name, axes in zip(names, grid, strict=False):
        for k, (functional, fields) in enumerate(zip(done, shown, strict=True)):
            if name in fields:
                axes.plot(u, fields[name], label=functional["xc"], **figures.line(k))
        for atom in content["plane"]["atoms"]:
            axes.axvline(atom["u_bohr"] * BOHR, color="0.8", linewidth=0.8, zorder=0)
        axes.set(ylabel=TITLES.get(name, name), xlim=(u[0], u[-1]))
        if name == "density":
            axes.set_yscale("log")
            axes.legend()
        elif name != "enhancement":
            axes.set_ylim(-0.03, 1.05)
    grid[-1].set_xlabel("Å")
    return figure
