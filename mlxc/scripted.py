"""Files of TorchScript (`mlxc.torchscript`) as functionals, once their hash says that they are the ones to trust."""

from __future__ import annotations

import hashlib
import os
import re
from itertools import combinations_with_replacement, permutations
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mlxc.errors import InputError, ModelFileError
from mlxc.features import Features
from mlxc.functional import Functional
from mlxc.numint import MAX_DERIV, derivatives_of
from mlxc.torchscript import FEATURES, PROTOCOL, Mol, opened, points

_NAME = re.compile(r"(.+\.fun)(?:@(\w*))?", re.DOTALL)


def names_script(name: str | os.PathLike) -> bool:
    """Whether this is FILE.fun or FILE.fun@SHA256."""
    return _NAME.fullmatch(os.fspath(name)) is not None


class ScriptFunctional(Functional):
    """A semilocal functional from a file of the protocol.

    It is a function of spin densities' gradients.  From these alone come its derivatives, `eval_xc_eff`: where both are
    parallel, in an atom everywhere, derivatives with respect to their products do not exist.
    """

    def __init__(self, script: Any, name: str, xctype: str):
        super().__init__()
        self.name, self.xctype = name, xctype
        self.script = script
        #: The file that it is from, so that another process can read it.
        self.path: Path | None = None

    def __reduce__(self) -> tuple:
        """Modules of TorchScript cannot be pickled."""
        return load, (self.path, self.sha256)

    def _per_volume(self, mol: Mol) -> torch.Tensor:
        """Energy per volume (G,) from what there is of the protocol's features."""
        needed = {k: mol[k] for k in FEATURES[self.xctype]}
        return self.script.get_exc_density(needed | {"grid_weights": torch.ones_like(mol["density"][0])})

    def energy_density(self, features: Features) -> torch.Tensor:
        """As Functional.energy_density, of any gradients with the given products.

        Raises InputError where derivatives are asked for: calculations have them from `eval_xc_eff`.
        """
        if features.rho.requires_grad or features.sigma.requires_grad or features.tau.requires_grad:
            raise InputError(f"{self.name} comes from TorchScript and has derivatives in calculations only: mlxc.KS")
        rho, tau = (x.expand(2, -1) for x in (features.rho, features.tau))
        aa, ab, bb = (features.sigma[k] for k in (0, len(features.sigma) // 2, -1))
        along = torch.where(aa > 0, ab / aa.sqrt(), 0.0)
        grad = torch.zeros(2, 3, rho.shape[1], dtype=rho.dtype)
        grad[0, 0], grad[1, 0], grad[1, 1] = aa.sqrt(), along, (bb - along**2).clamp(min=0).sqrt()
        return self._per_volume({"density": rho, "grad": grad, "kin": tau})

    def eval_xc(self, *args: Any, **kwargs: Any) -> tuple:
        """InputError: see the class."""
        raise InputError(f"{self.name} comes from TorchScript: use mlxc.KS(mol, functional), not define_xc_")

    def eval_xc_eff(
        self,
        xc_code: Any,
        rho: np.ndarray,
        deriv: int = 1,
        omega: Any = None,
        xctype: Any = None,
        verbose: Any = None,
        spin: int | None = None,
    ) -> list[np.ndarray | None]:
        """As `pyscf.dft.numint.NumInt.eval_xc_eff`: energy per particle, and derivatives of the energy per volume.

        Takes the place of that method; `xc_code`, `omega`, `xctype` and `verbose` have no effect.
        """
        rho = np.asarray(rho, dtype=np.float64)
        nspin = 1 + bool(rho.ndim > 1 and rho.shape[0] == 2 if spin is None else spin)
        kept = {"LDA": [0], "GGA": [0, 1, 2, 3], "MGGA": [0, 1, 2, 3, -1]}[self.xctype]
        channels = rho.reshape(nspin, -1, rho.shape[-1])[:, kept]
        n = nspin * len(kept)

        def energy(x: torch.Tensor) -> torch.Tensor:
            spins = x.reshape(nspin, len(kept), -1)
            # A restricted density is shared equally by two spins.
            spins = spins if nspin == 2 else spins.expand(2, -1, -1) / 2
            return self._per_volume({"density": spins[:, 0], "grad": spins[:, 1:4], "kin": spins[:, -1]})

        total = torch.from_numpy(channels[:, 0].sum(0))
        values = iter(derivatives_of(energy, torch.from_numpy(channels.reshape(n, -1)), total, deriv))
        out: list[np.ndarray | None] = [next(values)]
        for order in range(1, deriv + 1):
            tensor = np.empty((n,) * order + total.shape)
            for index in combinations_with_replacement(range(n), order):
                value = next(values)
                for p in set(permutations(index)):
                    tensor[p] = value
            shape = (2, len(kept)) * order if nspin == 2 else (n,) * order
            out.append(tensor.reshape(shape + total.shape))
        return out + [None] * (MAX_DERIV - deriv)


def _read(path: Path, sha256: str | None) -> tuple[Any, dict[str, Any]]:
    """The module of a file and its further files, once its hash is the one given."""
    try:
        content = path.read_bytes()
    except OSError as err:
        raise ModelFileError(f"cannot read {path}: {err.strerror}") from err
    found = hashlib.sha256(content).hexdigest()
    if not sha256:
        raise InputError(
            f"{path} holds code, which mlxc runs only where you name the file that you trust: its SHA-256 is {found}; "
            f"if that is the one you expect, give sha256 = that, or {path}@{found} as the name"
        )
    if found != sha256.lower():
        raise ModelFileError(f"{path} is not the file that you trust: its SHA-256 is {found}, not {sha256}")
    try:
        script, extra = opened(content)
    except (RuntimeError, ValueError) as err:
        raise ModelFileError(f"{path} is not a functional in TorchScript: {str(err).splitlines()[0]}") from err
    if extra["protocol_version"] != PROTOCOL:
        raise ModelFileError(f"{path} has protocol version {extra['protocol_version']}; this mlxc reads {PROTOCOL}")
    return script, extra | {"sha256": found}


def describe(name: str | os.PathLike) -> dict[str, Any]:
    """What a file says of itself, by its name or FILE.fun@SHA256, with `name`, `sha256` and PySCF's `mf.disp`.

    Raises as `load`.
    """
    return _loaded(name, None)[1]


def load(name: str | os.PathLike, sha256: str | None = None) -> ScriptFunctional:
    """The functional in a file of the protocol, by its path and SHA-256, or by FILE.fun@SHA256.

    TorchScript is code: the hash says that the file is the one that you trust.  Raises InputError without it, which
    tells the hash that the file has, and for a functional that needs features which mlxc does not compute or is not
    semilocal; ModelFileError for another hash and for a file of another format.
    """
    return _loaded(name, sha256)[0]


def _loaded(name: str | os.PathLike, sha256: str | None) -> tuple[ScriptFunctional, dict[str, Any]]:
    match = _NAME.fullmatch(os.fspath(name))
    path, given = (Path(match[1]), match[2]) if match else (Path(name), None)
    script, extra = _read(path, sha256 or given)
    features, metadata, d3 = extra["features"], extra["metadata"], extra["expected_d3_settings"]
    if not (isinstance(features, list) and isinstance(metadata, dict) and isinstance(d3, str | None)):
        raise ModelFileError(f"{path}: features, metadata or expected_d3_settings are not as the protocol has them")
    missing = [str(k) for k in features if k not in (*FEATURES["MGGA"], "grid_weights")]
    if missing:
        raise InputError(
            f"{path} needs {', '.join(missing)}: mlxc computes density, grad, kin and grid_weights, which semilocal "
            "functionals take; run others with the program that they were made for"
        )
    xctype = "MGGA" if "kin" in features else "GGA" if "grad" in features else "LDA"
    functional = ScriptFunctional(script, str(metadata.get("name", path.stem)), xctype)
    functional.disp = f"d3bj:{d3}" if d3 else None
    functional.path, functional.sha256 = path.resolve(), extra["sha256"]
    _check(functional, path)
    return functional, extra | {"name": functional.name, "family": "torchscript", "disp": functional.disp}


def _check(functional: ScriptFunctional, path: Path) -> None:
    """InputError unless energies per volume are finite and those of a point do not depend on other points."""
    whole, half = points(12), {k: x[..., :6] for k, x in points(12).items()}
    try:
        with torch.no_grad():
            together, alone = (functional._per_volume(mol) for mol in (whole, half))
    except (AttributeError, RuntimeError, TypeError, ValueError) as err:
        raise ModelFileError(f"{path} has no get_exc_density that works: {str(err).splitlines()[-1]}") from err
    if together.shape != (12,) or not torch.allclose(together[:6].double(), alone.double(), rtol=1e-6, atol=1e-9):
        raise InputError(f"{path} is not semilocal: its energy density at a point depends on others, or is not finite")
