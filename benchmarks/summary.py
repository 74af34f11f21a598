"""A record of a report of `mlxc bench` without its rows: protocol, averages, rungs and failures, to be committed.

    python benchmarks/summary.py FOLDER --command "mlxc bench ..." --out FILE.json

Rows have reference values of data that belong to others.
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path

from mlxc.files import write_atomic


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--command", required=True, help="that the report was made with")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    report = json.loads((args.folder / "report.json").read_text())
    times = json.loads((args.folder / "timings.json").read_text())
    for functional in report["functionals"]:
        functional["minutes"] = round(sum(times[functional["xc"]].values()) / 60, 1)
        for rows in ("reactions", "properties"):
            del functional[rows]
    hashes = {f["name"]: f["sha256"] for f in report["functionals"] if "sha256" in f}
    record = {"command": args.command, "machine": platform.machine(), "models": hashes, **report}
    write_atomic(args.out, json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
