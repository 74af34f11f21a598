"""Files that appear complete or not at all."""

from __future__ import annotations

import os
from pathlib import Path


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write a file under another name beside it, then rename it.  Raises OSError."""
    partial = path.with_name(f"{path.name}.tmp{os.getpid()}")
    partial.write_bytes(content.encode() if isinstance(content, str) else content)
    partial.replace(path)
