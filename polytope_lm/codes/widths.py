"""How wide a site's arrays are."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from polytope_lm.models.sites import Site


def width_of(site: Site, name: str | None = None) -> int:
    """Return the number of columns: bytes of a packed code (None), or of an activation."""
    if name is None:
        return site.n_bytes
    if name in {"x", "u"}:
        return site.d_model
    return site.width if name == "h" else site.width // len(site.kind.split("+"))
