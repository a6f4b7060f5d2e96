"""Small worlds with a known answer, as codes in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from polytope_lm.codes.codes import Codes
from polytope_lm.models.sites import Premises, Site

if TYPE_CHECKING:
    from collections.abc import Callable

RELU = Premises("piecewise affine", "relu", True, "LayerNorm")

CLASSES, WIDTH = 8, 256


def _code_world(rng: np.random.Generator, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Signs follow the class, magnitudes are lognormal: cosine sees only the few greatest of them."""
    n = len(labels)
    prototype = rng.random((CLASSES, WIDTH)) < 0.5
    on = prototype[labels] ^ (rng.random((n, WIDTH)) < 0.36)
    h = np.where(on, 1, -1) * rng.lognormal(sigma=2, size=(n, WIDTH))
    return h, h


def _direction_world(rng: np.random.Generator, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The class is a direction of u, hyperplanes are random."""
    u = 0.9 * rng.normal(size=(CLASSES, 24))[labels] + rng.normal(size=(len(labels), 24))
    return u, u @ rng.normal(size=(24, WIDTH)) / np.sqrt(24) + 0.3 * rng.normal(size=WIDTH)


WORLDS = {"code": _code_world, "direction": _direction_world}


def _planted(rng: np.random.Generator, n: int, documents: int) -> tuple[np.ndarray, np.ndarray]:
    """Return documents and labels; a tenth of the tokens take their document's class, so that it is alike."""
    document = np.sort(rng.integers(0, documents, n))
    labels = np.where(rng.random(n) < 0.1, rng.integers(0, CLASSES, documents)[document], rng.integers(0, CLASSES, n))
    return document, labels


def _table(document: np.ndarray, words: np.ndarray, shown: np.ndarray) -> pd.DataFrame:
    """Each token is one letter between brackets of its document's text."""
    position = np.arange(len(document)) - np.searchsorted(document, document)
    return pd.DataFrame(
        {
            "document": document,
            "position": position,
            "start": position * 2,
            "end": position * 2 + 1,
            "token_id": words,
            "token": [f" w{word}" for word in words],
            "word": pd.Series([f"w{word}" for word in words], dtype="object"),
            "upos": pd.Series([f"class {label}" for label in shown], dtype="object"),
        }
    )


def _make(
    kind: str = "code",
    *,
    permuted: bool = False,
    layers: tuple[int, ...] = (4,),
    n: int = 900,
    documents: int = 45,
    seed: int = 0,
    premises: Premises = RELU,
    kept: tuple[str, ...] = ("u", "h"),
    **provenance: Any,
) -> Codes:
    rng = np.random.default_rng(seed)
    document, labels = _planted(rng, n, documents)
    shown = rng.integers(0, CLASSES, documents)[document] if permuted else labels
    sites = tuple(Site(i, "pre", f"blocks.{i}.mlp.hook_pre", WIDTH, 24, premises) for i in layers)
    arrays, kept_arrays = {}, {}
    for site in sites:
        u, h = WORLDS[kind](rng, labels)
        arrays[site.key] = np.packbits(h > 0, axis=1, bitorder="little")
        for name, values in (("u", u), ("h", h)):
            if name in kept:
                kept_arrays[f"{site.key}.{name}"] = values.astype(np.float32)
    table = _table(document, rng.integers(0, 300, n), shown)
    texts = [f"<b>{i:05d}" + "é " * int((document == i).sum()) for i in range(documents)]
    ids = [f"document {i}" for i in range(documents)]
    return Codes(sites, table, arrays, ids, texts, kept, {"model": "planted", **provenance}, kept_arrays)


@pytest.fixture
def world() -> Callable[..., Codes]:
    """Return a maker of codes: `world("code", permuted=True, layers=(4,), seed=0)`."""
    return _make
