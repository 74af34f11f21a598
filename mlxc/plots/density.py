"""Densities of functionals minus a reference density: in a plane of a molecule, over the radius of an atom."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pyscf import gto
from pyscf.data.nist import BOHR
from pyscf.dft.gen_grid import Grids, MakeAngularGrid
from scipy.integrate import trapezoid
from scipy.spatial.transform import Rotation

from mlxc.errors import InputError
from mlxc.ongrid import BLOCK, spin_densities
from mlxc.plots import figures
from mlxc.plots.saved import field, header, solved, subjects
from mlxc.plots.section import Plane, extent, mark_atoms, plane_of
from mlxc.reference import shipped, store
from mlxc.reference.schema import Reference

#: Shipped files in the order in which a name is looked for: all electrons and exact ones first.
FILES = ("one_electron", "two_electron", "atoms", "metal_atoms", "small", "ions", "barriers")
#: Radii, Bohr, of the curves of atoms, and the directions over which they are averaged.
RADII, DIRECTIONS = 12.0 * np.linspace(0.0, 1.0, 401) ** 2, 110
#: Rotations about the axis of a linear molecule over which densities are averaged.
ROTATIONS = 8
#: Level of the grid that integrates |n - n_ref|, which has a kink wherever the sign changes: 3 is off by 2% for He.
FINE = 5
#: A radial curve is drawn as far as it reaches this share of its largest value.
VISIBLE = 0.02


def find(name: str, data: str | None = None) -> Reference:
    """The reference of this name, of a shipped file or a .h5 file; by default of the first shipped one that has it.

    Raises InputError for an unknown name and for a system without a density, ReferenceFileError for a damaged file.
    """
    files = [data] if data else FILES
    known: list[str] = []
    for file in files:
        library = store.read(file) if Path(file).suffix else shipped.load(file)
        if name in library and library[name].fractional:
            raise InputError(f"{name!r} has no whole number of electrons or spin: pictures are of whole ones")
        if name in library and library[name].converged:
            return library[name]
        known += library
    some = ", ".join(list(dict.fromkeys(k for k in known if k.startswith(name[:1])))[:12])
    raise InputError(
        f"no reference density {name!r} in {', '.join(files)}, which have {some or 'others'}: see mlxc reference info"
    )


def density_at(mol: gto.Mole, dm: np.ndarray, coords: np.ndarray) -> np.ndarray:
    """Density (G,), Bohr^-3, of a density matrix (nao, nao) at coords (G, 3) in Bohr."""
    out = np.empty(len(coords))
    for i in range(0, len(coords), BLOCK):
        ao = mol.eval_gto("GTOval", coords[i : i + BLOCK])
        out[i : i + BLOCK] = np.einsum("gm,gm->g", ao @ dm, ao)
    return out


def radial(mol: gto.Mole, dm: np.ndarray) -> np.ndarray:
    """4 pi r^2 n(r) of an atom, Bohr^-1, at RADII: n averaged over all directions, whose weights are PySCF's."""
    grid = MakeAngularGrid(DIRECTIONS)
    coords = mol.atom_coord(0) + (RADII[:, None, None] * grid[:, :3]).reshape(-1, 3)
    return 4 * np.pi * RADII**2 * (density_at(mol, dm, coords).reshape(len(RADII), -1) @ grid[:, 3])


def turned(mol: gto.Mole, dm: np.ndarray, coords: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """Density averaged over rotations about an axis through the first atom.

    One state of a degenerate level, as of OH, points in a direction of its own; the average is that of the level.
    """
    place = mol.atom_coord(0)
    angles = 2 * np.pi * np.arange(ROTATIONS) / ROTATIONS
    points = [place + Rotation.from_rotvec(t * axis).apply(coords - place) for t in angles]
    return np.mean([density_at(mol, dm, p) for p in points], axis=0)


def _averaged(mol: gto.Mole, dm: np.ndarray, coords: np.ndarray, plane: Plane) -> np.ndarray:
    """Density of a molecule, of a linear one `turned`."""
    return turned(mol, dm, coords, plane.axes[0]) if plane.rank == 1 else density_at(mol, dm, coords)


def compute(name: str, xcs: list[str], data: str | None = None, atoms: Sequence[int] | None = None) -> dict[str, Any]:
    """Density differences of all functionals for a reference, self-consistent in the basis of the reference.

    `misplaced_electrons` is half the integral of |n - n_ref|, averaged over what a degenerate level leaves open (all
    directions round an atom, rotations about the axis of a linear molecule), `electrons_difference` the integral of
    n - n_ref.  Raises InputError and its kin for what cannot be done; calculations that do not converge have no fields.
    """
    reference = find(name, data)
    mol = reference.mole()
    of_reference = np.asarray(reference.dm1).sum(0)
    plane, grid = plane_of(mol.atom_coords(), atoms), Grids(mol)
    grid.level = FINE
    grid.build()
    rows = []
    for subject, row in subjects(xcs):
        mf = solved(subject, mol)
        row |= {"converged": mf is not None}
        if mf is not None:
            dms = spin_densities(mf)
            change = dms.sum(0) * (2 // len(dms)) - of_reference
            if mol.natm == 1:
                shells = radial(mol, change)
                row["radial_difference"] = field(shells)
                misplaced = trapezoid(abs(shells), RADII) / 2
            else:
                row["difference"] = field(_averaged(mol, change, plane.points(), plane).reshape(len(plane.v), -1))
                misplaced = abs(_averaged(mol, change, grid.coords, plane)) @ grid.weights / 2
            electrons = density_at(mol, change, grid.coords) @ grid.weights
            row |= {"energy_hartree": float(mf.e_tot), "misplaced_electrons": float(misplaced),
                    "electrons_difference": float(electrons)}  # fmt: skip
        rows.append(row)
    level = {"name": reference.name, "method": reference.method, "nao": int(mol.nao), "frozen": int(reference.frozen),
             "provenance": reference.provenance}  # fmt: skip
    content = header("density", "that of the reference") | {"reference": level, "functionals": rows}
    if mol.natm == 1:
        return content | {"radii_bohr": RADII.tolist()}
    return content | {"plane": plane.content(reference.symbols, reference.coords)}


def draw(content: dict[str, Any]) -> dict[str, Any]:
    """Figures by what is added to the file's name."""
    done = [f for f in content["functionals"] if f["converged"]]
    reference = content["reference"]
    core = ", frozen cores" if reference["frozen"] else ""
    title = f"{reference['name']}: density minus that of {reference['method']} ({reference['nao']} functions{core})"
    if "radii_bohr" in content:
        return {"": _radial(content, done, title)}
    drawn = {"": _maps(content, done, title)}
    if content["plane"]["rank"] == 1:
        drawn["-line"] = _line(content, done, title)
    return drawn


def _label(functional: dict[str, Any]) -> str:
    return f"{functional['xc']}: {functional['misplaced_electrons']:.3f} e misplaced"


def _radial(content: dict[str, Any], done: list[dict[str, Any]], title: str) -> Any:
    r = np.array(content["radii_bohr"], dtype=float)
    figure = figures.figure(6.5, 4.2)
    axes = figure.subplots()
    axes.axhline(0, **figures.EXACT)
    end = 0.0
    for k, functional in enumerate(done):
        values = np.array(functional["radial_difference"], dtype=float)
        axes.plot(r * BOHR, values, label=_label(functional), **figures.line(k))
        end = max(end, r[abs(values) > VISIBLE * abs(values).max()].max(initial=0.0))
    axes.set(xlabel="distance from the nucleus, Å", ylabel=r"$4\pi r^2 \Delta n(r)$, Bohr$^{-1}$", title=title)
    if end:
        axes.set_xlim(0, end * BOHR)
    axes.legend()
    return figure


def _maps(content: dict[str, Any], done: list[dict[str, Any]], title: str) -> Any:
    box = extent(content["plane"])
    shown = [np.array(f["difference"], dtype=float) for f in done]
    # Deviations in the cores, much larger than those of the valence, would hide these.
    limit = max((float(np.percentile(abs(x), 97)) for x in shown), default=1.0)
    figure = figures.figure(max(5.5, 1.2 + 3.2 * len(done)), 3.4)
    figure.suptitle(title)
    grid = figure.subplots(1, max(1, len(done)), squeeze=False, sharex=True, sharey=True)[0]
    image = None
    for axes, functional, values in zip(grid, done, shown, strict=False):
        image = axes.imshow(values, extent=box, origin="lower", cmap=figures.SIGNED, vmin=-limit, vmax=limit)
        mark_atoms(axes, content["plane"])
        axes.set(title=_label(functional), xlabel="Å")
    grid[0].set_ylabel("Å")
    if image is not None:
        figure.colorbar(image, ax=list(grid), label=r"$\Delta n$, Bohr$^{-3}$", extend="both")
    return figure


def _line(content: dict[str, Any], done: list[dict[str, Any]], title: str) -> Any:
    """Along the axis of a linear molecule: the middle row of the plane."""
    u = np.array(content["plane"]["u_bohr"], dtype=float) * BOHR
    figure = figures.figure(6.5, 4.2)
    axes = figure.subplots()
    axes.axhline(0, **figures.EXACT)
    for k, functional in enumerate(done):
        values = np.array(functional["difference"], dtype=float)
        axes.plot(u, values[len(values) // 2], label=_label(functional), **figures.line(k))
    for atom in content["plane"]["atoms"]:
        axes.axvline(atom["u_bohr"] * BOHR, color="0.8", linewidth=0.8, zorder=0)
    axes.set(xlabel="along the axis, Å", ylabel=r"$\Delta n$, Bohr$^{-3}$", title=title, xlim=(u[0], u[-1]))
    axes.legend()
    return figure
