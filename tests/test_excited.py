"""Excitations of both families, and how the command line shows them."""

import json

import numpy as np
import pytest
from pyscf import gto, scf

import mlxc
from mlxc.cli import main
from mlxc.errors import InputError
from mlxc.localhybrid import HartreeFock

HF = "H 0 0 0; F 0 0 0.92"


def calculation(xc, **kwargs):
    mf = mlxc.KS(gto.M(**{"atom": HF, "basis": "sto-3g", "verbose": 0, **kwargs}), xc)
    return mf.set(grids=mf.grids.set(level=1)).run(conv_tol=1e-10)


def test_energies_and_strengths_of_hartree_fock():
    mf = calculation(HartreeFock())
    found = mlxc.excitations(mf, 3)
    reference = scf.RHF(mf.mol).run().TDHF().run(nstates=3)
    assert np.allclose(found.energies_ev, reference.e * 27.211386, atol=0.1)
    assert np.allclose(found.oscillator_strengths, reference.oscillator_strength(), atol=2e-3)
    assert found.oscillator_strengths.max() > 0.01
    assert np.allclose(found.wavelengths_nm * found.energies_ev, 1239.84198)
    assert found.converged.all()


@pytest.mark.parametrize("xc", ["t-lmf", "mlxc-mgga1"])
def test_open_shells(xc):
    found = mlxc.excitations(calculation(xc, atom="O 0 0 0; H 0 0 0.97", spin=1), 3)
    assert len(found.energies_ev) == len(found.oscillator_strengths) == len(found.converged) <= 3
    assert found.energies_ev[-1] > 3


def test_excitations_refuse_what_they_cannot_do():
    mol = gto.M(atom="O 0 0 0; H 0 0 0.97", basis="sto-3g", spin=1, verbose=0)
    with pytest.raises(InputError, match="kernel"):
        mlxc.excitations(mlxc.KS(mol))
    for xc in ("t-lmf", "mlxc-mgga1"):
        with pytest.raises(InputError, match="to_uks"):
            mlxc.excitations(mlxc.attach(mol.ROKS(), xc))


def test_command_line(tmp_path, capsys):
    path, out = tmp_path / "hf.xyz", tmp_path / "out.json"
    path.write_text("2\n\n" + HF.replace("; ", "\n") + "\n")
    arguments = ["run", str(path), "--basis", "sto-3g", "--xc", "mlxc-mgga1", "--task", "excitations"]
    assert main([*arguments, "--states", "2", "--json", str(out)]) == 0
    result, printed = json.loads(out.read_text()), capsys.readouterr().out
    assert len(result["excitation_energies_ev"]) == len(result["oscillator_strengths"]) == 2
    assert result["excitations_converged"] == [True, True]
    assert f"{result['excitation_energies_ev'][1]:.3f}" in printed
    assert f"{result['excitation_wavelengths_nm'][1]:.1f}" in printed
