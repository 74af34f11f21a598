"""Any bytes in any file that mlxc reads give a result or one of mlxc's errors: no other exception, no hang.

Files are damaged byte by byte, cut, and rewritten with values of other types in their places; those behind a hash are
also signed again, so that what comes after the check is tried too.  `-m slow` tries many more.
"""

import copy
import gzip
import hashlib
import importlib.util
import io
import json
import signal
import tempfile
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from conftest import REACTIONS, SYSTEMS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyscf import gto

from mlxc import models
from mlxc.bench.protocol import PROTOCOLS
from mlxc.bench.species import Species
from mlxc.constraints.check import CONDITIONS, Outcomes
from mlxc.errors import MlxcError
from mlxc.files import digest
from mlxc.geometry import make_mole, read_xyz
from mlxc.neural import NeuralMetaGGA
from mlxc.reference import store
from mlxc.reference.benchmark import make_system
from mlxc.reference.folders import read_benchmark, read_properties
from mlxc.reference.recipe import read_recipe
from mlxc.reference.schema import Reference
from mlxc.train import cache, checkpoint
from mlxc.train.config import Data, read_config

FEW, MANY = 12, 1500
ROOT = Path(__file__).parents[1]
#: Seconds that no example may take.
LIMIT = 20

_spec = importlib.util.spec_from_file_location("benchmarks_store", ROOT / "benchmarks" / "store.py")
packed_results = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(packed_results)


@dataclass
class Reader:
    """Files in a folder, as they should be, and what reads them; `sign` mends hashes after they were damaged."""

    files: dict[str, bytes]
    read: Callable[[Path], object]
    sign: Callable[[Path], None] | None = None


def json_lines(rows):
    return "".join(f"{json.dumps(row)}\n" for row in rows).encode()


def xyz():
    text = b"3\nwater\nO 0 0 0\nH 0 0.757 0.587\nH 0 -0.757 0.587\n"
    return Reader({"a.xyz": text}, lambda folder: make_mole(read_xyz(folder / "a.xyz"), "sto-3g"))


def configuration():
    text = (ROOT / "tests" / "fuzz.toml").read_bytes()
    return Reader({"a.toml": text}, lambda folder: read_config(folder / "a.toml"))


def recipe():
    text = (ROOT / "data" / "recipes" / "small.toml").read_bytes()[:900].rpartition(b"[[system]]")[0]
    return Reader({"a.toml": text}, lambda folder: read_recipe(folder / "a.toml"))


def benchmark():
    systems = [
        {"id": i, "charge": 0, "multiplicity": m, "symbols": s, "coords_angstrom": x}
        for i, (m, s, x) in SYSTEMS.items()
    ]
    reactions = [{"set": "A", "name": n, "stoichiometry": s, "ref_kcal": r, "role": "train"} for n, s, r in REACTIONS]
    properties = [{"set": "P", "id": "h2", "property": "dipole", "value": 0.0, "unit": "Debye"}]
    files = {"systems": systems, "reactions": reactions, "properties": properties}
    return Reader(
        {f"{name}.jsonl": json_lines(rows) for name, rows in files.items()},
        lambda folder: (read_benchmark(folder), read_properties(folder)),
    )


def gmtkn55():
    table = b"$tmer {h,f}/$f hf/$f x 1 1 -1 $w 141.0\nrse=$( $tmer h2/$f h/$f x 1 -2 $w )\n"
    files = {"ATOM/.res": table + b"$tmer h2/$f h/$f x 1 -2 $w $rse 3.5\n"}
    for name, (multiplicity, symbols, coords) in SYSTEMS.items():
        rows = "".join(f"{s} {x} {y} {z}\n" for s, (x, y, z) in zip(symbols, coords, strict=True))
        files[f"ATOM/{name}/struc.xyz"] = f"{len(symbols)}\n\n{rows}".encode()
        files[f"ATOM/{name}/.UHF"] = f"{multiplicity - 1}\n".encode()
    files["ATOM/.res"] += b"$tmer li2/$f li/$f x 1 -2 $w -24.0\n"
    files["ATOM/li2/coord"] = b"$coord\n 0.0 0.0 0.0 li\n 0.0 0.0 5.0 li\n$end\n"
    files["ATOM/li/coord"], files["ATOM/li/.UHF"] = b"$coord\n 0.0 0.0 0.0 li\n$end\n", b"1\n"
    return Reader(files, read_benchmark)


def reference():
    mol = gto.M(atom="He", basis="sto-3g", verbose=0)
    he = Reference(
        "He", ("He",), np.zeros((1, 3)), 0, 0, mol._basis, "HF", dm1=np.full((2, 1, 1), 1.0), energies={"best": -2.8},
        dipole=np.zeros(3), natural_occupations=np.array([2.0]),
    )  # fmt: skip

    def sign(folder):
        body = (folder / "a.h5").read_bytes()[store.BLOCK :]
        (folder / "a.h5").write_bytes(store._header(body) + body)

    return Reader({"a.h5": store.packed([he])}, lambda folder: store.read(folder / "a.h5"), sign)


def model():
    torch.manual_seed(0)
    functional = NeuralMetaGGA(width=2, depth=1, name="small").requires_grad_(False)
    functional.domain = {"molecules": 1, "elements": ["H"], "density": {"mean": [0.0]}}
    files = {}

    def sign(folder):
        try:
            info = json.loads((folder / "model.json").read_text())
            hashes = {
                name: hashlib.sha256((folder / f"{name}.safetensors").read_bytes()).hexdigest()
                for name in ("weights", "members")
            }
            info["sha256"] = hashes["weights"]
            info["members"]["sha256"] = hashes["members"]
            (folder / "model.json").write_text(json.dumps(info))
        except (AttributeError, LookupError, RecursionError, TypeError, ValueError):
            pass  # model.json itself is damaged

    def read(folder):
        models.describe(folder)
        functional = models.load(folder)
        assert all(torch.isfinite(w).all() for w in functional.state_dict().values())
        assert isinstance(functional.name, str)
        models.load_members(folder)

    with _kept() as folder:
        models.save(functional, folder, {"errors": {}}, [copy.deepcopy(functional) for _ in range(2)])
        files = {p.name: p.read_bytes() for p in folder.iterdir()}
    return Reader(files, read, sign)


@contextmanager
def _kept():
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def run_checkpoint():
    with _kept() as folder:
        checkpoint.write(folder, 1, {"parameters": {"w": torch.ones(2)}, "log": [{"a": 1.0}], "identity": "x"})
        files = {p.name: p.read_bytes() for p in folder.iterdir()}
    return Reader(files, checkpoint.read)


def densities():
    image = io.BytesIO()
    with h5py.File(image, "w") as f:
        f.update({k: np.ones((1, 2)) for k in ("rho", "sigma", "tau", "ex")} | {"weights": np.ones(2)})
        f.attrs.update(densities="r2scan", basis="sto-3g", grid_level=0, limit_basis="", e_r2scan=0.0, converged=True)
    system = make_system("h", 0, 2, ["H"], [(0.0, 0.0, 0.0)])
    name = f"{system.key}.h5"

    def read(folder):
        cache.fill([system], Data(cache=folder, basis="sto-3g", grid_level=0))
        cache.read_molecule(folder / name)

    return Reader({name: image.getvalue()}, read)


def species():
    """Whatever is done to its file, a result is the one that was stored, or it is computed again."""
    one = Species(make_system("h", 0, 2, ["H"], [(0.0, 0.0, 0.0)]), "pbe", {"xc": "pbe"}, PROTOCOLS["fast"])
    result = {"converged": True, "energy_hartree": -0.5, "faults": []}
    with _kept() as folder:
        one.store(folder, result)
        files = {p.name: p.read_bytes() for p in folder.iterdir()}

    def read(folder):
        assert one.stored(folder) in (None, result)

    return Reader(files, read)


def outcome():
    condition = CONDITIONS[0]
    one = Outcomes("pbe", True, None)
    result = condition.unasked() | {"wall_s": 1.0}
    content = {"of": one.identity, "outcome": result, "sha256": digest(result)}

    def read(folder):
        assert Outcomes("pbe", True, folder).of([condition])["outcomes"][0] in (condition.unasked(), result)

    return Reader({one._path(condition).name: json.dumps(content).encode()}, read)


def packed_species():
    rows = [{"file": "a.json", "of": {"xc": "pbe"}, "more": {}, "result": {"converged": True}}]

    def read(folder):
        packed_results.unpack(folder / "a.jsonl.gz", folder / "out")
        packed_results.pack([folder / "out"], folder / "b.jsonl.gz")

    return Reader({"a.jsonl.gz": gzip.compress(json_lines(rows), mtime=0)}, read)


READERS = {
    f.__name__: f
    for f in (
        xyz, configuration, recipe, benchmark, gmtkn55, reference, model, run_checkpoint, densities, species, outcome,
        packed_species,
    )
}  # fmt: skip

#: What may stand where JSON and TOML have something else.
ODD = st.one_of(
    st.sampled_from(
        [
            None,
            True,
            -1,
            0,
            10**30,
            -(10**400),
            0.5,
            -1e308,
            float("nan"),
            float("inf"),
            "",
            "x" * 300,
            "\0",
            "é",
            [],
            {},
        ]
    ),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=4,
    ),
)


def places(tree, where=()):
    """The way to every value in a tree of dicts and lists."""
    yield where
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield from places(value, (*where, key))


def replaced(tree, where, value, remove):
    if not where:
        return value
    new = dict(tree) if isinstance(tree, dict) else list(tree)
    if remove and len(where) == 1:
        del new[where[0]]
    else:
        new[where[0]] = replaced(new[where[0]], where[1:], value, remove)
    return new


@st.composite
def rewritten(draw, content):
    """JSON, or one of its lines, with another value, or none, in one place; or nested too deeply."""
    lines = content.decode().splitlines() if content[:1] == b"{" and b"\n{" in content else [content.decode()]
    k = draw(st.integers(0, len(lines) - 1))
    if draw(st.integers(0, 9)) == 0:
        lines[k] = "[" * 5000
    else:
        tree = json.loads(lines[k])
        where = draw(st.sampled_from(list(places(tree))))
        lines[k] = json.dumps(replaced(tree, where, draw(ODD), draw(st.booleans())))
    return "\n".join(lines).encode(errors="surrogatepass")


@st.composite
def damaged(draw, content):
    """Bytes flipped, cut out, put in or cut off."""
    content = bytearray(content)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(len(content) - 1, 0)))
        kind = draw(st.sampled_from(["flip", "cut", "put", "end", "text"]))
        if kind == "flip" and content:
            content[at] ^= draw(st.integers(1, 255))
        elif kind == "cut":
            del content[at : at + draw(st.integers(1, 40))]
        elif kind == "put":
            content[at:at] = draw(st.binary(min_size=1, max_size=8))
        elif kind == "text":
            put = [b"nan", b"-1", b"1e400", b"9" * 5000, b"[" * 3000, b'"', b"{a,b}" * 40, b" ", b"\n", b"\0", b"\xff"]
            content[at : at + 1] = draw(st.sampled_from(put))
        else:
            del content[at:]
    return bytes(content)


@st.composite
def bad(draw, content):
    kinds = [st.binary(max_size=200), damaged(content), damaged(content)]
    if content[:1] == b"{":
        kinds += [rewritten(content)] * 3
    return draw(st.one_of(kinds))


@contextmanager
def within(seconds):
    def late(*_):
        pytest.fail(f"it took more than {seconds} s")

    former = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, former)


@pytest.mark.parametrize("examples", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", READERS)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numbers too large for their squares
def test_any_bytes_give_a_result_or_an_error_of_mlxc(name, examples, tmp_path):
    reader = READERS[name]()
    for file, content in reader.files.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_bytes(content)
    reader.read(tmp_path)  # as they should be
    outcomes = {"read": 0, "refused": 0}

    @settings(
        max_examples=examples, deadline=None, derandomize=True, database=None, print_blob=False,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(st.data())
    def attempt(data):
        file = data.draw(st.sampled_from(sorted(reader.files)))
        (tmp_path / file).write_bytes(data.draw(bad(reader.files[file])))
        if reader.sign and data.draw(st.booleans()):
            reader.sign(tmp_path)
        try:
            with within(LIMIT):
                reader.read(tmp_path)
            outcomes["read"] += 1
        except MlxcError:
            outcomes["refused"] += 1
        finally:
            for other, content in reader.files.items():
                (tmp_path / other).write_bytes(content)

    attempt()
    print(f"\n{name}: {outcomes['read']} read, {outcomes['refused']} refused")
    assert outcomes["refused"] or name in ("species", "outcome")  # which are computed again
