"""QCSchema in, QCSchema out; importing this module makes `qcengine.compute(input, "mlxc")` work.

The method of a model is any XC that mlxc knows, its basis any basis of PySCF by name, keywords are those of
`mlxc.calculation.SETTINGS`.  Drivers are energy, gradient, hessian and properties (dipole and polarizability).
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pyscf
from pyscf.data.nist import BOHR

from mlxc import models
from mlxc.calculation import SETTINGS, ensemble, prepare, solve, strange
from mlxc.errors import ConvergenceError, InputError, MlxcError
from mlxc.geometry import gradient_method, make_mole
from mlxc.harmonic import hessian
from mlxc.properties import polarizability
from mlxc.version import __version__
from mlxc.workers import on_threads

try:
    from qcelemental.models.v2 import AtomicInput, AtomicResult
    from qcengine import exceptions, register_program
    from qcengine.config import TaskConfig
    from qcengine.programs import ProgramHarness
except ImportError as err:
    raise InputError("mlxc.qcschema needs QCElemental and QCEngine: pip install 'mlxc[qcschema]'") from err


def atomic_result(given: AtomicInput, max_memory: float | None = None) -> AtomicResult:
    """The result of a converged calculation, in at most `max_memory` MB (None: PySCF's default).

    `extras["mlxc"]` has the model's name and the SHA-256 of its weights, PySCF's version, all `settings` and, where the
    model has them, the total energies of its ensemble (Eh; reaction energies are made of them as of energies), the
    uncertainty of the energy (kcal/mol) and in what the molecule is unlike those trained on.

    Raises InputError for ghost atoms, a basis that is not a name, and as `mlxc.calculation.prepare`; ConvergenceError.
    """
    molecule, specification = given.molecule, given.specification
    model, driver = specification.model, specification.driver.value
    if not np.all(molecule.real):
        raise InputError("ghost atoms are not available through QCSchema: use PySCF's ghost-X and mlxc.KS")
    if not isinstance(model.basis, str):
        raise InputError("the basis of a model is a name that PySCF knows, for example def2-tzvp")
    if molecule.molecular_charge % 1 or molecule.molecular_multiplicity % 1:
        raise InputError("charge and multiplicity are whole numbers")
    mol = make_mole(
        zip(molecule.symbols, molecule.geometry * BOHR, strict=True),
        model.basis,
        int(molecule.molecular_charge),
        int(molecule.molecular_multiplicity) - 1,
    )
    if max_memory is not None:
        mol.max_memory = max_memory
    mf = solve(prepare(mol, model.method, specification.keywords))
    properties = _properties(mf)
    result: Any = mf.e_tot
    if driver == "gradient":
        result = properties["return_gradient"] = gradient_method(mf).kernel()
    elif driver == "hessian":
        result = hessian(mf).transpose(0, 2, 1, 3).reshape(3 * mol.natm, 3 * mol.natm)
        properties["return_hessian"] = result
    elif driver == "properties":
        result = {"dipole": properties["scf_dipole_moment"].tolist(), "polarizability": polarizability(mf).tolist()}
    return AtomicResult(
        input_data=given,
        molecule=molecule,
        properties=properties,
        return_result=result,
        provenance={"creator": "mlxc", "version": __version__, "routine": "mlxc.qcschema.atomic_result"},
        extras={"mlxc": _extras(mf, model.method) | {"settings": SETTINGS | specification.keywords}},
    )


def _properties(mf: Any) -> dict[str, Any]:
    """QCSchema's names for what PySCF has at hand."""
    mol, parts = mf.mol, mf.scf_summary
    found = {
        "calcinfo_nbasis": mol.nao,
        "calcinfo_nmo": np.shape(mf.mo_coeff)[-1],
        "calcinfo_nalpha": mol.nelec[0],
        "calcinfo_nbeta": mol.nelec[1],
        "calcinfo_natom": mol.natm,
        "nuclear_repulsion_energy": float(mol.energy_nuc()),
        "return_energy": float(mf.e_tot),
        "scf_total_energy": float(mf.e_tot),
        "scf_one_electron_energy": float(parts["e1"]),
        "scf_xc_energy": float(parts["exc"]),
        "scf_iterations": mf.cycles,
        "scf_dipole_moment": mf.dip_moment(unit="AU", verbose=0),
    }
    if "dispersion" in parts:
        found["scf_dispersion_correction_energy"] = float(parts["dispersion"])
    return found


def _extras(mf: Any, method: str) -> dict[str, Any]:
    found, reasons = ensemble(mf), strange(mf)
    extras: dict[str, Any] = {"model": str(mf.xc), "model_sha256": models.sha256(method), "pyscf": pyscf.__version__}
    if found:
        extras |= {"ensemble_energies_hartree": found[0].tolist(), "energy_uncertainty_kcal": found[1]}
    if reasons is not None:
        extras["novelty"] = reasons
    return extras


class MlxcHarness(ProgramHarness):
    """What QCEngine runs as the program "mlxc": `atomic_result`, with the cores and the memory of the task."""

    _defaults: ClassVar[dict[str, Any]] = {
        "name": "mlxc",
        "scratch": False,
        "thread_safe": False,
        "thread_parallel": True,
        "node_parallel": False,
        "managed_memory": True,
    }

    @staticmethod
    def found(raise_error: bool = False) -> bool:
        """Whether the program is there, which importing this module has shown."""
        return True

    def get_version(self) -> str:
        return __version__

    def compute(self, input_data: AtomicInput, config: TaskConfig) -> AtomicResult:
        """Raises QCEngine's InputError, ConvergenceError and ResourceError."""
        try:
            with on_threads(config.ncores):
                return atomic_result(input_data, config.memory * 1024**3 / 1e6)
        except ConvergenceError as err:
            raise exceptions.ConvergenceError(str(err)) from err
        except MlxcError as err:
            raise exceptions.InputError(str(err)) from err
        except MemoryError as err:
            raise exceptions.ResourceError(str(err) or "not enough memory") from err


register_program(MlxcHarness())
