"""`mlxc plot` on the command line: a picture by its name, or what there is in a folder or a file."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlxc.errors import ConvergenceError
from mlxc.extras import need

PICTURES = ("plane", "density", "charge", "dissociation")
#: The command that `mlxc plot PATH` stands for.
DRAW = "draw"


def completed(argv: Sequence[str]) -> list[str]:
    """The words of a command line, `mlxc plot PATH` with the name of what it does."""
    named = (*PICTURES, DRAW, "-h", "--help")
    if len(argv) > 1 and argv[0] == "plot" and argv[1] not in named:
        return [argv[0], DRAW, *argv[1:]]
    return list(argv)


def separated(kind: type) -> Any:
    """The type of an option that lists values with commas between them, or semicolons where values have commas."""

    def read(text: str) -> list:
        try:
            return [kind(word) for word in text.split(";" if ";" in text else ",") if word]
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers like 1,2,3") from None

    return read


def _steps(text: str) -> int:
    if not text.isdecimal() or not 2 <= int(text) <= 100:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of steps from 2 to 100")
    return int(text)


def add_to(commands: Any) -> None:
    """Add `plot` to the commands of the command line."""
    usage = f"mlxc plot PATH [--out DIR]\n       mlxc plot {{{','.join(PICTURES)}}} ... [--xc X,Y] [--out DIR]"
    plot = commands.add_parser("plot", help="pictures of runs, models and functionals: see docs/plots.md", usage=usage)
    pictures = plot.add_subparsers(dest="picture", required=True, metavar="PICTURE", prog="mlxc plot")
    draw = pictures.add_parser(DRAW, help="the folder of a run or a model, or a file of saved results, drawn again")
    draw.add_argument("path", type=Path, metavar="PATH")
    draw.add_argument("--out", type=Path, metavar="DIR", help="where the files go (default: beside what is drawn)")
    draw.set_defaults(action=_draw)
    plane = pictures.add_parser("plane", help="density, enhancement factor, exact exchange in a plane of a molecule")
    plane.add_argument("subject", type=Path, metavar="FILE.xyz")
    plane.add_argument("--charge", type=int, default=0)
    plane.add_argument("--spin", type=int, help="number of unpaired electrons, 2S (default: lowest possible)")
    density = pictures.add_parser("density", help="density minus that of the reference data")
    density.add_argument("subject", metavar="NAME", help="a system of the reference data: see mlxc reference info")
    density.add_argument("--data", metavar="FILE", help="a shipped file or a .h5 file (default: the first with NAME)")
    charge = pictures.add_parser("charge", help="energies of an atom between whole numbers of electrons")
    charge.add_argument("subject", metavar="ATOM", help="H to Ar")
    charge.add_argument("--points", type=_steps, default=8, metavar="N", help="steps for each electron (default: 8)")
    curve = pictures.add_parser("dissociation", help="a diatomic along its bond against exact energies")
    curve.add_argument("subject", metavar="NAME", help="H2+, He2+, H2 or N2")
    curve.add_argument("--distances", type=separated(float), metavar="R,R", help="Angstrom (default: about a dozen)")
    for command in (plane, density):
        command.add_argument("--atoms", type=separated(int), metavar="I,J,K", help="that the plane goes through")
    for command, basis in ((plane, "def2-tzvp"), (charge, "def2-tzvppd"), (curve, "def2-tzvppd")):
        command.add_argument("--basis", default=basis, help=f"default: {basis}")
    for command in (plane, density, charge, curve):
        command.add_argument("--xc", type=separated(str), default=["default"], metavar="X,Y", help="side by side")
        command.add_argument("--out", type=Path, default=Path(), metavar="DIR", help="where the files go (default: .)")
        command.set_defaults(action=_compute)


def _draw(args: argparse.Namespace) -> int:
    from mlxc.plots import plot

    print(*plot(args.path, args.out), sep="\n")
    return 0


def _results(args: argparse.Namespace) -> dict[str, Any]:
    """What the picture that was asked for needs."""
    from mlxc.plots import charge, density, dissociation, plane

    if args.picture == "plane":
        return plane.compute(args.subject, args.xc, args.basis, args.charge, args.spin, args.atoms)
    if args.picture == "density":
        return density.compute(args.subject, args.xc, args.data, args.atoms)
    if args.picture == "charge":
        return charge.compute(args.subject, args.xc, args.basis, args.points)
    return dissociation.compute(args.subject, args.xc, args.basis, args.distances)


def _compute(args: argparse.Namespace) -> int:
    from mlxc.files import check_writable, make_folder
    from mlxc.plots import plot, saved

    need("a plot", "plot", "matplotlib")
    name = args.subject.stem if isinstance(args.subject, Path) else args.subject
    path = saved.path_of(args.out, args.picture, name)
    make_folder(args.out)
    check_writable(path)
    saved.refuse_to_lose(path, args.xc)
    content = _results(args)
    saved.save(path, content)
    missing = [f["xc"] for f in content["functionals"] if not f["converged"]]
    if missing == [f["xc"] for f in content["functionals"]] and args.picture in ("plane", "density"):
        raise ConvergenceError(f"no calculation converged: there is nothing to draw, {path} says so")
    print(path, *plot(path), sep="\n")
    if missing:
        print(f"NOT converged, and missing there: {', '.join(missing)}")
    return 3 if missing else 0
