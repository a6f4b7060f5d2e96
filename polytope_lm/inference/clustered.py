"""A partition of tokens, whoever made it: noise and cluster sizes stand beside every score.

A clusterer may leave tokens out: they have label -1, are counted, and never assigned afterwards. AMI is then
a score among the clustered tokens alone, and means nothing without the share that was thrown away: the few
tokens that are easiest to cluster agree with most labels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from polytope_lm.errors import PolytopeError
from polytope_lm.inference.ami import adjusted_mutual_information

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jaxtyping import Int

NOISE = -1


@dataclass(frozen=True)
class Agreement:
    """AMI among the clustered tokens, beside the share that was thrown away.

    Attributes:
        ami: adjusted mutual information of clusters and labels over the clustered tokens; None where there
            are none.
        clustered: tokens that it is a score of.
        noise_share: share of the tokens that were called noise, 0 to 1.

    """

    ami: float | None
    clustered: int
    noise_share: float

    def __str__(self) -> str:
        if self.ami is None:
            return "no AMI: every token is noise"
        thrown = f"; {self.noise_share:.0%} noise left out" if self.noise_share else ""
        return f"AMI {self.ami:.3f} among {self.clustered:,} clustered tokens{thrown}"


@dataclass(frozen=True, eq=False)
class Partition:
    """Which cluster each of n tokens is in.

    Attributes:
        labels: cluster id of each token, 0 to `clusters - 1`; -1 is noise (int32).
        clusterer: who made it.
        settings: every choice that it depends on.

    """

    labels: Int[np.ndarray, " n"]
    clusterer: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        labels = np.asarray(self.labels)
        if labels.ndim != 1 or not len(labels) or not np.issubdtype(labels.dtype, np.integer):
            msg = (
                f"clusterer {self.clusterer!r} gave {labels.dtype} of shape {labels.shape}; it must give one "
                "integer a token, -1 for noise"
            )
            raise PolytopeError(msg)
        kept = np.unique(labels[labels >= 0])
        ids = np.where(labels < 0, NOISE, np.searchsorted(kept, labels))
        object.__setattr__(self, "labels", ids.astype(np.int32))

    def __len__(self) -> int:
        """Return n, noise included."""
        return len(self.labels)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Tokens in each cluster, by its id; noise is none."""
        return tuple(int(size) for size in np.bincount(self.labels[self.labels >= 0]))

    @property
    def clusters(self) -> int:
        """How many clusters there are; noise is none."""
        return len(self.sizes)

    @property
    def noise(self) -> int:
        """How many tokens are in no cluster."""
        return int((self.labels < 0).sum())

    @property
    def noise_share(self) -> float:
        """Share of the tokens that are in no cluster, 0 to 1."""
        return self.noise / len(self)

    @property
    def largest_share(self) -> float:
        """Share of all tokens that are in the largest cluster, 0 to 1."""
        return max(self.sizes, default=0) / len(self)

    def ami(self, gold: Int[np.ndarray, " n"]) -> Agreement:
        """Return the agreement with gold labels among clustered tokens, and the share thrown away.

        Args:
            gold: label id of each token.

        Raises:
            PolytopeError: another number of labels.

        """
        if len(gold) != len(self):
            msg = f"{len(gold)} labels for a partition of {len(self)} tokens; give one a token"
            raise PolytopeError(msg)
        inside = self.labels >= 0
        if not inside.any():
            return Agreement(None, 0, 1.0)
        value = adjusted_mutual_information(self.labels[inside], np.asarray(gold)[inside])
        return Agreement(value, int(inside.sum()), self.noise_share)

    def to_frame(self) -> pd.DataFrame:
        """Return one row a cluster, noise (-1) last: `cluster`, `tokens`, `share` of all tokens."""
        tokens = [*self.sizes, self.noise] if self.noise else [*self.sizes]
        ids = [*range(self.clusters), NOISE] if self.noise else [*range(self.clusters)]
        return pd.DataFrame({"cluster": ids, "tokens": tokens, "share": np.array(tokens) / len(self)})

    def __repr__(self) -> str:
        return (
            f"<Partition by {self.clusterer}: {self.clusters} clusters of {len(self):,} tokens, largest "
            f"{max(self.sizes, default=0):,} ({self.largest_share:.0%}), noise {self.noise:,} "
            f"({self.noise_share:.0%}); {self.settings}>"
        )
