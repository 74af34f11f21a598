"""Semilocal functionals as files of TorchScript, which other programs run.

The format is that of Skala (Luise et al., arXiv:2506.14665), protocol version 2, which GauXC reads and with it the
programs that use GauXC: a module with the methods

    get_exc_density(mol) -> (G,)   exchange-correlation energy per volume, Eh Bohr^-3
    get_exc(mol) -> ()             its sum over the grid, Eh

of a dictionary of tensors (float64, Hartree atomic units)

    density       (2, G)     spin densities
    grad          (2, 3, G)  their gradients
    kin           (2, G)     kinetic energy densities, 1/2 sum_i |grad phi_i|^2
    grid_weights  (G,)

and four further files in JSON: features (names of those that it needs), metadata, expected_d3_settings (the functional
whose D3(BJ) parameters belong to it, or null) and protocol_version.
"""

from __future__ import annotations

import copy
import hashlib
import io
import json
import os
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from mlxc.errors import InputError
from mlxc.features import Features
from mlxc.files import write_atomic
from mlxc.functional import Functional
from mlxc.version import __version__

PROTOCOL = 2
#: What each type of functional needs, in the order of PySCF's rows of densities.
FEATURES = {"LDA": ("density",), "GGA": ("density", "grad"), "MGGA": ("density", "grad", "kin")}
#: The further files.
EXTRA = ("metadata", "features", "expected_d3_settings", "protocol_version")

Mol = dict[str, torch.Tensor]


class Exported(torch.nn.Module):
    """A semilocal functional with the methods of the protocol."""

    def __init__(self, functional: Functional):
        super().__init__()
        self.functional = copy.deepcopy(functional).requires_grad_(False)

    def get_exc_density(self, mol: Mol) -> torch.Tensor:
        rho = mol["density"].clamp(min=0)
        sigma, tau = rho.new_zeros(3, rho.shape[1]), torch.zeros_like(rho)
        if self.functional.xctype != "LDA":
            a, b = mol["grad"][0], mol["grad"][1]
            sigma = torch.stack([(a * a).sum(0), (a * b).sum(0), (b * b).sum(0)])
        if self.functional.xctype == "MGGA":
            tau = mol["kin"]
        return self.functional.energy_density(Features(rho, sigma, tau))

    def get_exc(self, mol: Mol) -> torch.Tensor:
        return (self.get_exc_density(mol) * mol["grid_weights"]).sum()


def export(functional: Functional, path: str | os.PathLike) -> str:
    """Write a semilocal functional as a file of the protocol, which appears complete; returns its SHA-256.

    The same functional, mlxc and torch give the same bytes.  Raises InputError for a functional with exact exchange or
    D4, which the protocol has no place for, for one that is not written in torch alone (one of libxc), and where the
    file cannot be written.
    """
    name = functional.name
    if functional.exx_omega is not None:
        raise InputError(
            f"{name} is a local hybrid: it needs the exact-exchange energy density at every point, which is none of "
            "the features that GauXC computes; export a semilocal one, for example mlxc-mgga3"
        )
    if functional.disp:
        raise InputError(
            f"{name} has {functional.disp}, and the protocol knows D3 only: export {name.removesuffix('-d4')} and "
            "let the other program add D4"
        )
    extra = {
        "metadata": {"name": name, "mlxc": __version__, "model_sha256": functional.sha256},
        "features": [*FEATURES[functional.xctype], "grid_weights"],
        "expected_d3_settings": None,
        "protocol_version": PROTOCOL,
    }
    module = Exported(functional).eval()
    archive = io.BytesIO()
    try:
        with warnings.catch_warnings(action="ignore"):  # torch's on its tracer: what it records is looked at below
            inputs = {method: (points(7),) for method in ("get_exc_density", "get_exc")}
            traced = torch.jit.trace_module(module, inputs, check_trace=False)
            # Parameters become constants, and with them the sizes and devices that were read from them.
            frozen = torch.jit.freeze(traced, preserved_attrs=list(inputs), optimize_numerics=False)
            torch.jit.save(frozen, archive, _extra_files={k: json.dumps(extra[k]) for k in EXTRA})
    except (RuntimeError, TypeError, ValueError) as err:
        raise InputError(f"{name} cannot be exported: torch cannot record it ({err})") from err
    content = _reproducible(archive.getvalue())
    if not _same(module, opened(content)[0]):
        raise InputError(f"{name} cannot be exported: it does more than torch can record, as functionals of libxc do")
    write_atomic(Path(path), content)
    return hashlib.sha256(content).hexdigest()


def points(number: int) -> Mol:
    """Features of points that look like those of a molecule, of an empty spin channel, and of a nearly empty point."""
    generator = torch.Generator().manual_seed(number)

    def random(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    rho = 10 ** (4 * random(2, number) - 3)
    grad = (2 * random(2, 3, number) - 1) * rho[:, None] ** (4 / 3)
    kin = (grad**2).sum(1) / (8 * rho) + 3 * random(2, number) * rho ** (5 / 3)
    rho[1, 0], grad[1, :, 0], kin[1, 0] = 0, 0, 0
    rho[:, 1] *= 1e-12
    return {"density": rho, "grad": grad, "kin": kin, "grid_weights": random(number)}


def _same(module: Exported, script: Any) -> bool:
    """Whether energies and their derivatives agree, at other points than were recorded."""
    results = []
    for f in (module, script):
        mol = {k: x.requires_grad_() for k, x in points(11).items()}
        try:
            energy = f.get_exc(mol)
            results.append([energy, *torch.autograd.grad(energy, list(mol.values()), allow_unused=True)])
        except RuntimeError:  # of numbers of points that were recorded
            return False
    return all(
        (a is None and b is None) or (a is not None and b is not None and torch.allclose(a, b, rtol=1e-10, atol=1e-12))
        for a, b in zip(*results, strict=True)
    )


def _reproducible(archive: bytes) -> bytes:
    """The archive without what differs from one export to the next.

    That is the counter in the name of a class that torch has seen before, in code and in data.pkl, and paths of source
    files, which are for tracebacks.
    """
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith((".debug_pkl", "/serialization_id")) or "/traced_inputs" in name:
                continue
            if "/code/" in name or name.endswith("/data.pkl"):
                content = re.sub(rb"\.___torch_mangle_\d+", b"", content)
            entry = zipfile.ZipInfo(re.sub(r"/___torch_mangle_\d+", "", name))
            entry.create_system = 3
            new.writestr(entry, content)
    return out.getvalue()


def opened(content: bytes) -> tuple[Any, dict[str, Any]]:
    """The module in an archive and its further files.  What torch and json raise."""
    extra = dict.fromkeys(EXTRA, "")
    with warnings.catch_warnings(action="ignore"):  # torch prefers formats that no other program reads
        script = torch.jit.load(io.BytesIO(content), map_location="cpu", _extra_files=extra)
    return script.eval(), {k: json.loads(v) for k, v in extra.items()}
