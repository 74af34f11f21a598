"""Checkpoints of a training run: tensors in a safetensors file, everything else in JSON with that file's hash.

The JSON file is replaced last and names the tensors that belong to it, so that a run killed at any moment finds the
state before or after a step and nothing in between.  Nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from mlxc.errors import UNREADABLE, ModelFileError
from mlxc.files import write_atomic

_INDEX = "checkpoint.json"


def flatten(tree: Any, tensors: list[torch.Tensor]) -> Any:
    """A tree of dicts, lists and numbers with {"tensor": k} in place of its tensors, which are added to `tensors`."""
    if isinstance(tree, torch.Tensor):
        tensors.append(tree.detach().contiguous().clone())
        return {"tensor": len(tensors) - 1}
    if isinstance(tree, dict):
        return {str(k): flatten(v, tensors) for k, v in tree.items()}
    if isinstance(tree, list | tuple):
        return [flatten(v, tensors) for v in tree]
    return tree


def restore(tree: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """The inverse of `flatten`; keys stay texts and tuples lists."""
    if isinstance(tree, dict):
        if tree.keys() == {"tensor"}:
            return tensors[str(tree["tensor"])]
        return {k: restore(v, tensors) for k, v in tree.items()}
    return [restore(v, tensors) for v in tree] if isinstance(tree, list) else tree


def write(folder: Path, number: int, tree: dict[str, Any]) -> None:
    """Write checkpoint `number` and remove the one before."""
    tensors: list[torch.Tensor] = []
    rest = flatten(tree, tensors)
    content = safetensors.torch.save({str(k): t for k, t in enumerate(tensors)})
    name = f"checkpoint-{number}.safetensors"
    write_atomic(folder / name, content)
    index = {"tensors": name, "sha256": hashlib.sha256(content).hexdigest(), "state": rest}
    write_atomic(folder / _INDEX, json.dumps(index))
    for old in folder.glob("checkpoint-*.safetensors"):
        if old.name != name:
            old.unlink()


def exists(folder: Path) -> bool:
    """Whether a run has left a checkpoint there."""
    return (folder / _INDEX).exists()


def read(folder: Path) -> dict[str, Any]:
    """The tree of the last checkpoint.  Raises ModelFileError where it is damaged."""
    try:
        index = json.loads((folder / _INDEX).read_text())
        content = (folder / index["tensors"]).read_bytes()
        if hashlib.sha256(content).hexdigest() != index["sha256"]:
            raise ValueError("its SHA-256 is another")
        return restore(index["state"], safetensors.torch.load(content))
    except (safetensors.SafetensorError, *UNREADABLE) as err:
        raise ModelFileError(f"the checkpoint in {folder} is damaged ({err}): train anew without --resume") from err
