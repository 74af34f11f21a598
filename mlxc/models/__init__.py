"""Model folders: weights, configuration and card, free of code and checked by hash.

A folder holds `weights.safetensors` and `model.json` with format, name, family, config, the SHA-256 of the
weights and the card (what it was trained on, how, and with which errors).  A model with an ensemble has its members in
`members.safetensors`, and their number and hash in `model.json`.  Its `d4` names the functional whose published D4
damping parameters serve this one: `NAME-d4` is the model NAME with that correction.  Its `domain` is what
`mlxc.domain` compares molecules with.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from pyscf.dft import libxc

from mlxc import scripted
from mlxc.errors import UNREADABLE, ModelFileError, UnknownFunctionalError
from mlxc.files import make_folder, write_atomic
from mlxc.functional import Functional
from mlxc.localhybrid import FIXED_FORMS
from mlxc.neural import NeuralLocalHybrid, NeuralMetaGGA

DEFAULT = "mlxc-lh7-d4"
FORMAT = 1
FAMILIES: dict[str, type[NeuralMetaGGA]] = {"neural-mgga": NeuralMetaGGA, "neural-local-hybrid": NeuralLocalHybrid}
_HERE = Path(__file__).parent
#: What is in `model.json`, where it is there.
_TYPES: dict[str, type] = {
    "name": str, "family": str, "config": dict, "sha256": str, "card": dict, "domain": dict, "members": dict,
    "uncertainty_scale": float,
}  # fmt: skip


def names() -> list[str]:
    """Names of the shipped models."""
    return sorted(p.parent.name for p in _HERE.glob("*/model.json"))


def _split(name: str | os.PathLike) -> tuple[str | os.PathLike, bool]:
    """A model's name or folder without "-d4" at its end, and whether that was there; "default" is DEFAULT."""
    text = DEFAULT if name == "default" else os.fspath(name)
    with_d4 = text.lower().endswith("-d4") and not _folder(text)
    return (text[:-3], True) if with_d4 else (text, False)


def _folder(name: str | os.PathLike) -> Path | None:
    for folder in (_HERE / os.fspath(name), Path(name)):
        if os.path.isfile(folder / "model.json"):  # Path's own breaks off at names that are too long for a file
            return folder
    return None


def exists(name: str | os.PathLike) -> bool:
    """Whether `name` is "default", a shipped model or a model folder, or one of these and "-d4", or FILE.fun."""
    return scripted.names_script(name) or _folder(_split(name)[0]) is not None


def _open(name: str | os.PathLike) -> tuple[Path, dict[str, Any]]:
    name, with_d4 = _split(name)
    folder = _folder(name)
    if folder is None and os.path.isdir(name):
        raise ModelFileError(f"{Path(name)} is no model folder: it has no model.json")
    if folder is None:
        raise UnknownFunctionalError(
            f"no model {str(name)!r}: shipped are {', '.join(names()) or 'none'}, and there is no folder of that name"
        )
    try:
        info = json.loads((folder / "model.json").read_text())
    except UNREADABLE as err:
        raise ModelFileError(f"{folder / 'model.json'} is damaged ({err}): install the model again") from err
    if not isinstance(info, dict) or any(not isinstance(info.get(k, t()), t) for k, t in _TYPES.items()):
        raise ModelFileError(f"{folder / 'model.json'} is not a model's description: install the model again")
    if not {"name", "config", "sha256"} <= info.keys():
        raise ModelFileError(f"{folder / 'model.json'} is not a model's description: install the model again")
    if info.get("format") != FORMAT or info.get("family") not in FAMILIES:
        raise ModelFileError(
            f"{folder} has format {info.get('format')}, family {info.get('family')!r}; this mlxc reads format {FORMAT} "
            f"and {', '.join(FAMILIES)}: install a newer mlxc"
        )
    if not with_d4:
        return folder, info
    if not isinstance(info.get("d4"), str):
        raise UnknownFunctionalError(f"no {name}-d4: D4 was not fitted to this model; try mf.disp = 'd4:pbe0'")
    return folder, info | {"name": f"{info['name']}-d4", "disp": f"d4:{info['d4']}"}


def describe(name: str | os.PathLike = "default") -> dict[str, Any]:
    """The contents of a model's `model.json`, and `disp`, PySCF's `mf.disp`, for a name with "-d4".

    Of FILE.fun@SHA256 what `mlxc.scripted.describe` says.  Raises UnknownFunctionalError, ModelFileError.
    """
    return scripted.describe(name) if scripted.names_script(name) else _open(name)[1]


def sha256(xc: str | os.PathLike) -> str | None:
    """The hash of a model's weights; None for a functional that is no model.  Raises ModelFileError."""
    return describe(xc)["sha256"] if exists(xc) else None


def load(name: str | os.PathLike = "default", sha256: str | None = None) -> Functional:
    """A model by name or folder, its weights checked against their hash; with "-d4" at the end, with dispersion.

    `sha256` is that of the weights that are wanted.  FILE.fun is a functional in TorchScript (`mlxc.scripted.load`),
    whose hash has to be given: that is code.
    Raises UnknownFunctionalError for an unknown name, or one without D4, ModelFileError for a damaged folder and for
    other weights, and InputError for FILE.fun without its hash.
    """
    if scripted.names_script(name):
        return scripted.load(name, sha256)
    folder, info = _open(name)
    path = folder / "weights.safetensors"
    weights = _weights(path, info.get("sha256"))
    if sha256 not in (None, info["sha256"]):
        raise ModelFileError(f"{path} has the SHA-256 {info['sha256']}, not {sha256}: it is another model")
    try:
        functional = _made(info, weights)
        functional.source, functional.sha256 = folder, info["sha256"]
        functional.disp, functional.domain = info.get("disp"), info.get("domain")
        return functional
    except UNREADABLE as err:
        raise ModelFileError(f"{path} does not fit model.json ({err!r}): install the model again") from err


def _weights(path: Path, sha256: str | None) -> dict[str, torch.Tensor]:
    """The tensors of a file that has this hash.  Raises ModelFileError."""
    try:
        content = path.read_bytes()
    except OSError as err:
        raise ModelFileError(f"cannot read {path} ({err.strerror}): install the model again") from err
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ModelFileError(f"{path} is damaged: its SHA-256 is not the one in model.json; install the model again")
    try:
        weights = safetensors.torch.load(content)
        if not all(torch.isfinite(w).all() for w in weights.values()):
            raise ValueError("numbers that are not finite")
        return weights
    except (safetensors.SafetensorError, *UNREADABLE) as err:
        raise ModelFileError(f"{path} does not fit model.json ({err!r}): install the model again") from err


def _made(info: dict[str, Any], weights: dict[str, torch.Tensor]) -> Functional:
    """The functional that model.json describes, with these weights."""
    config = {k: int(info["config"][k]) for k in ("width", "depth")}
    # A damaged depth would otherwise build layers until memory is full.
    if not 0 < config["width"] * config["depth"] <= sum(w.numel() for w in weights.values()):
        raise ValueError(f"{config} for so few weights")
    functional = FAMILIES[info["family"]](**config, name=info["name"])
    functional.load_state_dict(weights)
    return functional.requires_grad_(False).eval()


def load_members(name: str | os.PathLike = "default") -> list[Functional]:
    """The members of a model's ensemble, none where it has none.  Raises as `load`."""
    if scripted.names_script(name):
        return []
    folder, info = _open(name)
    if "members" not in info:
        return []
    tensors = _weights(folder / "members.safetensors", info["members"].get("sha256"))
    try:
        numbers = range(1, info["members"]["count"] + 1)
        return [
            _made(info, {k.split(".", 1)[1]: t for k, t in tensors.items() if k.startswith(f"{i}.")}) for i in numbers
        ]
    except UNREADABLE as err:
        raise ModelFileError(f"the ensemble of {folder} does not fit model.json ({err!r}): install it again") from err


def resolve(xc: str | Functional) -> Functional | None:
    """The functional that `xc` names: itself, one of FIXED_FORMS, a model, its folder or file; None for one of libxc.

    Raises UnknownFunctionalError for a name that nobody knows, ModelFileError for a damaged model and InputError for a
    file without its hash.
    """
    if isinstance(xc, Functional):
        return xc
    if xc in FIXED_FORMS:
        return FIXED_FORMS[xc]()
    if exists(xc):
        return load(xc)
    try:
        libxc.parse_xc(xc)
        libxc.xc_type(xc)
        known = bool(xc.strip())
    except Exception:  # PySCF raises KeyError, ValueError or bare exceptions, by version and by name
        known = False
    if not known:
        raise UnknownFunctionalError(
            f"unknown functional {xc!r}: neither a libxc name nor a model folder nor one of "
            + ", ".join([*names(), *FIXED_FORMS])
        )
    return None


def family_of(functional: NeuralMetaGGA) -> str:
    """Its name among FAMILIES."""
    return next(k for k, v in FAMILIES.items() if type(functional) is v)


def save(functional: NeuralMetaGGA, folder: Path, card: dict[str, Any], members: Sequence[NeuralMetaGGA] = ()) -> None:
    """Write a model folder, with the members of its ensemble; each file appears complete, model.json last.

    Raises InputError where it cannot be written.
    """
    make_folder(folder)
    family = family_of(functional)
    content = safetensors.torch.save(functional.state_dict())
    info = {
        "format": FORMAT,
        "name": functional.name,
        "family": family,
        "config": functional.config,
        "sha256": hashlib.sha256(content).hexdigest(),
        "card": card,
    }
    if functional.domain:
        info["domain"] = functional.domain
    if functional.disp:
        info["d4"] = functional.disp.removeprefix("d4:")
    if members:
        others = {f"{i}.{k}": t for i, m in enumerate(members, 1) for k, t in m.state_dict().items()}
        packed = safetensors.torch.save(others)
        info["members"] = {"count": len(members), "sha256": hashlib.sha256(packed).hexdigest()}
        write_atomic(folder / "members.safetensors", packed)
    write_atomic(folder / "weights.safetensors", content)
    write_atomic(folder / "model.json", json.dumps(info, indent=2) + "\n")
