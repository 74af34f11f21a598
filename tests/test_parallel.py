"""Work shared out among threads gives what one thread gives, and leaves the libraries' own threads as they were."""

import numpy as np
import pytest
import torch
from pyscf import lib

import mlxc
from mlxc.parallel import each, shared_out


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


@pytest.mark.parametrize("name", ["H2O", "CH3"])
def test_energy_and_fock_matrix_do_not_depend_on_the_number_of_threads(name, mole, threads):
    mf = mlxc.KS(mole(name), "mlxc-lh1")
    dm = mf.get_init_guess()
    results = []
    for n in (1, 2):
        threads(n)
        veff = mf.get_veff(dm=dm)
        results.append((veff.exc, np.array(veff)))
    assert results[0][0] == pytest.approx(results[1][0], abs=1e-11)
    assert np.allclose(results[0][1], results[1][1], atol=1e-10)
