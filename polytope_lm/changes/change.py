"""`plm.change`: what changing one activation does to the output, beside the estimates of it.

| estimate | formula | cost |
|---|---|---|
| first order | `g.v` (attribution patching) | a forward and a backward, shared by all changes of a place |
| curvature-corrected | `g.v + v'Hv / 2` | one more forward and two backwards |
| secant (RelP, 2508.21258) | `g_held.v`: soft codes, norm scales, attention patterns held | as first order |
| integrated gradients | integral of `g(x + t v).v` | a forward and a backward a node |

`v` is the whole change. Integrated gradients come with the difference of two nested rules as their error, and
equal the true change but for it; what they add is where it comes from. The truth is one forward.
"""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from polytope_lm.changes.integrated import MOST, integrate
from polytope_lm.changes.places import Direction, Place, check_vector, difference, places, vector
from polytope_lm.changes.readout import ASKED, Readout
from polytope_lm.changes.readout import readout as read_out
from polytope_lm.changes.result import Change, ChangeEstimate, Changes
from polytope_lm.changes.secant import secant_gradient
from polytope_lm.changes.trust_radius import onward_of
from polytope_lm.errors import PolytopeError, brief
from polytope_lm.paths.ends import activations, end
from polytope_lm.result import reproducible
from polytope_lm.tokens.tokenising import specials

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jaxtyping import Float

    from polytope_lm.models.derivatives import Onward
    from polytope_lm.models.model import Model

_TOLERANCE = 1e-3


@reproducible("plm.change")
def change(  # noqa: PLR0913 -- each is a choice that moves a number
    model: Model,
    a: str,
    b_or_delta: Any,
    layer: int | Sequence[int] | None = None,
    *,
    at: str = "resid_mid",
    readout: ASKED = None,
    position: int | Sequence[int] | str = -1,
    size: float = 1.0,
    most: int = MOST,
    progress: Callable[[int, int, str], None] | None = None,
) -> Changes:
    """Change one activation of a prompt, and compare estimates of what that does with the truth.

    Each layer and position is changed alone, with the rest of the clean run around it (activation patching).

    Args:
        model: the model.
        a: the prompt.
        b_or_delta: another prompt, whose activation is put in the place; or a change to add: a vector `[D]`, a
            neuron's number, `plm.changes.class_means`, `plm.changes.random_direction`.
        layer: the block or several; by default the middle one.
        at: the space: `resid_mid`, `mlp_in` or `embed`.
        readout: a number with a gradient: `logprob` (the default), a token, or two tokens.
        position: of the token, special tokens not counted; several; or `all`. Other than the last ones need a prompt
            B of as many tokens.
        size: how much of the change is made.
        most: intervals of the rule for integrated gradients at most, a power of 2.
        progress: told `(done, total, what)` before each place.

    Raises:
        PolytopeError: a change that is zero, a `size` of 0, NaN, another width; a read-out without a gradient or
            logits of an encoder; a layer or position that there is none of; prompts of different lengths.

    Examples:
        >>> import polytope_lm as plm
        >>> model = plm.load("tiny-gpt2")
        >>> found = plm.change(model, "The cat sat on the", "The dog lay on the", layer=1)
        >>> abs(found.changes[0].estimate("integrated gradients").off) < 1e-2
        True

    """
    if isinstance(size, bool) or not isinstance(size, (int, float)) or not np.isfinite(size) or size == 0:
        raise PolytopeError(
            f"size = {brief(size)}: a step of 0 (or NaN) changes nothing; give a finite number such as 1"
        )
    read = read_out(model, readout)
    if not read.scalar:
        raise PolytopeError(
            f"readout = {read.kind!r} has no gradient to estimate a change with: give logprob, a token or two tokens"
        )
    where = _places(model, a, b_or_delta, layer, at, position)
    found = []
    skipped = 0
    for number, place in enumerate(where):
        if progress is not None:
            each = "a forward for the truth, 3 and 4 backwards for estimates, and one of both for each node"
            progress(number, len(where), each if not number else f"layer {place.layer}")
        onward = onward_of(model, place, read)
        delta = size * _delta(model, b_or_delta, place, onward.x.double().cpu().numpy())
        if not delta.any() and len(where) > 1:  # two prompts that begin alike
            skipped += 1
            continue
        check_vector(delta, f"the change at position {position}", model.d_model)
        found.append(_change(onward, read, place, torch.as_tensor(delta), most))
    if skipped == len(where):
        raise PolytopeError(f"the change to {b_or_delta!r:.40} is zero at all {skipped} places: nothing is changed")
    target = b_or_delta if isinstance(b_or_delta, str) else ""
    return Changes(
        prompts=(a, target) if target else (a,), at=at, size=float(size), unit=read.unit, changes=tuple(found),
        provenance=model.provenance, command="",
    )  # fmt: skip


def _places(
    model: Model, a: str, b: Any, layer: int | Sequence[int] | None, at: str, position: int | Sequence[int] | str
) -> list[Place]:
    counts = [_count(model, a, "A"), *([_count(model, b, "B")] if isinstance(b, str) else [])]
    if isinstance(position, str) and position == "all":
        several: list[int] = list(range(counts[0]))
    else:
        several = list(position) if isinstance(position, Iterable) and not isinstance(position, str) else [position]  # type: ignore[list-item]
    if not several or any(isinstance(each, bool) or not isinstance(each, Integral) for each in several):
        raise PolytopeError(f"position = {brief(position)}: give a whole number, several, or 'all'")
    if len(set(counts)) > 1 and not (len(several) == 1 and -min(counts) <= several[0] < 0):
        raise PolytopeError(
            f"prompts of {counts[0]} and {counts[1]} tokens: positions other than one, counted from the end of both, "
            "need equally long prompts"
        )
    return [place for each in several for place in places(model, a, layer, at, each)]


def _count(model: Model, text: str, name: str) -> int:
    around = specials(model.tokenizer, model.bos)
    return len(end(model, text, name, -1).ids) - len(around.prefix) - len(around.suffix)


def _delta(model: Model, given: Any, place: Place, x: Float[np.ndarray, " D"]) -> Float[np.ndarray, " D"]:
    before = len(specials(model.tokenizer, model.bos).prefix)
    if isinstance(given, str):
        own = len(place.read.ids) - place.read.position
        other = end(model, given, "B", -1)
        index = place.read.position if len(other.ids) == len(place.read.ids) else len(other.ids) - own
        return difference(activations(model, other.ids, place.layer, place.at)[index], x)
    named = Direction("delta", given=given)
    return vector(model, named, at=place.at, layer=place.layer, position=place.read.position - before, x=x)


def _change(onward: Onward, read: Readout, place: Place, delta: Float[torch.Tensor, " D"], most: int) -> Change:
    """Make one change and estimate it in every way."""
    x = onward.x.double()
    g, clean, _ = onward.gradient(lambda out: read.at(onward.model, out.detach()).value(out))
    own = read.at(onward.model, clean.out)
    start = clean.out.double().cpu()
    moved = onward.run((x + delta.to(x.device))[None].to(onward.x.dtype)).out.double().cpu()
    true = float(own.change(moved, start)[0])
    first = float(g[0].double().cpu() @ delta)
    _, hv = onward.hvp(own.value, delta[None])
    curved = first + float(hv[0].double().cpu() @ delta) / 2
    held, what = secant_gradient(onward, own.value)
    secant = float(held.double().cpu() @ delta)

    def slopes(t: np.ndarray) -> np.ndarray:
        rows = x + torch.as_tensor(t, device=x.device)[:, None] * delta.to(x.device)
        part, _, _ = onward.gradient(own.value, rows.to(onward.x.dtype))
        return (part.double().cpu() * delta).sum(1, keepdim=True).numpy()

    integral = integrate(slopes, tolerance=_TOLERANCE, most=most)
    kept = f"{what.codes} soft codes, {what.norms} norm scales, {what.patterns} attention patterns held"
    estimates = (
        ChangeEstimate("first order", first, first - true, None, 1, 1, ""),
        ChangeEstimate("with curvature", curved, curved - true, None, 2, 3, ""),
        ChangeEstimate("secant (RelP)", secant, secant - true, None, 1, 1, kept),
        ChangeEstimate(
            "integrated gradients", float(integral.value[0]), float(integral.value[0]) - true, float(integral.error[0]),
            integral.nodes, integral.nodes, f"{integral.nodes} nodes",
        ),
    )  # fmt: skip
    before = len(specials(onward.model.tokenizer, onward.model.bos).prefix)
    return Change(
        layer=place.layer, position=place.read.position - before, token=place.read.token, read=str(own),
        length=float(delta.norm()), norm=float(x.norm()), true=true, estimates=estimates,
    )  # fmt: skip
