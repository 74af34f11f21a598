"""What a model knows of the molecules that it was trained on, and of those that are unlike them."""

import json

import numpy as np
import pytest
import torch
from pyscf import gto

import mlxc
from mlxc import models
from mlxc.domain import domain, structure_descriptor
from mlxc.errors import InputError, ModelFileError
from mlxc.neural import NeuralLocalHybrid
from mlxc.ongrid import dense_features, spin_densities
from mlxc.run import run


def molecule(atom, spin=0):
    return gto.M(atom=atom, spin=spin, basis="6-31g", verbose=0)


def water(stretch):
    return molecule(f"O 0 0 0; H 0 {0.76 * stretch} {0.59 * stretch}; H 0 -0.76 0.59")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A functional that has seen water, methane and ammonia at many geometries."""
    folder = tmp_path_factory.mktemp("model")
    functional = NeuralLocalHybrid(2, 1, name="small")
    mols = [water(s) for s in np.linspace(0.9, 1.1, 8)]
    mols += [molecule(f"N 0 0 0; H 0 0.94 {h}; H 0.81 -0.47 {h}; H -0.81 -0.47 {h}") for h in np.linspace(0.2, 0.5, 8)]
    seen = []
    for mol in mols:
        mf = mlxc.KS(mol, functional).density_fit()
        mf.run(conv_tol=1e-4)
        features, weights = dense_features(mf, spin_densities(mf))
        seen.append((mol, features, torch.from_numpy(weights)))
    functional.domain = domain(functional, seen)
    models.save(functional, folder, {})
    return folder


def reasons(model, mol):
    return mlxc.novelty(mlxc.KS(mol, mlxc.load(model)).density_fit().run(conv_tol=1e-6))


def test_familiar_and_unfamiliar_molecules(model):
    assert reasons(model, water(1.03)) == []
    assert any(w.startswith("density") for w in reasons(model, water(2.5)))
    found = reasons(model, molecule("S 0 0 0; H 0 0.97 0.92; H 0 -0.97 0.92"))
    assert found[0].startswith("S: not among the elements")
    assert [w.split()[0] for w in found[1:]] == ["density", "structure"]
    assert any(w.startswith("structure") for w in reasons(model, molecule("O 0 0 0; O 0 0 1.2; O 0 1.1 1.8")))


def test_a_grid_that_was_changed_is_made_anew(model):
    mf = mlxc.KS(water(1.03), mlxc.load(model)).density_fit().run(conv_tol=1e-6)
    mf.grids.level = 2
    assert mlxc.novelty(mf) == []
    with pytest.raises(InputError, match="kernel"):
        mlxc.novelty(mf.reset())
    mf.kernel()
    mf.as_scanner()(water(1.1))
    with pytest.raises(InputError, match="own geometry"):
        mlxc.novelty(mf)


def test_what_the_default_model_knows():
    fresh = mlxc.KS(molecule("O 0 0 0; H 0 0.757 0.587; H 0 -0.757 0.587")).density_fit()
    with pytest.raises(InputError, match="kernel"):
        mlxc.novelty(fresh)
    assert mlxc.novelty(fresh.run()) == []
    ghost = molecule("O 0 0 0; H 0 0.757 0.587; H 0 -0.757 0.587; ghost-Kr 0 0 3")
    assert mlxc.novelty(mlxc.KS(ghost).density_fit().run()) == []
    assert mlxc.novelty(mlxc.KS(molecule("H 0 0 0", 1)).run()) == []  # exact, and far from all others
    krypton = mlxc.novelty(mlxc.KS(molecule("Kr 0 0 0")).density_fit().run())
    assert krypton[0].startswith("Kr: not among the elements")
    with pytest.raises(InputError, match="RKS, UKS or ROKS"):
        spin_densities(molecule("He 0 0 0").GKS())


def test_a_chemist_is_told(model, tmp_path, capsys):
    for symbol, expected in (("O", False), ("S", True)):
        (tmp_path / "x.xyz").write_text(f"3\n\n{symbol} 0 0 0\nH 0 0.76 0.59\nH 0 -0.76 0.59\n")
        result = run(tmp_path / "x.xyz", xc=str(model), basis="6-31g")
        assert bool(result["novelty"]) is expected
        assert ("UNLIKE the molecules" in capsys.readouterr().out) is expected


def test_a_model_without_its_domain_says_so(model, tmp_path):
    info = json.loads((model / "model.json").read_text())
    del info["domain"]
    (tmp_path / "model.json").write_text(json.dumps(info))
    (tmp_path / "weights.safetensors").write_bytes((model / "weights.safetensors").read_bytes())
    with pytest.raises(InputError, match="saved without its domain"):
        reasons(tmp_path, water(1.0))
    (tmp_path / "model.json").write_text(json.dumps(info | {"domain": {"elements": ["H", "O"]}}))
    with pytest.raises(ModelFileError, match="is damaged"):
        reasons(tmp_path, water(1.0))


def test_structure_descriptor():
    """Of H2 by hand, and unchanged by turning and by the order of atoms."""
    r = 1.4
    h2 = gto.M(atom=f"H 0 0 0; H 0 0 {r}", unit="Bohr", basis="sto-3g", verbose=0)
    expected = np.log1p(np.abs([0.5 + 1 / r, 0.5 - 1 / r]))
    assert structure_descriptor(h2)[:3] == pytest.approx([*expected, 0])
    mol, other = molecule("O 0 0 0; S 0 0.76 0.59; C 0 -0.76 1"), molecule("C 5 1 -0.76; S 5 0.59 0.76; O 5 0 0")
    assert structure_descriptor(mol) == pytest.approx(structure_descriptor(other))
