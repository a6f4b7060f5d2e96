"""The arrays of chosen tokens: the right rows, and no others read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

import polytope_lm as plm
from polytope_lm.representations.arrays import LayerArrays

if TYPE_CHECKING:
    from pathlib import Path

    from polytope_lm.codes.codes import TokenCodes

ROWS = np.array([7, 0, 3, 11])


@pytest.fixture(scope="module", params=["memory", "store"])
def codes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TokenCodes:
    documents = [f"The bank {i} of the river is wet." for i in range(6)]
    options = {"layers": [1], "tokens": "word-final", "keep": ("u", "h")}
    if request.param == "memory":
        return plm.encode(plm.load("tiny-gpt2"), documents, **options)
    where: Path = tmp_path_factory.mktemp("store") / "codes"
    plm.capture(plm.load("tiny-gpt2"), documents, to=where, shard_documents=2, **options)
    return plm.open_store(where)


def test_only_the_chosen_rows_are_read(codes: TokenCodes, monkeypatch: pytest.MonkeyPatch) -> None:
    packed, u, h = codes.packed(1), codes.activations("u", 1), codes.activations("h", 1)
    for whole in ("packed", "activations", "bits", "_whole"):
        monkeypatch.setattr(type(codes), whole, lambda *_, **__: pytest.fail("the whole array was read"))
    arrays = LayerArrays(codes, 1, ROWS)
    assert (arrays.get("packed") == packed[ROWS]).all()
    assert (arrays.get("u") == u[ROWS]).all()
    assert (arrays.get("pre") == h[ROWS]).all()
    assert arrays.get("pre").dtype == np.float32
    assert (arrays.get("bits") == (h[ROWS] > 0)).all()
    part = arrays.part(np.array([1, 2]))
    assert (part.get("u") == u[ROWS[1:3]]).all()
