"""The ladder that benchmarks climb to a self-consistent field, and how it knows a wrong one."""

import io

import numpy as np
import pytest
from pyscf import gto, scf
from pyscf.dft import uks

from mlxc.bench.ladder import DAMPED, RUNGS, Attempt, Solution, climb, settled
from mlxc.bench.protocol import PROTOCOLS
from mlxc.errors import InputError
from mlxc.reference.benchmark import make_system
from mlxc.scf import KS, Cycles, first_density


def starting(mol, xc="pbe0", **settings):
    """() or (xc) -> a calculation of this molecule."""
    return lambda *other: KS(mol, *(other or [xc])).set(conv_tol=1e-9, **settings)


@pytest.fixture
def stretched():
    return gto.M(atom="H 0 0 0; H 0 0 2.5", basis="6-31g", verbose=0)


def test_the_first_rung_is_pyscf_s_own_calculation(mole):
    mol = mole("H2O", "6-31g")
    solution = climb(starting(mol))
    assert (solution.rung, len(solution.attempts), solution.faults()) == ("diis", 1, [])
    assert solution.mf.e_tot == pytest.approx(mol.RKS(xc="pbe0").set(conv_tol=1e-9).kernel(), abs=1e-8)


def test_every_rung_reaches_the_same_energy(mole):
    mol = mole("H2O", "6-31g")
    first = climb(starting(mol)).mf
    for name, rung in RUNGS.items():
        assert rung(starting(mol), first).e_tot == pytest.approx(first.e_tot, abs=1e-8), name


@pytest.mark.parametrize("xc", ["pbe0", "r2scan"])
def test_degenerate_states_are_found_alike(xc, monkeypatch):
    """Whatever the last bits of the guess: which P state of fluorine it is makes a difference of 1e-6 Eh."""
    start = starting(gto.M(atom="F", basis="6-31g", spin=1, verbose=0), xc)
    guess, found = uks.UKS.get_init_guess, []
    for seed in (0, 1):
        noise = 1e-9 * np.random.default_rng(seed).normal(size=(9, 9))

        def noisy(mf, *args, noise=noise, **kwargs):
            return guess(mf, *args, **kwargs) + noise + noise.T

        monkeypatch.setattr(uks.UKS, "get_init_guess", noisy)
        found.append(climb(start).mf)
    assert found[0].e_tot == pytest.approx(found[1].e_tot, abs=1e-9)
    assert np.allclose(found[0].make_rdm1(), found[1].make_rdm1(), atol=1e-5)


def test_cycles_of_the_second_order_solver_are_counted_once(mole):
    """PySCF prints a line for each, and calls back once more at the end."""
    mf = KS(mole("H2O", "6-31g"), "pbe").newton()
    mf.callback, mf.verbose, mf.stdout = Cycles(), 4, io.StringIO()
    mf.kernel()
    assert mf.callback.number == mf.stdout.getvalue().count("macro= ") > 1


def test_later_rungs_go_on_from_an_earlier_one(mole):
    """From converged orbitals they need no more than a look; the last one starts with another functional."""
    mol, asked = mole("H2O", "6-31g"), []
    first = climb(starting(mol)).mf
    for name in ("level shift", "second order"):
        cycles = Cycles()
        assert RUNGS[name](starting(mol, callback=cycles), first).converged
        assert cycles.number <= 3, name

    def start(*other):
        asked.extend(other)
        return starting(mol)(*other)

    assert RUNGS["other density"](start, first).converged
    assert asked == ["r2scan"]


def test_damping_damps(mole):
    """Its first cycles are not those of an SCF that begins DIIS as late and damps nothing."""

    def energies(damped):
        found = []
        callback = lambda envs: found.append(envs["e_tot"])  # noqa: E731
        start = starting(mole("H2O", "6-31g"), callback=callback)
        if damped:
            assert RUNGS["damping"](start, None).converged
        else:
            mf = start().set(diis_start_cycle=DAMPED)
            mf.kernel(first_density(mf))
        return np.array(found[:5])

    first, second = energies(True), energies(False)
    assert first[0] == pytest.approx(second[0], abs=1e-8)
    assert np.all(abs(first[2:] - second[2:]) > 1e-4)


def test_rungs_are_tried_in_turn(mole, monkeypatch):
    """Six cycles are too few for DIIS alone, and the level shift goes on from where they led."""
    solution = climb(starting(mole("CH3", "6-31g"), max_cycle=6))
    assert solution.rung != "diis"
    assert not solution.attempts[0].converged
    assert solution.attempts[0].cycles == 6
    whole = climb(starting(mole("CH3", "6-31g")))
    assert whole.rung == "diis"
    assert solution.mf.e_tot == pytest.approx(whole.mf.e_tot, abs=1e-7)

    def broken(fresh, before):
        raise np.linalg.LinAlgError("no")

    monkeypatch.setitem(RUNGS, "diis", broken)
    solution = climb(starting(mole("H2", "6-31g")))
    assert [a.energy for a in solution.attempts[:1]] == [None]


def test_where_all_rungs_break_off_the_first_tells_why(mole, monkeypatch):
    """And memory, which would meet the others as well, ends it at once."""
    for number, rung in enumerate(RUNGS):

        def broken(fresh, before, number=number):
            raise InputError(f"no parameters {number}")

        monkeypatch.setitem(RUNGS, rung, broken)
    start = starting(mole("H2", "6-31g"))
    with pytest.raises(InputError, match="no parameters 0"):
        climb(start)

    def too_large(fresh, before):
        raise MemoryError("none left")

    monkeypatch.setitem(RUNGS, "level shift", too_large)
    with pytest.raises(MemoryError):
        climb(start)


def test_what_no_rung_finds_has_no_result(mole):
    solution = climb(starting(mole("H2O", "6-31g"), max_cycle=1))
    assert solution.rung == "none"
    assert {a.rung for a in solution.attempts} == set(RUNGS)


@pytest.mark.filterwarnings("ignore")
def test_instabilities_are_followed_down():
    """The 2p state of lithium is self-consistent, and the 2s state lies below it."""
    mol = gto.M(atom="Li", basis="6-31g", spin=1, verbose=0)
    ground = climb(starting(mol))
    excited = ground.mf.copy()
    occupied = excited.mo_occ.copy()
    occupied[0, [1, 2]] = 0, 1
    excited = scf.addons.mom_occ(excited, excited.mo_coeff, occupied)
    excited.kernel(excited.make_rdm1(excited.mo_coeff, occupied))
    assert excited.converged
    assert excited.e_tot > ground.mf.e_tot + 0.05
    del excited.get_occ
    lower = settled(Solution(excited, "diis", [Attempt("diis", excited.e_tot, True, 5)]))
    assert (lower.rung, lower.stable) == ("stability", True)
    assert lower.mf.e_tot == pytest.approx(ground.mf.e_tot, abs=1e-6)
    assert lower.attempts[-1].cycles > 0


@pytest.mark.parametrize("xc", ["pbe0", "mlxc-lh7"])
def test_symmetry_breaks_only_where_it_may(stretched, xc):
    solution = climb(starting(stretched, xc))
    kept, broken = settled(solution), settled(solution, broken_symmetry=True)
    assert kept.mf is solution.mf
    assert kept.rung == "diis"
    assert broken.rung == "broken symmetry"
    assert broken.mf.e_tot < kept.mf.e_tot - 0.02
    assert broken.mf.spin_square()[0] > 0.7


def test_stable_solutions_stay(mole):
    solution = climb(starting(mole("H2O", "6-31g")))
    examined = settled(solution, broken_symmetry=True)
    assert examined.stable
    assert examined.mf is solution.mf
    assert [a.rung for a in examined.attempts] == ["diis", "broken symmetry"]  # tried, and back where it was


def test_an_analysis_that_breaks_off_leaves_the_solution(mole, monkeypatch):
    solution = climb(starting(mole("CH3", "6-31g")))

    def stability(**_):
        raise NotImplementedError("no second derivatives")

    monkeypatch.setattr(solution.mf, "stability", stability)
    examined = settled(solution)
    assert examined.mf is solution.mf
    assert examined.stable is None
    assert examined.faults() == ["stability not examined: no second derivatives"]


def test_a_lower_solution_stays_where_the_next_analysis_breaks_off(stretched, monkeypatch):
    solution = climb(starting(stretched))
    expected = settled(solution, broken_symmetry=True)
    assert expected.mf.e_tot < solution.mf.e_tot - 0.02

    def stability(self, **_):
        raise NotImplementedError("not of unrestricted ones")

    monkeypatch.setattr(scf.uhf.UHF, "stability", stability)
    examined = settled(solution, broken_symmetry=True)
    assert examined.mf.e_tot == pytest.approx(expected.mf.e_tot, abs=1e-8)
    assert examined.rung == "broken symmetry"
    assert [a.rung for a in examined.attempts] == ["diis", "broken symmetry"]
    assert examined.faults() == ["stability not examined: not of unrestricted ones"]
    assert len(solution.attempts) == 1


def test_an_attempt_that_came_lower_is_a_fault(mole):
    solution = climb(starting(mole("H2", "6-31g")))
    solution.attempts[0].energy -= 0.1
    assert solution.faults() == ["an attempt came lower"]
    solution.stable = False
    assert solution.faults() == ["unstable", "an attempt came lower"]


def test_protocols(mole):
    """They never change: numbers belong to them."""
    assert {name: tuple(p.settings().values())[1:] for name, p in PROTOCOLS.items()} == {
        "tight": ("def2-qzvppd", False, 5, 3, False, 1e-9, True, False),
        "standard": ("def2-qzvppd", True, 4, 1, False, 1e-8, True, False),
        "fast": ("def2-tzvppd", True, 3, 1, True, 1e-8, False, False),
    }
    examined = [PROTOCOLS["standard"].examines(*x) for x in ((1, "diis"), (0, "diis"), (0, "damping"))]
    assert examined == [True, False, True]
    mol = make_system("he", 0, 1, ["He"], [(0.0, 0.0, 0.0)]).mole(PROTOCOLS["fast"].basis)
    mf = PROTOCOLS["fast"].calculation(mol, "wb97m-v")
    assert (mf.grids.level, mf.nlcgrids.level, mf.conv_tol) == (3, 1, 1e-8)
    assert mf.with_df.auxbasis
    tight = PROTOCOLS["tight"].calculation(mol, "pbe0")
    assert not hasattr(tight, "with_df")
