"""The shapes in the package's signatures are checked while its tests run."""

from __future__ import annotations

import numpy as np
import pytest
from jaxtyping import TypeCheckError

from polytope_lm.codes.hamming import hamming
from polytope_lm.statistics.estimate import auc


def test_an_array_of_another_shape_or_dtype_is_noticed() -> None:
    with pytest.raises(TypeCheckError):
        hamming.unpack(np.zeros((2, 3), dtype=np.float32), 24)
    with pytest.raises(TypeCheckError):
        auc(np.zeros((2, 2)), np.zeros(3, dtype=bool))
