"""How wide a site's arrays are."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from polytope_lm.models.sites import Site


def width_of(site: Site, name: str | None = None) -> int:
    """Return the number of columns: bytes of a packed code (None), or of an activation."""
    if name is None:
        return site.n_bytes
    if len(site.components) > 1:
        return sum(width_of(part, name) for part in site.components)
    if name in {"x", "u"}:
        return site.d_model
    return site.width if name == "h" else site.width // len(site.kind.split("+"))


def columns_of(site: Site | None, name: str) -> list[slice]:
    """Return each layer's columns of an activation of joined sites; all columns, of one site or None."""
    if site is None or len(site.components) == 1:
        return [slice(None)]
    ends = np.cumsum([0, *(width_of(part, name) for part in site.components)])
    return [slice(int(start), int(stop)) for start, stop in pairwise(ends)]
