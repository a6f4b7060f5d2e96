"""What a small store holds, and how all of it is read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polytope_lm as plm

if TYPE_CHECKING:
    from pathlib import Path

FILES = [
    "manifest.json",
    "manifest.sha256",
    "complete.json",
    "shards/00001/L01.pre.npy",
    "shards/00001/L01.pre.u.npy",
    "shards/00001/tokens.parquet",
    "shards/00001/documents.parquet",
    "shards/00001/shard.json",
]
ARRAY = "shards/00001/L01.pre.npy"


def everything(path: Path) -> plm.codes.store.CodeStore:
    """Read all that a store has."""
    found = plm.open_store(path)
    found.packed(1)
    found.activations("u", 1)
    assert len(found.tokens) == len(found)
    return found
