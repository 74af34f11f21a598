"""The version of mlxc, and the commit of a source tree."""

from __future__ import annotations

import subprocess
from pathlib import Path

__version__ = "0.1.0"


def commit() -> str | None:
    """The commit that mlxc runs from, with "+" where files have changed since; None outside a source tree."""
    here = Path(__file__).parents[1]
    if not (here / ".git").exists():
        return None

    def git(*arguments: str) -> str:
        # Without locks: `git status` writes its index anew, and leaves a lock behind where it is killed.
        command = ["git", "--no-optional-locks", "-C", str(here), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
