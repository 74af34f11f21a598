"""Work shared out among threads gives what one thread gives, and leaves the libraries' own threads as they were."""

import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pyscf import lib

import mlxc
from mlxc.exx import energy_density
from mlxc.parallel import each, shared_out, slow_kernels


def libraries(**kernels):
    """threadpoolctl's list of the OpenBLAS of some packages, and of one that nobody asked for."""
    folders = {"pyscf": "pyscf/lib", "numpy": "numpy.libs", "torch": "torch/lib"}
    found = [
        {"internal_api": "openblas", "architecture": k, "filepath": f"/site-packages/{folders[package]}/libopenblas.so"}
        for package, k in kernels.items()
    ]
    return [*found, {"internal_api": "openmp", "filepath": "/site-packages/pyscf/lib/libgomp.so"}]


@pytest.mark.parametrize(
    ("kernels", "expected"),
    [
        ({"pyscf": "Prescott", "numpy": "SkylakeX", "torch": "Zen"}, "SkylakeX"),
        ({"pyscf": "Prescott", "numpy": "SapphireRapids"}, "SkylakeX"),
        ({"pyscf": "Haswell", "numpy": "SkylakeX"}, None),
        ({"pyscf": "Prescott", "numpy": "Prescott"}, None),
        ({"pyscf": "Prescott"}, None),
        ({"numpy": "SkylakeX"}, None),
    ],
)
def test_slow_kernels_are_noticed(kernels, expected, monkeypatch):
    info = SimpleNamespace(info=lambda: libraries(**kernels))
    monkeypatch.setattr("mlxc.parallel._libraries", lambda: info)
    assert slow_kernels() == expected


def test_pyscf_has_the_kernels_that_the_environment_names():
    """In a process of its own, since OpenBLAS looks at it once; nothing where PySCF has another library."""
    script = "import mlxc; from mlxc.parallel import slow_kernels; print(slow_kernels())"

    def says(**more):
        others = {k: v for k, v in os.environ.items() if k != "OPENBLAS_CORETYPE"}
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=others | more)
        return done.stdout.split()[-1]

    kernels = says()
    assert kernels == "None" or says(OPENBLAS_CORETYPE=kernels) == "None"


@pytest.fixture
def threads():
    """Sets the number of PySCF's threads; the test's end restores it."""
    before = lib.num_threads()
    yield lib.num_threads
    lib.num_threads(before)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_every_item_once_and_in_order(n, threads):
    threads(n)
    assert sorted(i for share in shared_out(list, range(7)) for i in share) == list(range(7))
    assert len(shared_out(list, range(7))) == n
    assert each(lambda i: i * i, range(7)) == [i * i for i in range(7)]
    assert each(abs, []) == []


def test_each_thread_has_one_core_and_the_caller_all_of_them_again(threads):
    threads(2)
    before = lib.num_threads(), torch.get_num_threads()
    assert each(lambda _: (lib.num_threads(), torch.get_num_threads()), range(2)) == [(1, 1), (1, 1)]
    assert (lib.num_threads(), torch.get_num_threads()) == before


def test_errors_come_through(threads):
    threads(2)
    before = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError):
        each(lambda i: 1 // i, range(2))
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(("n", "max_memory"), [(2, 4000), (1, 1)])
@pytest.mark.parametrize("name", ["H2O", "CH3"])
def test_neither_threads_nor_memory_change_the_result(name, n, max_memory, mole, threads):
    """Against one thread with much memory; 1 MB leaves everything on disk."""
    mf = mlxc.KS(mole(name), "mlxc-lh7")
    mf.grids.level = 0
    dm = mf.get_init_guess()
    results = []
    for cores, memory in ((1, 4000), (n, max_memory)):
        threads(cores)
        mf.max_memory = memory
        mf._numint._tables.clear()
        whole = mf.get_veff(dm=dm)
        mf._numint = mf._numint.occupied()
        cycle = mf.get_veff(dm=dm)
        mf._numint = mf._numint.original
        if not results:
            mf.mo_energy, mf.mo_coeff = mf.eig(mf.get_fock(dm=dm), mf.get_ovlp())
            mf.mo_occ = mf.get_occ()
        response = mf.gen_response(hermi=1)(dm)
        ex = energy_density(mf._numint.tables(mf.mol, mf.grids, memory), dm.reshape(-1, *dm.shape[-2:])[0])
        results.append((whole.exc, cycle.exc, np.array(whole), np.array(cycle), response, ex))
    for one, other in zip(*results, strict=True):
        assert np.allclose(one, other, rtol=0, atol=1e-10)
