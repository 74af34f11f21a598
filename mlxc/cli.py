"""The command line: `mlxc run`, `mlxc bench`, `mlxc check`, `mlxc train`, `mlxc plot`, `mlxc models`, `mlxc reference`.

Exit status: 0 done; 2 bad input, one line on standard error; 3 something did not converge or could not be worked out;
130 interrupted; 141 where nobody reads what it prints any more.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from pathlib import Path

from mlxc.errors import ConvergenceError, InputError, MlxcError
from mlxc.plots.command import add_to as add_plot_to
from mlxc.plots.command import completed, separated
from mlxc.version import __version__


def _hint_at_slow_kernels() -> None:
    from mlxc.parallel import slow_kernels

    if kernels := slow_kernels():
        print(
            f"PySCF's OpenBLAS does not know this processor: OPENBLAS_CORETYPE={kernels} makes it faster "
            "(docs/troubles.md)"
        )


def _run(args: argparse.Namespace) -> int:
    from mlxc.files import check_writable
    from mlxc.run import run, write_json

    if args.json:
        check_writable(args.json)
    try:
        result = run(
            args.file, args.xc, args.basis, args.charge, args.spin, args.task, args.max_cycle, args.states, args.jobs,
            args.density_fit, args.unrestricted, args.stability,
        )  # fmt: skip
    except Exception as err:  # the file must not stay that of an earlier run, whatever it was
        found = getattr(err, "result", None)
        if args.json and (found or isinstance(err, ConvergenceError) or not isinstance(err, MlxcError)):
            write_json(args.json, (found or {"converged": False}) | {"reason": str(err) or type(err).__name__})
        raise
    if args.json:
        write_json(args.json, result)
    _hint_at_slow_kernels()
    done = [result["converged"], result.get("geometry_converged", True), *result.get("excitations_converged", [])]
    return 0 if all(done) else 3


def _train(args: argparse.Namespace) -> int:
    from mlxc.train.ranks import Ranks
    from mlxc.train.run import train

    folder = train(args.config, args.out, args.resume, args.members)
    if Ranks().first:
        print(f"the model is in {folder}")
    return 0


def _check(args: argparse.Namespace) -> int:
    from mlxc.constraints.check import check

    check(args.xc, args.only, args.quick, args.out)
    return 0


#: The type of an option that lists names.
_names = separated(str)


def _bench(args: argparse.Namespace) -> int:
    from mlxc.bench.bench import bench

    report = bench(
        args.data, args.xc, args.out, args.sets, args.role, args.elements, args.max_heavy, args.min_heavy,
        args.protocol, args.basis, args.broken_symmetry, args.jobs, args.scheduler,
    )  # fmt: skip
    _hint_at_slow_kernels()
    found = report["functionals"]
    unknown = [p["failed"] for f in found for p in f["summary"]["properties"]]
    return 3 if any(unknown) or any(f["failed"] for f in found) else 0


def _models(args: argparse.Namespace) -> int:
    import json

    from mlxc import models, torchscript

    if args.export:
        functional = models.resolve(args.name or "default")
        if functional is None:
            raise InputError(f"{args.name} is one of libxc: other programs have it from there")
        print(f"{args.export}: SHA-256 {torchscript.export(functional, args.export)}")
    elif args.name:
        print(json.dumps(models.describe(args.name), indent=2))
    else:
        for base in models.names():
            for name in (base, f"{base}-d4") if "d4" in models.describe(base) else (base,):
                print(name, "(default)" if name == models.DEFAULT else "")
    return 0


def _reference_build(args: argparse.Namespace) -> int:
    from mlxc.files import check_writable
    from mlxc.reference.build import build
    from mlxc.reference.recipe import read_recipe

    check_writable(args.out)
    done = build(read_recipe(args.recipe), args.out, args.jobs, args.scheduler, args.max_memory, args.again)
    failed = [f"{r.name}: {r.outcome}" for r in done.values() if not r.converged]
    partly = [f"{r.name}: {r.provenance['best']}" for r in done.values() if r.converged and "best" not in r.energies]
    counts = f"{len(done)} systems, {len(failed)} without a density, {len(partly)} without the energy called best"
    print(f"{args.out}: {counts}", *failed, *partly, sep="\n  ")
    return 3 if failed or partly else 0


def _reference_file(given: Path) -> Path:
    """A file that was given by its path or as the name of a shipped one."""
    from mlxc.reference import shipped

    return given if given.suffix or given.exists() else shipped.path_of(str(given))


def _reference_info(args: argparse.Namespace) -> int:
    from mlxc.reference import shipped
    from mlxc.reference.inspect import table

    if args.file is None:
        for name, entry in shipped.manifest().items():
            print(f"{name:14s} {entry['systems']:4d} systems  {entry['description']}")
    else:
        print(table(_reference_file(args.file)))
    return 0


def _reference_verify(args: argparse.Namespace) -> int:
    from mlxc.reference import shipped
    from mlxc.reference.inspect import verify

    paths = [_reference_file(args.file)] if args.file else map(shipped.path_of, shipped.manifest())
    for path in paths:
        try:
            number = verify(path, lambda name: print(".", end="", flush=True, file=sys.stderr))
        finally:
            print(file=sys.stderr)
        print(f"{path}: {number} systems, all as they were written, densities and what follows from them agree")
    return 0


def _reference_import(args: argparse.Namespace) -> int:
    from mlxc.reference.folders import read_benchmark, read_properties, write_folder

    systems, reactions = read_benchmark(args.folder)
    properties = read_properties(args.folder)
    for name in dict.fromkeys(r.set for r in reactions):
        rows = [r for r in reactions if r.set == name]
        print(f"{name:14s} {len(rows):5d} reactions of {len({i for r in rows for i in r.stoichiometry}):5d} systems")
    if args.out:
        write_folder(args.out, systems, reactions, properties)
        print(f"{args.out}: {len(systems)} systems, {len(reactions)} reactions, {len(properties)} properties")
    return 0


def _positive(text: str) -> int:
    """The type of an option that counts something."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return int(text)


def _megabytes(text: str) -> float:
    """The type of an option that limits memory."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number of MB")
    return value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mlxc", description="Machine-learned exchange-correlation functionals.")
    parser.add_argument("--version", action="version", version=f"mlxc {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="a self-consistent calculation on one molecule")
    run.add_argument("file", type=Path, metavar="FILE.xyz")
    run.add_argument("--xc", default="default", help="libxc name, mlxc model or model folder (default: shipped model)")
    run.add_argument("--basis", default="def2-tzvp")
    run.add_argument("--charge", type=int, default=0)
    run.add_argument("--spin", type=int, help="number of unpaired electrons, 2S (default: lowest possible)")
    run.add_argument("--density-fit", action="store_true", help="fit Coulomb integrals: faster for larger molecules")
    run.add_argument("--unrestricted", action="store_true", help="orbitals for each spin in singlets too")
    run.add_argument("--stability", action="store_true", help="is it a minimum? go on with a lower solution, if any")
    tasks = "energy (the default), gradient, optimize, ts, frequencies or excitations"
    run.add_argument("--task", default="energy", metavar="TASK", help=tasks)
    run.add_argument("--max-cycle", type=_positive, default=50, help="SCF cycles before giving up")
    run.add_argument("--states", type=_positive, default=5, metavar="N", help="of --task excitations (default: 5)")
    run.add_argument("--jobs", type=_positive, default=1, help="processes for --task frequencies (default: 1)")
    run.add_argument("--json", type=Path, metavar="OUT")
    run.set_defaults(action=_run)
    train = commands.add_parser("train", help="train a functional as a configuration says (docs/training.md)")
    train.add_argument("config", type=Path, metavar="CONFIG.toml")
    train.add_argument("--out", type=Path, metavar="DIR", help="model, checkpoint and log (default: beside CONFIG)")
    train.add_argument("--resume", action="store_true", help="go on with the run that was interrupted there")
    train.add_argument(
        "--members",
        type=_positive,
        default=1,
        metavar="N",
        help="an ensemble of N samples of the rows (default: 1)",
    )
    train.set_defaults(action=_train)
    add_plot_to(commands)
    conditions = commands.add_parser("check", help="which exact conditions a functional obeys")
    conditions.add_argument("xc", nargs="+", metavar="XC", help="libxc names, mlxc models or model folders")
    conditions.add_argument("--only", metavar="FAMILY", help="a family, or one condition: see docs/constraints.md")
    conditions.add_argument("--quick", action="store_true", help="fewer systems and points, under 90 s")
    conditions.add_argument("--out", type=Path, metavar="DIR", help="report.json, report.html; goes on from there")
    conditions.set_defaults(action=_check)
    benchmark = commands.add_parser("bench", help="errors of functionals in sets of reactions and properties")
    benchmark.add_argument("--data", type=Path, metavar="DIR", help="reactions, or a .h5 file (default: shipped data)")
    benchmark.add_argument("--sets", type=_names, default=[], metavar="A,B", help="default: all but geometries")
    benchmark.add_argument("--role", help="rows of this role only: train, dev, ... (default: all)")
    benchmark.add_argument("--elements", type=_names, default=[], metavar="H,C", help="species of these elements only")
    benchmark.add_argument("--max-heavy", type=_positive, metavar="N", help="species of at most N atoms but hydrogen")
    benchmark.add_argument(
        "--min-heavy", type=_positive, default=0, metavar="N", help="rows whose largest species has at least N of them"
    )
    benchmark.add_argument("--xc", type=_names, default=["default"], metavar="X,Y", help="default: the shipped model")
    benchmark.add_argument("--protocol", default="standard", help="tight, standard (the default) or fast")
    benchmark.add_argument("--basis", help="instead of the protocol's")
    benchmark.add_argument("--broken-symmetry", action="store_true", help="let singlets become unrestricted")
    benchmark.add_argument("--jobs", type=_positive, default=1, help="local processes (default: 1)")
    benchmark.add_argument("--scheduler", metavar="URL", help="a Dask cluster instead, tcp://HOST:PORT")
    benchmark.add_argument("--out", type=Path, required=True, metavar="DIR", help="reports; goes on from there")
    benchmark.set_defaults(action=_bench)
    show = commands.add_parser("models", help="the shipped models, or one model's card")
    show.add_argument("name", nargs="?")
    show.add_argument("--export", type=Path, metavar="FILE.fun", help="write it as TorchScript, for GauXC and others")
    show.set_defaults(action=_models)
    reference = commands.add_parser("reference", help="reference densities and energies")
    actions = reference.add_subparsers(dest="action_name", required=True)
    build = actions.add_parser("build", help="compute the systems of a recipe; goes on where it was stopped")
    build.add_argument("recipe", type=Path, metavar="RECIPE.toml")
    build.add_argument("--out", type=Path, required=True, metavar="FILE.h5")
    build.add_argument("--jobs", type=_positive, default=1, help="local workers, which share the cores (default: 1)")
    build.add_argument("--scheduler", metavar="URL", help="a Dask cluster instead, tcp://HOST:PORT")
    build.add_argument("--max-memory", type=_megabytes, metavar="MB", help="of each worker (default: PySCF's)")
    build.add_argument(
        "--again", type=_names, default=[], metavar="A,B", help="systems to compute although they are there"
    )
    build.set_defaults(action=_reference_build)
    for name, action, text in (
        ("info", _reference_info, "what is shipped, or what a file holds"),
        ("verify", _reference_verify, "whether a file, or all that is shipped, is unaltered and consistent"),
    ):
        command = actions.add_parser(name, help=text)
        command.add_argument("file", type=Path, nargs="?", metavar="FILE.h5", help="or the name of a shipped one")
        command.set_defaults(action=action)
    bring = actions.add_parser("import", help="check a folder of reactions, JSON lines or GMTKN55's, and convert it")
    bring.add_argument("folder", type=Path, metavar="DIR")
    bring.add_argument("--out", type=Path, metavar="FOLDER", help="write systems.jsonl and reactions.jsonl there")
    bring.set_defaults(action=_reference_import)
    return parser


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(completed(sys.argv[1:] if argv is None else argv))
    try:
        status = args.action(args)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # `mlxc models NAME | head`: nobody reads on, and closing must not fail either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (MlxcError, OSError) as err:  # OSError: of the disk, where a library meets it: temporary files of integrals
        print(f"mlxc: error: {' '.join(str(err).split())}", file=sys.stderr)
        return 3 if isinstance(err, ConvergenceError) else 2
    except MemoryError as err:
        advice = "a smaller basis, fewer --jobs or a larger machine"
        print(f"mlxc: error: memory does not suffice ({' '.join(str(err).split())}): take {advice}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("mlxc: interrupted; what has been written is kept, and commands that resume go on there", file=sys.stderr)
        return 130
