"""The two models of a diff: loaded one after the other, and refused where they are not of one kind."""

from __future__ import annotations

import gc
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polytope_lm.errors import PolytopeError, brief
from polytope_lm.models.loading import load, outline
from polytope_lm.models.model import Model

if TYPE_CHECKING:
    from collections.abc import Sequence

    from polytope_lm.models.loading import Outline
    from polytope_lm.models.sites import Site


@dataclass(frozen=True, eq=False)
class Side:
    """One of the two models: at hand, or a name by which it is loaded when its turn comes.

    Attributes:
        given: a model, or a name.
        revision: of a name, on the hub.
        device: where a name's model goes.
        dtype: its number format.

    """

    given: Model | str | Path
    revision: str | None
    device: str
    dtype: str

    @classmethod
    def of(cls, given: Any, argument: str, revision: str | None, device: str, dtype: str) -> Side:
        """Check what a user gave as one of the models."""
        if not isinstance(given, (Model, str, Path)):
            raise PolytopeError(f"{argument} = {brief(given)}: give a model from plm.load or plm.wrap, or its name")
        if isinstance(given, Model) and given.tokenizer is None:
            raise PolytopeError(f"{argument}: {given.name} has no tokenizer: wrap(model, tokenizer)")
        return cls(given, revision, device, dtype)

    def outline(self) -> Outline:
        """Return what tells its kind, without its weights."""
        return outline(self.given, self.revision)

    def model(self) -> Model:
        """Return the model; where a name was given, loaded anew, so let go of the one before."""
        if isinstance(self.given, Model):
            return self.given
        gc.collect()  # models are full of cycles: else the one before would stay in memory
        return load(self.given, device=self.device, dtype=self.dtype, revision=self.revision)


def check_outlines(a: Outline, b: Outline) -> None:
    """Refuse two models whose small files say that they differ in kind, naming the difference."""
    found: list[tuple[str, Any, Any]] = [("architecture", a.architecture, b.architecture)]
    found += [(name, value, b.sizes.get(name)) for name, value in a.sizes.items()]
    for what, mine, theirs in found:
        if mine != theirs:
            raise _unlike(f"{what} is {mine!r} in {a.name} and {theirs!r} in {b.name}")
    check_vocabularies(a.name, a.tokenizer, b.name, b.tokenizer)


def check_vocabularies(a: str, of_a: Any, b: str, of_b: Any) -> None:
    """Refuse two tokenizers in which one id is two tokens; one may have more of them at its end."""
    mine, theirs = ({index: token for token, index in t.get_vocab().items()} for t in (of_a, of_b))
    for index in sorted(mine.keys() & theirs.keys()):
        if mine[index] != theirs[index]:
            raise _unlike(f"token {index} is {mine[index]!r} in {a}'s tokenizer and {theirs[index]!r} in {b}'s")
    for name, one, other in ((a, mine, theirs), (b, theirs, mine)):
        more = min(one.keys() - other.keys(), default=None)
        if more is not None and more < max(other, default=-1):
            raise _unlike(f"token {more} ({one[more]!r}) is only in {name}'s tokenizer")


@dataclass(frozen=True)
class Kind:
    """What two models must share, kept when the first one's weights are let go."""

    name: str
    family: str
    layers: int
    reads: str
    sites: tuple[Site, ...]

    @classmethod
    def of(cls, model: Model) -> Kind:
        """Return a loaded model's."""
        reads = "what comes before" if model.causal else "both ways"
        return cls(model.name, model.family, model.n_layers, reads, tuple(model.sites))


def check_kinds(a: Kind, b: Kind) -> None:
    """Refuse two models whose blocks differ in kind, naming the first difference."""
    found: list[tuple[str, Any, Any]] = [
        ("architecture", a.family, b.family),
        ("number of layers", a.layers, b.layers),
        ("what a token sees", a.reads, b.reads),
    ]
    for one, other in zip(a.sites, b.sites, strict=False):
        for names, mine, theirs in (
            (("kind", "hook", "width", "d_model"), one, other),
            (("linearity", "activation", "norm"), one.premises, other.premises),
        ):
            found += [(f"{one.key}'s {name}", getattr(mine, name), getattr(theirs, name)) for name in names]
    for what, left, right in found:
        if left != right:
            raise _unlike(f"{what} is {left} in {a.name} and {right} in {b.name}")


def check_cut(ids: Sequence[str], texts: Sequence[str], a: Outline, b: Outline) -> None:
    """Refuse a text that the two tokenizers cut otherwise, naming the first place."""
    if a.tokenizer.backend_tokenizer.to_str() == b.tokenizer.backend_tokenizer.to_str():
        return
    for name, text in zip(ids, texts, strict=True):
        cuts = [t(text, add_special_tokens=False, return_offsets_mapping=True) for t in (a.tokenizer, b.tokenizer)]
        pieces = [[text[start:end] for start, end in cut["offset_mapping"]] for cut in cuts]
        mine, theirs = (
            list(zip(cut["input_ids"], piece, strict=True)) for cut, piece in zip(cuts, pieces, strict=True)
        )
        if mine == theirs:
            continue
        place = next((i for i, (x, y) in enumerate(zip(mine, theirs, strict=False)) if x != y), min(map(len, pieces)))
        said = [repr(piece[place]) if place < len(piece) else "nothing" for piece in pieces]
        raise PolytopeError(
            f"document {name!r}, token {place}: {a.name}'s tokenizer reads {said[0]}, {b.name}'s {said[1]}: a diff "
            "needs the same tokens, leave the document out or give models of one tokenizer"
        )


def _unlike(difference: str) -> PolytopeError:
    return PolytopeError(f"{difference}: a diff needs two models of one architecture and tokenizer")
