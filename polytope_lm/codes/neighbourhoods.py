"""Every token's nearest tokens by code and by direction, how many they share, and their labels.

By code: Hamming distance, exact for fewer than 10^6 tokens. By direction: the cosine of the pre-activations h, less
each coordinate's mean over all tokens, exact. Of ties the token that comes first in one drawn order is nearer, in both.
Codes and activations are read block by block, so a store's are never in memory at once; the frame comes in parts, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from polytope_lm.codes.code import visible_frame
from polytope_lm.codes.store.tables import NUMBERS
from polytope_lm.errors import PolytopeError, brief, escaped
from polytope_lm.files import expand

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from jaxtyping import Float, Int32

    from polytope_lm.codes.readable import Readable
    from polytope_lm.models.sites import Site

_SHOWN = 10
BY_HAND = "needs the pre-activations of these tokens; capture again with keep=['h'] (--keep h)"


@dataclass(frozen=True, eq=False, repr=False)
class Neighbourhoods:
    """All tokens' neighbours.

    Attributes:
        codes: whose tokens they are.
        site: where.
        by_code: rows of the k nearest by code, nearest first, `[T, k]`.
        hamming: their distances in bits.
        by_direction: rows of the k nearest by direction; None where no pre-activations are at hand.
        cosine: their cosines.
        labels: the labels that the codes have.

    """

    codes: Readable
    site: Site
    by_code: Int32[np.ndarray, "T k"]
    hamming: Int32[np.ndarray, "T k"]
    by_direction: Int32[np.ndarray, "T k"] | None
    cosine: Float[np.ndarray, "T k"] | None
    labels: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.by_code)

    @property
    def overlap(self) -> Int32[np.ndarray, " T"]:
        """How many of a token's k neighbours by code are neighbours by direction, too.

        Raises:
            PolytopeError: there are none by direction.

        """
        if self.by_direction is None:
            raise PolytopeError(f"overlap {BY_HAND}")
        both = np.sort(np.concatenate([self.by_code, self.by_direction], axis=1), axis=1)
        return np.asarray((both[:, 1:] == both[:, :-1]).sum(axis=1), np.int32)

    def frames(self, rows: int = 4096) -> Iterator[pd.DataFrame]:
        """Yield the frame in parts of so many tokens: see `to_frame`."""
        shared = None if self.by_direction is None else self.overlap
        values = {name: self.codes.tokens[name].to_numpy() for name in self.labels}
        words = self.codes.tokens["token"].to_numpy()
        sides: dict[str, Any] = {"code": self.by_code, "direction": self.by_direction}
        for first in range(0, len(self), rows):
            part = np.arange(first, min(first + rows, len(self)))
            contexts = self.codes.contexts(part)
            columns: dict[str, Any] = {"row": part, "document": self.codes.tokens["document"].to_numpy()[part]}
            columns |= {name: [one[i] for one in contexts] for i, name in enumerate(("left", "token", "right"))}
            columns |= {name: value[part] for name, value in values.items()}
            for side, near in sides.items():
                if near is None:
                    continue
                columns[f"by_{side}"] = list(near[part])
                columns[f"tokens_by_{side}"] = list(words[near[part]])
                if side == "code":
                    columns["hamming"] = list(self.hamming[part])
                elif self.cosine is not None:
                    columns["cosine"] = list(self.cosine[part])
                for name, value in values.items():
                    columns[f"{name}_by_{side}"] = _agreeing(value[part], value[near[part]])
            if shared is not None:
                columns["overlap"] = shared[part]
            yield pd.DataFrame(columns)

    def to_frame(self) -> pd.DataFrame:
        """Return one row a token.

        `row`, `document`, `left`, `token`, `right`, its labels; for `code` and `direction` the neighbours' rows
        (`by_*`) and texts (`tokens_by_*`), nearest first, with `hamming` and `cosine`; for each label the share of the
        neighbours that have the token's own value (`LABEL_by_*`; missing where it has none); `overlap`.
        """
        return pd.concat(self.frames(), ignore_index=True)

    def to_parquet(self, path: str | Path) -> Path:
        """Write the frame, part by part, so that little is in memory at once; return the path.

        Raises:
            PolytopeError: the place can't be written to.

        """
        import pyarrow as pa  # noqa: PLC0415
        import pyarrow.parquet as pq  # noqa: PLC0415

        place = expand(path)
        partial = place.with_name(f".{place.name}.partial")
        writer: Any = None
        try:
            for frame in self.frames():
                table = pa.Table.from_pandas(frame, preserve_index=False)
                writer = pq.ParquetWriter(partial, table.schema) if writer is None else writer
                writer.write_table(table.cast(writer.schema))
            writer.close()
            partial.replace(place)
        except OSError as error:
            raise PolytopeError(f"{place}: cannot be written ({error.strerror}); choose another place") from None
        finally:
            partial.unlink(missing_ok=True)
        return place

    def __repr__(self) -> str:
        k = self.by_code.shape[1]
        shared = "" if self.by_direction is None else f"; {self.overlap.mean():.2f} of {k} are shared, on average"
        where = f"{self.site.key} ({self.site.width} bits)"
        return f"<Neighbourhoods: {k} nearest of each of {len(self):,} tokens in {where}{shared}>"

    def _repr_html_(self) -> str:
        frame = next(self.frames(_SHOWN))
        shown = pd.DataFrame(
            {"token": [f"…{a[-24:]}[{b}]{c[:16]}…" for a, b, c in frame[["left", "token", "right"]].to_numpy()]}
        )
        for side in ("code", "direction"):
            if f"tokens_by_{side}" in frame:
                shown[f"nearest by {side}"] = [" · ".join(words) for words in frame[f"tokens_by_{side}"]]
        rest = [name for name in frame if name in self.labels or name == "overlap"]
        shown = pd.concat([shown, frame[rest]], axis=1)
        table = visible_frame(shown).to_html(escape=True, index=False)
        return f"<p>{escaped(repr(self))}</p>{table}<p>The first {len(shown)}; .to_frame() has all.</p>"


def _agreeing(own: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Return the share of neighbours with a token's own value; NaN where it has none."""
    missing = pd.isna(own)
    same = (theirs == own[:, None]) & ~missing[:, None]
    return np.where(missing, np.nan, same.mean(axis=1))


def neighbourhoods(
    codes: Readable, k: int, layer: int | None, *, device: str | None = None, engine: str = "here", seed: int = 0
) -> Neighbourhoods:
    """Find all tokens' neighbours: see `TokenCodes.neighbourhoods`."""
    site = codes.site(layer)
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)):
        raise PolytopeError(f"k = {brief(k)}: give a whole number")
    if not 1 <= k < len(codes):
        raise PolytopeError(f"k = {k}: choose from 1 to {len(codes) - 1}, the number of other tokens")
    found = codes.knn(int(k), site.layer, device=device, engine=engine, seed=seed)
    direction = cosine = None
    if codes.can_give("h") and site.kind != "router":
        from polytope_lm.codes.nearest_by_cosine import nearest_by_cosine  # noqa: PLC0415  numba takes half a second

        direction, cosine = nearest_by_cosine(lambda: codes.blocks(site, "h"), int(k), seed)
    labels = tuple(name for name in codes.tokens.columns if name not in {*NUMBERS, "token"})
    return Neighbourhoods(codes, site, found.indices, found.distances, direction, cosine, labels)
