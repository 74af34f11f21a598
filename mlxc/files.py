"""Files that appear complete or not at all, and the folders for them."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlxc.errors import InputError

#: Files that this process has open, and their numbers.
_OPEN = re.compile(r"/dev/(stdout|stderr)|/(?:dev|proc/self)/fd/(\d+)")
_NUMBERS = {"stdout": 1, "stderr": 2}


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write a file under another name beside it, then rename it.  Raises InputError, and then leaves nothing.

    What a link leads to is written, not the link; to devices, pipes and open files (/dev/stdout) it is added.
    """
    data = content.encode() if isinstance(content, str) else content
    try:
        if stream := _OPEN.fullmatch(str(path)):
            sys.stdout.flush()
            with open(_NUMBERS.get(stream[1]) or int(stream[2]), "wb", closefd=False) as file:
                file.write(data)
            return
        if path.exists() and not path.is_file():
            path.write_bytes(data)
            return
        path = path.resolve()
        partial = path.with_name(f"{path.name}.tmp{os.getpid()}")
        try:
            partial.write_bytes(data)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as err:
        raise InputError(f"cannot write {path}: {err.strerror}; what was there before is kept") from err


def digest(value: Any) -> str:
    """SHA-256 of what JSON can hold, the same after it was written and read."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def make_folder(folder: Path) -> None:
    """Make a folder, and those that it is in, where they are missing.  Raises InputError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise InputError(f"cannot write {folder}: {err.strerror}") from err


@contextmanager
def sole_use(folder: Path) -> Iterator[None]:
    """Make a folder and keep other processes of mlxc from working in it, until the end of the block or of this process.

    Nothing is left behind, however the process ends.  Raises InputError where another one is at work there, and where
    the folder cannot be made.  Where the file system has no locks, every process believes that it is alone.
    """
    make_folder(folder)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as err:
            raise InputError(f"another process is at work in {folder}: wait for it, or give another --out") from err
        except OSError:  # no locks here
            pass
        yield
    finally:
        os.close(descriptor)


def check_writable(path: Path) -> None:
    """InputError where a result could not be written to `path`, before hours are spent on it."""
    if _OPEN.fullmatch(str(path)):
        if not path.exists():
            raise InputError(f"cannot write {path}: this process has no such file open")
        return
    if path.is_char_device() or path.is_fifo():
        return
    path = path.resolve()
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise InputError(f"cannot write {path}: {path.parent} is not a folder that can be written to")
    if path.is_dir():
        raise InputError(f"cannot write {path}: it is a folder")
