"""What a full disk, a folder that cannot be written, the end of a process and the number of threads do to results."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import HYDROGEN

import mlxc
from mlxc import models
from mlxc.cli import main
from mlxc.errors import InputError
from mlxc.files import write_atomic
from mlxc.reference import read
from mlxc.workers import on_threads

H2 = "2\n\nH 0 0 0\nH 0 0 0.74\n"
CONFIG = """
name = "tiny"
width = 2
depth = 1
family = "neural-mgga"
[data]
folder = "data"
sets = {"W4-17" = 1.0}
basis = "sto-3g"
grid_level = 0
validation = 0
[[phase]]
kind = "fixed"
adam = STEPS
"""
NOBODY = 65534


@pytest.fixture
def place(benchmark_folder):
    """A folder that everyone may read, with inputs for every command."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "h2.xyz").write_text(H2)
        (folder / "recipe.toml").write_text(HYDROGEN)
        (folder / "train.toml").write_text(CONFIG.replace("STEPS", "3"))
        shutil.copytree(benchmark_folder, folder / "data")
        (folder / "data").chmod(0o755)
        (folder / "out").mkdir()
        yield folder


#: A command each that writes files; IN and OUT are folders.
COMMANDS = {
    "run": ["run", "IN/h2.xyz", "--xc", "pbe", "--basis", "sto-3g", "--json", "OUT/result.json"],
    "bench": ["bench", "--data", "IN/data", "--xc", "pbe", "--protocol", "fast", "--basis", "sto-3g", "--out", "OUT/b"],
    "check": ["check", "pbe", "--only", "uniform gas", "--quick", "--out", "OUT/check"],
    "train": ["train", "IN/train.toml", "--out", "OUT/train"],
    "export": ["models", "mlxc-mgga3", "--export", "OUT/m.fun"],
    "import": ["reference", "import", "IN/data", "--out", "OUT/data"],
    "build": ["reference", "build", "IN/recipe.toml", "--out", "OUT/reference.h5"],
    "plot": ["plot", "charge", "H", "--xc", "pbe", "--basis", "sto-3g", "--out", "OUT/plot"],
}


def stopped(name, place, capsys):
    """The last line on standard error of a command that must exit with status 2 and leave no file in OUT."""
    words = [w.replace("IN", str(place)).replace("OUT", str(place / "out")) for w in COMMANDS[name]]
    assert main(words) == 2
    err = capsys.readouterr().err
    assert "Traceback" not in err
    last = err.splitlines()[-1]
    assert last.startswith("mlxc: error: ")
    assert [p for p in (place / "out").rglob("*") if p.is_file()] == []
    return last


@contextmanager
def full_disk():
    """No file can be written: what `ulimit -f 0` does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def read_only(folder):
    """A folder that cannot be written to, for root neither."""
    folder.chmod(0o555)
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        folder.chmod(0o755)


@pytest.mark.parametrize("name", COMMANDS)
def test_full_disk(name, place, in_turn, capsys):
    with full_disk():
        last = stopped(name, place, capsys)
    assert "File too large" in last or "unable to" in last.lower()


@pytest.mark.parametrize("name", COMMANDS)
def test_folder_that_cannot_be_written(name, place, in_turn, capsys):
    with read_only(place / "out"):
        last = stopped(name, place, capsys)
    assert "cannot write" in last


AT_WORK = """
import sys, time
from pathlib import Path
from mlxc.files import sole_use
with sole_use(Path(sys.argv[1])):
    print("here", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize(("name", "folder"), [("bench", "b"), ("train", "train"), ("build", "reference.h5.parts")])
def test_one_process_at_a_time(name, folder, place, in_turn, capsys):
    """A second one is refused while the first works in the folder, and nobody once it is killed."""
    words = [w.replace("IN", str(place)).replace("OUT", str(place / "out")) for w in COMMANDS[name]]
    path = place / "out" / folder
    with subprocess.Popen([sys.executable, "-c", AT_WORK, path], stdout=subprocess.PIPE, text=True) as first:
        try:
            assert first.stdout.readline() == "here\n"
            assert "another process is at work" in stopped(name, place, capsys)
        finally:
            first.kill()
    assert main(words) == 0


def test_a_disk_that_fills_up_later(place, capsys):
    """Densities are there, then no more can be written: training says so, and goes on once there is room."""
    words = ["train", str(place / "train.toml"), "--out", str(place / "out")]
    with full_disk():
        assert main(words) == 2
    assert main(words) == 0
    done = models.sha256(place / "out")
    shutil.move(place / "out" / "cache", place / "cache")
    (place / "train.toml").write_text(CONFIG.replace("STEPS", "3").replace("[data]", '[data]\ncache = "cache"'))
    again = ["train", str(place / "train.toml"), "--out", str(place / "again")]
    with full_disk():
        assert main(again) == 2
    assert "cannot write" in capsys.readouterr().err.splitlines()[-1]
    assert [p.name for p in (place / "again").iterdir()] == []
    assert main(again) == 0
    assert models.sha256(place / "again") == done


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a"
    write_atomic(path, "before")
    with full_disk(), pytest.raises(InputError, match="cannot write"):
        write_atomic(path, "after")
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


TO_STANDARD_OUTPUT = """from pathlib import Path
from mlxc.files import check_writable, write_atomic
check_writable(Path("/dev/stdout"))
write_atomic(Path("/dev/stdout"), "through")"""


def test_links_stay_links_and_pipes_pipes(tmp_path):
    path, link, pipe = tmp_path / "a", tmp_path / "b", tmp_path / "c"
    link.symlink_to(path)
    write_atomic(link, "through")
    assert link.is_symlink()
    assert path.read_text() == "through"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_atomic(pipe, "down")
    assert os.read(reader, 10) == b"down"
    os.close(reader)
    assert pipe.is_fifo()
    command = [sys.executable, "-c", TO_STANDARD_OUTPUT]
    assert subprocess.run(command, capture_output=True, check=True).stdout == b"through"


@pytest.mark.parametrize("opened", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_what_standard_output_goes_to_is_not_replaced(opened, tmp_path):
    """Neither what a file had before nor what is printed before and after a result is lost."""
    path = tmp_path / "log"
    path.write_text("before\n")
    program = TO_STANDARD_OUTPUT.replace("/dev/stdout", opened)
    with path.open("a") as file:
        subprocess.run([sys.executable, "-c", f"print('first')\n{program}\nprint(' last')"], stdout=file, check=True)
    assert path.read_text() == "before\nfirst\nthrough last\n"


def test_results_survive_bad_results(tmp_path, capsys):
    """Of outcomes and species that cannot be read, nothing is believed: they are computed again."""
    argv = ["check", "pbe", "--only", "uniform gas", "--quick", "--out", str(tmp_path)]
    assert main(argv) == 0
    report = (tmp_path / "report.json").read_text()
    outcome = sorted((tmp_path / "outcomes").iterdir())[0]
    whole = outcome.read_text()
    for damage in (whole[:-20], "[" * 5000, json.dumps(json.loads(whole) | {"outcome": {}})):
        outcome.write_text(damage)
        assert main(argv) == 0
        assert json.loads(outcome.read_text())["outcome"].keys() == json.loads(whole)["outcome"].keys()
    assert without_times(report) == without_times((tmp_path / "report.json").read_text())


def without_times(report):
    functionals = json.loads(report)["functionals"]
    return [[o["name"], o["violation"]] for f in functionals for o in f["outcomes"]]


def started(words, folder):
    return subprocess.Popen(
        [sys.executable, "-m", "mlxc", *words], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        cwd=folder, env=os.environ | {"OMP_NUM_THREADS": "1"}, start_new_session=True,
    )  # fmt: skip


@pytest.mark.parametrize("how", [signal.SIGTERM, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)])
def test_a_killed_run_leaves_the_result_that_was_there(place, how):
    result = place / "out" / "result.json"
    result.write_text("{}")
    shutil.copy(Path(__file__).parents[1] / "examples" / "water.xyz", place)  # seconds from the first cycle to the end
    process = started(["run", "water.xyz", "--basis", "def2-qzvp", "--json", str(result)], place)
    for line in process.stdout:
        if line.split()[:1] == ["1"]:  # the first cycle of the SCF
            break
    process.send_signal(how)
    assert process.wait(60) == -how
    assert result.read_text() == "{}"
    assert list(result.parent.iterdir()) == [result]


@pytest.mark.slow
def test_killed_training_processes_resume_to_the_same_model(place):
    (place / "train.toml").write_text(CONFIG.replace("STEPS", "400"))
    words = ["train", "train.toml", "--out"]
    assert started([*words, "whole"], place).wait(300) == 0
    checkpoints = place / "killed" / "checkpoint.json"
    for k, how in enumerate((signal.SIGTERM, signal.SIGKILL, signal.SIGTERM)):
        before = checkpoints.stat().st_mtime_ns if k else 0
        process = started([*words, "killed", *(["--resume"] if k else [])], place)
        while not checkpoints.exists() or checkpoints.stat().st_mtime_ns == before:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(how)
        assert process.wait(60) == -how
        assert not (place / "killed" / "model.json").exists()
    assert started([*words, "killed", "--resume"], place).wait(300) == 0
    assert models.sha256(place / "killed") == models.sha256(place / "whole")


def kill_the_parent(words, place, finished, how):
    """Start a command, and end the process that the user sees as soon as something is finished: its workers end too."""
    process = started(words, place)
    while not list(place.glob(finished)):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(how)
    process.wait(60)
    until = time.time() + 60
    while alive := members(process.pid):
        assert time.time() < until, alive
        time.sleep(0.2)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_build_of_references_is_gone_on_from(place, how):
    text = HYDROGEN + '[[system]]\nname = "H2"\natoms = "H 0 0 0; H 0 0 {R}"\nR = [0.6, 0.7, 0.8, 0.9, 1.0, 1.1]\n'
    (place / "h2.toml").write_text(text.replace("6-31g", "aug-cc-pvqz"))  # a second or more for each system
    words = ["reference", "build", "h2.toml", "--jobs", "2", "--out", "h2.h5"]
    kill_the_parent(words, place, "h2.h5.parts/*.h5", how)
    parts = len(list(place.glob("h2.h5.parts/*.h5")))
    assert 0 < parts < 7
    assert not (place / "h2.h5").exists()
    again = subprocess.run(
        [sys.executable, "-m", "mlxc", *words], cwd=place, check=True, capture_output=True, text=True
    )
    assert f"{parts + 1} of 7: " in again.stderr
    assert len(read(place / "h2.h5")) == 7


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_benchmark_is_gone_on_from(place, how):
    words = ["bench", "--data", "data", "--xc", "mlxc-lh7", "--protocol", "fast", "--jobs", "2", "--out", "bench"]
    kill_the_parent(words, place, "bench/species/*.json", how)
    files = {p: p.stat().st_mtime_ns for p in (place / "bench").glob("species/*.json")}
    assert started(words, place).wait(300) == 0
    assert {p: p.stat().st_mtime_ns for p in (place / "bench").glob("species/*.json")}.items() >= files.items()


WITHIN = """
import resource, sys
from pyscf import gto
import mlxc
sys.path.insert(0, sys.argv[1])
from speed import acene
mol = gto.M(atom=acene(1), basis="def2-tzvp", verbose=0, max_memory=float(sys.argv[2]))
mf = mlxc.KS(mol).density_fit().run(conv_tol=1e-10)
print(mf.e_tot, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


@pytest.mark.slow
def test_memory_is_kept_within_max_memory():
    """Benzene, which takes 1350 MB if it may, of which 300 are Python and its libraries."""
    benchmarks = Path(__file__).parents[1] / "benchmarks"
    found = []
    for most in (4000, 600):
        command = [sys.executable, "-c", WITHIN, benchmarks, str(most)]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        words = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout.split()
        found.append([float(w) for w in words])
    (energy, much), (same, little) = found
    assert much > 1000
    assert little < 600
    assert same == pytest.approx(energy, abs=1e-8)


def members(session):
    """Processes of a session that are running."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(path.parent.name)
    return found


@pytest.mark.parametrize(("xc", "name"), [("mlxc-mgga3", "H2O"), ("mlxc-lh7", "CH3")])
def test_threads_change_no_energy(mole, xc, name):
    energies = []
    for threads in (1, 2):
        with on_threads(threads):
            mf = mlxc.KS(mole(name, "sto-3g"), xc).density_fit().set(conv_tol=1e-11)
            mf.grids.level = 0
            energies.append(mf.kernel())
    assert energies[0] == pytest.approx(energies[1], abs=1e-9)
