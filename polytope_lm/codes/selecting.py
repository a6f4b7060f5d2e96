"""Testing every neuron of a layer against every value of a label: see `codes.selective`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control

from polytope_lm.codes.contrast import Cells, examples
from polytope_lm.codes.selective import COLUMNS, Selective, SelectiveSettings, ValueTest
from polytope_lm.errors import PolytopeError, brief
from polytope_lm.seeds import Purpose, derived

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float

    from polytope_lm.codes.contrast import Contrast
    from polytope_lm.codes.readable import Readable
    from polytope_lm.codes.selective import Ablation
    from polytope_lm.models.model import Model

_WITH_CONTEXTS, _EXAMPLES = 60, 5
_MOST_VALUES = 200


def selective(  # noqa: PLR0913 - settings, by name
    codes: Readable, by: str, layer: int | None, *, alpha: float, least: int, ablate: bool, model: Model | None,
    most: int, draws: int, seed: int, resamples: int,
) -> Selective:  # fmt: skip
    """Find the neurons that fire for one value of a label: see `TokenCodes.selective`."""
    site = codes.site(layer)
    rows, names, group, left_out = _labelled(codes, by, least)
    _check(alpha, most, draws, least)
    cells = Cells(codes.rows(site, rows), site.width, group, codes.tokens["document"].to_numpy()[rows])
    contrasts = _contrasts(cells, len(names), seed)
    frame = _table(contrasts, names, lape_entropy(cells.rates()), alpha)
    values = tuple(_value(cells, number, name, contrasts[number], frame) for number, name in enumerate(names))
    settings = SelectiveSettings(
        by, alpha, len(rows), len(np.unique(cells.document)), least, left_out, seed, most, draws, resamples
    )
    ablations: tuple[Ablation, ...] = ()
    if ablate:
        from polytope_lm.codes.ablating import ablations as ablated  # noqa: PLC0415 - torch, where it is asked for

        chosen = {name: _found(frame, name)["neuron"].to_numpy()[:most] for name in names}
        ablations = ablated(codes, site, rows, group, names, chosen, settings, model)
    first = frame[frame["significant"] & (frame["log_odds"] > 0)].sort_values("q", kind="stable")[:_WITH_CONTEXTS]
    contexts: dict[int, Any] = {}
    for neuron, name in zip(first["neuron"], first["value"], strict=True):
        mine = np.flatnonzero(group == names.index(name))
        picked = examples(cells.packed[mine], rows[mine], int(neuron), on=True, count=_EXAMPLES)
        contexts.setdefault(int(neuron), tuple(codes.contexts(picked)))
    return Selective(settings, site, values, ablations, contexts, dict(codes.provenance), "", frame)


def _labelled(codes: Readable, by: str, least: int) -> tuple[np.ndarray, list[str], np.ndarray, tuple[str, ...]]:
    """Return the tokens whose value is in enough documents, the values' names, and each token's value."""
    if not isinstance(by, str) or by not in codes.tokens:
        raise PolytopeError(f"no label {brief(by)} here; there are {', '.join(codes.tokens.columns)}")
    column = codes.tokens[by]
    there = np.flatnonzero(column.notna().to_numpy())
    number, found = pd.factorize(column.iloc[there].astype(str), sort=True)
    if len(found) > _MOST_VALUES:
        raise PolytopeError(f"label {by!r} has {len(found):,} values: give one of at most {_MOST_VALUES}")
    document = codes.tokens["document"].to_numpy()[there]
    enough = [len(np.unique(document[number == v])) >= least for v in range(len(found))]
    if sum(enough) < 2:
        raise PolytopeError(
            f"label {by!r}: {sum(enough)} of its {len(found)} values are in {least} documents or more; two are needed, "
            "add documents or choose another label"
        )
    kept = np.flatnonzero(enough)
    mine = np.isin(number, kept)
    values = [str(value) for value in found]
    names = [value for value, good in zip(values, enough, strict=True) if good]
    left_out = tuple(value for value, good in zip(values, enough, strict=True) if not good)
    return there[mine], names, np.searchsorted(kept, number[mine]).astype(np.int64), left_out


def _check(alpha: float, most: int, draws: int, least: int) -> None:
    if not 0 < alpha < 1:
        raise PolytopeError(f"alpha is {alpha}; give a false discovery rate between 0 and 1, such as 0.05")
    for name, value in (("most", most), ("draws", draws), ("least", least)):
        if not isinstance(value, int) or value < 1:
            raise PolytopeError(f"{name} = {brief(value)}: give a whole number from 1")


def _contrasts(cells: Cells, count: int, seed: int) -> list[Contrast]:
    """Compare each value with the rest; of two values the second is the first one's other side."""
    seeds = [derived(seed, Purpose.EXCHANGED_DOCUMENTS, 0 if count == 2 else value) for value in range(count)]
    return [cells.against_rest(value, seed=seeds[value]) for value in range(count)]


def lape_entropy(rates: Float[np.ndarray, "V N"]) -> Float[np.ndarray, " N"]:
    """Return `-sum_v p log p`, nats, of each neuron's rates as a distribution; NaN where it is never on."""
    total = rates.sum(axis=0)
    p = np.divide(rates, total, out=np.full(rates.shape, np.nan), where=total > 0)
    return np.asarray(-np.where(p > 0, p * np.log(np.where(p > 0, p, 1)), 0 * p).sum(axis=0))


def _table(
    contrasts: Sequence[Contrast], names: Sequence[str], entropy: Float[np.ndarray, " N"], alpha: float
) -> pd.DataFrame:
    """Return one row a neuron and value, with q over all of them; two values are one test a neuron."""
    tests = contrasts[:1] if len(contrasts) == 2 else contrasts
    q = false_discovery_control(np.concatenate([one.p for one in tests])).reshape(len(tests), -1)
    parts = []
    for number, (one, name) in enumerate(zip(contrasts, names, strict=True)):
        mine = 0 if len(tests) == 1 else number
        columns = {
            "neuron": np.arange(len(one.p)), "value": name, "rate": one.rate, "others": one.other,
            "log_odds": one.log_odds, "low": one.low, "high": one.high, "entropy": entropy,
            "p": contrasts[mine].p, "q": q[mine], "significant": q[mine] <= alpha,
        }  # fmt: skip
        parts.append(pd.DataFrame(columns)[list(COLUMNS)])
    return pd.concat(parts, ignore_index=True)


def _found(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    mine = frame[(frame["value"] == name) & frame["significant"] & (frame["log_odds"] > 0)]
    return mine.iloc[np.lexsort((-mine["log_odds"].to_numpy(), mine["q"].to_numpy()))]


def _value(cells: Cells, number: int, name: str, one: Contrast, frame: pd.DataFrame) -> ValueTest:
    mine = cells.group == number
    significant = frame[(frame["value"] == name) & frame["significant"]]
    found = int((significant["log_odds"] > 0).sum())
    documents = len(np.unique(cells.document[mine]))
    return ValueTest(name, int(mine.sum()), documents, one.test, one.units, found, len(significant) - found)
