"""`plm.trust_radius`: how far along a direction a first-order estimate holds, predicted and on request measured.

The formulas stand in `changes.radius`, flip masses in `changes.flips`, read-outs in `changes.readout`.
"""

from __future__ import annotations

from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from polytope_lm.changes.places import Place, named, places, vector
from polytope_lm.changes.radius import Excess, Look, curve_steps, look
from polytope_lm.changes.readout import ASKED, Readout
from polytope_lm.changes.readout import readout as read_out
from polytope_lm.changes.result import DRAWN, Curves, Length, Radius, TrustRadius
from polytope_lm.errors import PolytopeError, brief
from polytope_lm.models.derivatives import Onward
from polytope_lm.result import reproducible

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from polytope_lm.models.model import Model


@reproducible("plm.trust_radius")
def trust_radius(  # noqa: PLR0913 -- each is a choice that moves a number
    model: Model,
    prompt: str | Sequence[str],
    direction: Any,
    layer: int | Sequence[int] | None = None,
    *,
    at: str = "resid_mid",
    readout: ASKED = None,
    position: int = -1,
    tau: float = 0.1,
    measure: bool = False,
    parts: bool = True,
    progress: Callable[[int, int, str], None] | None = None,
) -> TrustRadius:
    """Predict how far a first-order estimate holds along directions, and on request measure it.

    A prompt's directions share one forward and one backward pass at each layer; each adds two forward passes.
    Measuring adds 42 forward passes a direction, and 33 for each drawing. All steps go in one batch, what
    comes before the position is run once, and only what follows it, from the layer on, is run again.

    Args:
        model: the model.
        prompt: a text, or several.
        direction: a vector `[D]`; a text (its activation less this one's); a neuron's number (what it writes);
            `plm.changes.class_means`, `plm.changes.random_direction`; several of these in a list, or by name in a
            mapping.
        layer: the block or several; by default the middle one.
        at: the space: `resid_mid`, `mlp_in` or `embed`.
        readout: what is read after the prompt: `logprob` (of the likeliest token; the default), a token such as
            `" Paris"`, two tokens (a logit difference), `kl`, `js`, `mlp_out`, or an encoder's `l2` and `cosine`.
        position: of the token, special tokens not counted; -1 is the last.
        tau: the relative error that is allowed.
        measure: measure the radius, too.
        parts: tell flip masses beside; False leaves them out.
        progress: told `(done, total, what)` before each place.

    Raises:
        PolytopeError: a direction that is zero, has NaN or another width; a read-out token that is no single token;
            logits of an encoder; a layer or a position that there is none of; a tau outside 0 to 1.

    Examples:
        >>> import polytope_lm as plm
        >>> model = plm.load("tiny-gpt2")
        >>> found = plm.trust_radius(model, "The cat sat on the", "The dog lay on the", layer=1)
        >>> found.triples[0].predicted.value < found.triples[0].norm
        True

    """
    if isinstance(tau, bool) or not isinstance(tau, Real) or not 0 < float(tau) < 1:
        raise PolytopeError(f"tau = {brief(tau)}: give a relative error between 0 and 1; .1 is the default")
    wanted = named(direction)
    where = places(model, prompt, layer, at, position)
    read = read_out(model, readout)
    total = len(where) * len(wanted)
    cost = f"{total} triples, {2 * total} forwards and a forward and a backward for each of {len(where)} places"
    cost += f", {42 * total} more to measure" if measure else ""
    prompts = list(dict.fromkeys(one.prompt for one in where))
    found: list[Radius] = []
    forwards = 0
    for number, place in enumerate(where):
        if progress is not None:
            progress(number * len(wanted), total, cost if not number else f"layer {place.layer}")
        onward = onward_of(model, place, read)
        x = onward.x.double().cpu().numpy()
        rows = [vector(model, one, at=place.at, layer=place.layer, position=position, x=x) for one in wanted]
        before = onward.passes
        seen = look(onward, read, np.stack(rows), parts=parts)
        forwards += onward.passes - before
        found += radii(
            seen, float(tau), names=[one.name for one in wanted], lengths=[float(np.linalg.norm(row)) for row in rows],
            prompt=prompts.index(place.prompt), token=place.read.token, measure=measure, drawn=total <= DRAWN,
        )  # fmt: skip
    return TrustRadius(
        prompts=tuple(prompts), at=at, tau=float(tau), unit=read.unit, triples=tuple(found), forwards=forwards,
        backwards=len(where) * read.scalar, provenance=model.provenance, command="",
    )  # fmt: skip


def onward_of(model: Model, place: Place, read: Readout) -> Onward:
    """Return the model from a place on: read after the prompt, or in an encoder at the place itself."""
    last = len(place.read.ids) - 1 if model.causal else place.read.position
    return Onward(
        model, torch.as_tensor(place.read.ids), place.layer, place.read.position, place.at, last,
        "mlp_out" if read.kind == "mlp_out" else "output",
    )  # fmt: skip


def radii(
    seen: Look, tau: float, *, names: Sequence[str], lengths: Sequence[float], prompt: int, token: str,
    measure: bool, drawn: bool,
) -> list[Radius]:  # fmt: skip
    """Return the records of one place's directions."""
    predicted, scalar = seen.predicted_radius(tau), seen.readout.scalar
    measured = seen.measured(tau) if measure else None
    curvature = seen.curvature_radius(tau) if scalar else None
    flips = seen.flip_radius(tau) if seen.layers else None
    smooth = seen.smooth_radius(tau) if seen.layers else None
    x = seen.onward.x.double().cpu()
    cosine = (seen.v @ x / seen.norm).tolist()
    scale, bends = _scale(seen), seen.curvature.tolist()
    found = []
    for n, (name, length) in enumerate(zip(names, lengths, strict=True)):
        ticks = _ticks(seen, n)
        known = (measured or predicted).radius[n]
        furthest = min(max(3 * float(known), 3 * float(predicted.radius[n])), seen.largest)
        found.append(
            Radius(
                prompt=prompt, token=token, layer=seen.onward.layer, direction=name, read=str(seen.readout),
                norm=seen.norm, length=length, cosine=cosine[n], slope=float(seen.slope[n]), curvature=bends[n],
                scale=scale[n], predicted=_length(predicted, n), by_curvature=_maybe(curvature, n),
                by_flips=_maybe(flips, n), by_remainders=_maybe(smooth, n),
                boundary=float(ticks[0]) if len(ticks) else None, measured=_maybe(measured, n),
                curves=_curves(seen, n, furthest, ticks, measure=measure) if drawn else None,
            )
        )  # fmt: skip
    return found


def _length(found: Excess, row: int) -> Length:
    return Length(float(found.radius[row]), found.beyond[row])


def _maybe(found: Excess | None, row: int) -> Length | None:
    return None if found is None else _length(found, row)


def _scale(seen: Look) -> list[float]:
    return [float(one) for one in seen.scale()] if not _inexact(seen) else [0.0] * len(seen.v)


def _inexact(seen: Look) -> str:
    """Why this layer's weights give no closed form; empty where they do."""
    return seen.onward.model.block(seen.onward.layer).inexact


def _ticks(seen: Look, row: int) -> np.ndarray:
    return np.empty(0) if _inexact(seen) else seen.ticks(row, seen.largest)


def _curves(seen: Look, row: int, furthest: float, ticks: np.ndarray, *, measure: bool) -> Curves:
    """Compute what is drawn of one direction."""
    one = seen.only(row)
    steps = curve_steps(furthest)
    s = torch.as_tensor(steps)[None]
    empty = np.empty(0)
    return Curves(
        steps=steps,
        first=one.first_order(s)[0].numpy(),
        predicted=one.predicted(s)[0].numpy(),
        secant=steps * float(one.secant()[0]) if seen.readout.scalar else empty,
        true=one.true_change(s)[0].numpy() if measure else empty,
        ticks=ticks[ticks <= furthest],
    )
