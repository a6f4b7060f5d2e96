"""What results of several layers share: their verdicts, corrected over layers, and a layer by its number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import pandas as pd

from polytope_lm.errors import PolytopeError
from polytope_lm.statistics.verdict import Verdict, in_layers, over_layers, ranges

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Comparator:
    """A verdict of its own beside the layer's: another claim, or one of the paper's own comparators.

    Attributes:
        claim: the representation that is to be ahead, `code` mostly.
        references: what it is compared with, such as `top neuron`.
        verdict: what follows.
        without: references of the same group that this layer can't give, and why.

    """

    claim: str
    references: tuple[str, ...]
    verdict: Verdict
    without: Mapping[str, str] = field(default_factory=dict)


class _Layer(Protocol):
    @property
    def layer(self) -> int: ...

    @property
    def verdict(self) -> Verdict: ...


class _Compared(_Layer, Protocol):
    @property
    def comparators(self) -> tuple[Comparator, ...]: ...


L = TypeVar("L", bound=_Layer)
C = TypeVar("C", bound=_Compared)


class Layered:
    """Gives a result with `layers`, each with a verdict, what all such results have in common."""

    layers: tuple[Any, ...]

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """The verdict of each layer, in the order of `layers`."""
        return tuple(layer.verdict for layer in self.layers)

    @property
    def said(self) -> str:
        """Which layers have which outcome, by which cells, in a plain sentence."""
        return in_layers({layer.layer: layer.verdict for layer in self.layers})

    def layer(self, layer: int) -> Any:
        """Return one layer's record.

        Raises:
            PolytopeError: this layer was not compared.

        """
        for each in self.layers:
            if each.layer == layer:
                return each
        there = ", ".join(str(each.layer) for each in self.layers)
        raise PolytopeError(f"layer {layer} is not in this result; layers compared: {there}")

    def comparisons(self) -> pd.DataFrame:
        """Return one row a layer, claim and comparator: the verdict of each, with its deciding cell.

        `without`: references that this layer can't give, so that the verdict stands on the others alone.
        """
        rows = []
        for layer in self.layers:
            main = Comparator("code", tuple(dict.fromkeys(c.reference for c in layer.verdict.cells)), layer.verdict)
            for each in (main, *layer.comparators):
                verdict, found = each.verdict, each.verdict.deciding
                rows.append(
                    {
                        "layer": layer.layer, "claim": each.claim, "against": " and ".join(each.references),
                        "verdict": verdict.outcome, "score": verdict.deciding_score,
                        "reference": verdict.deciding_reference, "difference": found.value, "low": found.low,
                        "high": found.high, "power": verdict.power, "without": " and ".join(each.without),
                    }
                )  # fmt: skip
        return pd.DataFrame(rows)

    def beside(self) -> list[str]:
        """Return a sentence for each further claim and comparator."""
        every = dict.fromkeys((c.claim, c.references) for layer in self.layers for c in layer.comparators)
        out = []
        for key in every:
            there = {
                layer.layer: c.verdict
                for layer in self.layers
                for c in layer.comparators
                if (c.claim, c.references) == key
            }
            claim, references = key
            without = {
                name: why
                for layer in self.layers
                for c in layer.comparators
                if (c.claim, c.references) == key
                for name, why in c.without.items()
            }
            alone = "".join(f" Without {name}: {why}." for name, why in without.items())
            out.append(f"{claim[0].upper()}{claim[1:]} against {' and '.join(references)}: {in_layers(there)}{alone}")
        return out

    def left_out_notes(self) -> list[str]:
        """Return what was left out of which layers, and why."""
        said: dict[tuple[str, str], list[int]] = {}
        for layer in self.layers:
            for name, why in sorted(layer.left_out.items()):
                said.setdefault((name, why), []).append(layer.layer)
        return [f"Layer {ranges(at)}: {name} left out: {why}." for (name, why), at in said.items()]


def with_holm(compared: Sequence[C]) -> tuple[C, ...]:
    """Return the layers with all of their verdicts corrected for the number of layers, claim by claim."""
    out = with_verdicts(compared)
    every = dict.fromkeys((c.claim, c.references) for layer in out for c in layer.comparators)
    new: list[list[Comparator]] = [[] for _ in out]
    for key in every:
        there = [(n, c) for n, layer in enumerate(out) for c in layer.comparators if (c.claim, c.references) == key]
        corrected = over_layers([c.verdict for _, c in there])
        for (n, old), verdict in zip(there, corrected, strict=True):
            new[n].append(replace(old, verdict=verdict))
    return tuple(replace(layer, comparators=tuple(mine)) for layer, mine in zip(out, new, strict=True))  # type: ignore[type-var]


def with_verdicts(layers: Sequence[L]) -> tuple[L, ...]:
    """Return the layers with their verdicts corrected for the number of layers."""
    verdicts = over_layers([each.verdict for each in layers])
    return tuple(replace(each, verdict=v) for each, v in zip(layers, verdicts, strict=True))  # type: ignore[type-var]
