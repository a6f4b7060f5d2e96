"""Pairs of prompts as numbers: what a path between them crosses, how far they are apart, and their label.

The effect of meaning is estimated from this table alone, so that planted worlds, with no model in them, go
through the same steps as a language model.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from polytope_lm.errors import PolytopeError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jaxtyping import Bool, Float, Int


@dataclass(frozen=True, eq=False, repr=False)
class PairTable:
    """One row a pair.

    Attributes:
        different: whether the two prompts differ in meaning, `[P]`.
        group: which group (word, item) each pair belongs to, counted from 0, `[P]`.
        outcomes: counts along the paths, such as `flip-backs`, each `[P]`.
        covariates: what would make a pair cross more whatever it means, each `[P]`.
        measures: other numbers of a pair, compared but not adjusted for, each `[P]`.

    Raises:
        PolytopeError: columns of unequal length, values that are not finite, or only one of the two labels.

    """

    different: Bool[np.ndarray, " P"]
    group: Int[np.ndarray, " P"]
    outcomes: Mapping[str, Float[np.ndarray, " P"]]
    covariates: Mapping[str, Float[np.ndarray, " P"]]
    measures: Mapping[str, Float[np.ndarray, " P"]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        pairs = len(self.different)
        columns = {"group": self.group, **self.outcomes, **self.covariates, **self.measures}
        for name, column in columns.items():
            if len(column) != pairs:
                msg = f"{name!r} has {len(column)} values for {pairs} pairs; give one a pair"
                raise PolytopeError(msg)
            if not np.isfinite(column).all():
                row = int(np.flatnonzero(~np.isfinite(column))[0])
                msg = f"{name!r} of pair {row} is {column[row]}; leave the pair out, or mend what gave it"
                raise PolytopeError(msg)
        if not 0 < int(self.different.sum()) < pairs:
            what = "different" if pairs and self.different.all() else "the same"
            msg = f"all {pairs} pairs are {what} in meaning; pairs of both kinds are needed"
            raise PolytopeError(msg)

    def __len__(self) -> int:
        return len(self.different)

    @property
    def groups(self) -> int:
        """How many groups there are."""
        return len(np.unique(self.group))

    def __repr__(self) -> str:
        return (
            f"PairTable: {len(self)} pairs, {int(self.different.sum())} different in meaning, "
            f"{self.groups} groups, {len(self.covariates)} covariates"
        )
