"""Results of `mlxc bench` for single species, packed into one file that can be kept, and back.

    python benchmarks/store.py pack FOLDER... --out FILE.jsonl.gz
    python benchmarks/store.py unpack FILE.jsonl.gz --out FOLDER

FOLDER is what `mlxc bench --out FOLDER` has written, or will: it computes what is not there.  Packed are energies and
what else was computed, and hashes of the geometries, none of the data that they belong to.
"""

from __future__ import annotations

import argparse
import gzip
import json
import zlib
from collections.abc import Iterable
from pathlib import Path

from mlxc.errors import UNREADABLE, InputError
from mlxc.files import make_folder, write_atomic


def pack(folders: Iterable[Path], out: Path) -> int:
    """Add the species of folders to those that `out` has already, the same file for the same species; how many it has.

    A result gives way to one that has all its extras and more.  Raises InputError for a damaged file.
    """
    lines = dict(_read(out)) if out.exists() else {}
    for folder in folders:
        for path in (folder / "species").glob("*.json"):
            try:
                content = _content(path.read_text())
                content.pop("id", None)
            except UNREADABLE as err:
                raise InputError(f"cannot read {path} ({err}): remove it, mlxc bench computes it again") from err
            if _more(content, lines.get(path.name)):
                lines[path.name] = content
    text = "".join(json.dumps({"file": k, **lines[k]}) + "\n" for k in sorted(lines))
    write_atomic(out, gzip.compress(text.encode(), mtime=0))
    return len(lines)


def unpack(file: Path, out: Path) -> int:
    """Write the species of a packed file that a folder lacks, or has less of; how many.

    Raises InputError for a damaged file.
    """
    folder = out / "species"
    make_folder(folder)
    missing = [(name, content) for name, content in _read(file) if _more(content, _kept(folder / name))]
    for name, content in missing:
        write_atomic(folder / name, json.dumps(content, indent=1) + "\n")
    return len(missing)


def _content(text: str) -> dict:
    """A result from its JSON.  Raises one of UNREADABLE where it is damaged."""
    content = json.loads(text)
    return content | {"more": dict(content["more"])}


def _kept(path: Path) -> dict | None:
    try:
        return _content(path.read_text())
    except UNREADABLE:
        return None


def _more(content: dict, kept: dict | None) -> bool:
    """Whether a result has all that the one that is kept has beside the energy, and something more."""
    return kept is None or content["more"].items() > kept["more"].items()


def _read(file: Path) -> list[tuple[str, dict]]:
    try:
        lines = [_content(line) for line in gzip.decompress(file.read_bytes()).decode().splitlines()]
        return [(Path(line.pop("file")).name, line) for line in lines]
    except (zlib.error, *UNREADABLE) as err:
        raise InputError(f"cannot read {file}: {err}") from err


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack")
    packing.add_argument("folders", type=Path, nargs="+")
    packing.add_argument("--out", type=Path, required=True)
    unpacking = commands.add_parser("unpack")
    unpacking.add_argument("file", type=Path)
    unpacking.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    if args.command == "pack":
        print(f"{args.out} has {pack(args.folders, args.out)} species")
    else:
        print(f"{unpack(args.file, args.out)} species written to {args.out}")


if __name__ == "__main__":
    main()
