"""Files of references: HDF5 behind a first block that holds the hash of all that follows.

The block (HDF5's user block, BLOCK bytes) is one line of text padded with blanks, so that every byte of the file is
either hashed or determined by the hash: any change and any truncation is found before anything is read.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable
from pathlib import Path

import h5py

from mlxc.errors import UNREADABLE, ReferenceFileError
from mlxc.files import write_atomic
from mlxc.reference.schema import Reference

FORMAT = 1
#: Bytes of the user block; HDF5 wants a power of two from 512 on.
BLOCK = 512


def _header(body: bytes) -> bytes:
    line = f"mlxc reference data, format {FORMAT}, sha256 {hashlib.sha256(body).hexdigest()}\n"
    return line.encode().ljust(BLOCK - 1) + b"\n"


def packed(references: Iterable[Reference], description: str = "") -> bytes:
    """The content of a file with these references."""
    image = io.BytesIO()
    with h5py.File(image, "w", userblock_size=BLOCK) as f:
        f.attrs["description"] = description
        systems = f.create_group("systems", track_order=True)
        for reference in references:
            reference.save(systems)
    body = image.getvalue()[BLOCK:]
    return _header(body) + body


def unpacked(content: bytes, name: str) -> tuple[dict[str, Reference], str]:
    """References by name, and the description, from the content of a file called `name`.

    Raises ReferenceFileError where it is not such a file, truncated or altered, naming the systems that are.
    """
    if not content.startswith(b"mlxc reference data, format "):
        raise ReferenceFileError(f"{name} is not a file of reference data, or its first bytes are damaged")
    body = content[BLOCK:]
    if content[:BLOCK] != _header(body):
        raise ReferenceFileError(f"{name} is damaged ({_extent(content)}): fetch or build it again")
    try:
        with h5py.File(io.BytesIO(content)) as f:
            return {key: Reference.load(group) for key, group in f["systems"].items()}, str(f.attrs["description"])
    except (ReferenceFileError, *UNREADABLE) as err:
        raise ReferenceFileError(f"{name} holds no references that can be read: {err}") from err


def _extent(content: bytes) -> str:
    """What of a damaged file is affected."""
    try:
        with h5py.File(io.BytesIO(content)) as f:
            bad = []
            for key in f["systems"]:
                try:
                    Reference.load(f["systems"][key])
                except Exception:  # whatever HDF5 makes of damaged bytes
                    bad.append(key)
    except Exception:
        return "no system can be read"
    return f"systems: {', '.join(bad)}" if bad else "its systems match their digests, the file does not match its hash"


def write(path: Path | str, references: Iterable[Reference], description: str = "") -> None:
    """Write a file of references; it appears complete or not at all.  Raises InputError."""
    write_atomic(Path(path), packed(references, description))


def read(path: Path | str) -> dict[str, Reference]:
    """All references of a file by name, after the check of its hash.  Raises ReferenceFileError."""
    return read_described(path)[0]


def read_described(path: Path | str) -> tuple[dict[str, Reference], str]:
    """As `read`, with the description of the file."""
    try:
        content = Path(path).read_bytes()
    except OSError as err:
        raise ReferenceFileError(f"cannot read {path}: {err.strerror}") from err
    return unpacked(content, str(path))
