"""The largest useful coefficient of a steering vector: predicted without a rollout, and measured.

The vector is added at every position of one layer. *Iso-KL*: the coefficient at which the 95th percentile of
the per-token `KL(clean, steered)` over the clean model's own 48-token continuation is 1 nat, by bisection.
*Predicted*: the same on the prompt's tokens alone, from the first and second derivative of their logits along
the vector, by two forward passes beside the clean one. Nothing is generated.

Beside them stand a *fraction of the norm*, what people try first, and the *linear accessibility* of the layer:
how often the logit lens there already prefers the right one of two tokens (Billa, "Predicting Where Steering
Vectors Succeed", 2604.15557), which says where steering works, not how far.
"""

from __future__ import annotations

import html
from dataclasses import dataclass, replace
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from polytope_lm.changes.places import check_vector
from polytope_lm.changes.readout import Readout
from polytope_lm.errors import PolytopeError, brief, public
from polytope_lm.models.hooks import forward, tapped
from polytope_lm.models.interventions import Replaced, check_streams, patched
from polytope_lm.models.logits import check_logits, next_token_logits
from polytope_lm.paths.ends import activations, end, vectors

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jaxtyping import Float

    from polytope_lm.models.hooks import Tap
    from polytope_lm.models.model import Model

LOOK = 0.015
"""Of the median norm: how far the two passes stand."""
LARGEST = 8.0
"""Of the median norm: the largest push that is tried."""
_BISECTIONS = 12
_SCAN = 24
_KL = Readout("kl")


@dataclass(frozen=True, repr=False)
class Steering:
    """How far one vector can be pushed at one layer.

    Attributes:
        predicted: the coefficient, from the prompt's tokens and derivatives.
        measured: the coefficient, over the continuation; None where it was not asked for.
        norm: median norm of the stream at the prompt's tokens.
        length: of the vector: `predicted * length / norm` is the push as a fraction of the norm.
        censored: the measured coefficient is beyond the largest that was tried, which stands in its place.
        predicted_censored: so is the predicted one.
        nats: of KL that were allowed.

    """

    predicted: float
    measured: float | None
    norm: float
    length: float
    censored: bool
    predicted_censored: bool
    nats: float

    def __repr__(self) -> str:
        known = [("predicted", self.predicted, self.predicted_censored), ("measured", self.measured, self.censored)]
        said = " and ".join(
            f"{what} {'beyond ' * beyond}{value:.3g} ({value * self.length / self.norm:.0%} of the stream's norm)"
            for what, value, beyond in known
            if value is not None
        )
        return f"<Steering: {self.nats:g} nat of KL at the coefficient {said}>"

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(repr(self).strip('<>'))}</p>"


@public
def contrast(model: Model, positive: Sequence[str], negative: Sequence[str], layer: int) -> Float[np.ndarray, " D"]:
    """Return the mean activation at the last token of some texts less that of others: a contrastive direction.

    Raises:
        PolytopeError: no text on one side, or the same texts on both.

    """
    if not positive or not negative:
        raise PolytopeError(f"{len(positive)} positive and {len(negative)} negative texts: give one or more of each")
    means = []
    for name, texts in (("positive", positive), ("negative", negative)):
        read = [end(model, text, name, -1) for text in texts]
        means.append(np.mean([activations(model, one.ids, layer, "resid_mid")[one.position] for one in read], axis=0))
    return check_vector(np.asarray(means[0] - means[1]), "the contrast", model.d_model)


@public
def steer(
    model: Model,
    prompt: str,
    vector: Any,
    layer: int,
    *,
    nats: float = 1.0,
    tokens: int = 48,
    measure: bool = True,
    continued: torch.Tensor | None = None,
) -> Steering:
    """Predict the largest useful coefficient of a steering vector, and measure it.

    Args:
        model: a causal model.
        prompt: the text that is continued.
        vector: what is added at every position, `[D]`.
        layer: where, in `resid_mid`.
        nats: the 95th percentile of per-token KL that is allowed.
        tokens: of the continuation.
        measure: also measure over the continuation: `tokens` forward passes to generate it and about 36 of it.
        continued: ids of the prompt and its continuation (`plm.changes.continuation`), where vectors share one.

    Raises:
        PolytopeError: an encoder, a vector that is zero, has NaN or another width, no such layer, `nats` of 0.

    Examples:
        >>> import polytope_lm as plm
        >>> model = plm.load("tiny-gpt2")
        >>> vector = plm.changes.contrast(model, ["This is good"], ["This is bad"], layer=2)
        >>> found = plm.changes.steer(model, "The cat sat on the", vector, layer=2, tokens=4)
        >>> found.measured > 0 and found.predicted > 0
        True

    """
    check_logits(model)
    if isinstance(nats, bool) or not isinstance(nats, Real) or not 0 < float(nats) < np.inf:
        raise PolytopeError(f"nats = {brief(nats)}: give a positive number; 1 is the default")
    if isinstance(tokens, bool) or not isinstance(tokens, int) or tokens < 1:
        raise PolytopeError(f"tokens = {brief(tokens)}: give a whole number from 1; 48 is the default")
    model.block(layer)
    check_streams(model, layer, "resid_mid")
    v = check_vector(vectors("vector", vector, f"{model.d_model} numbers"), "vector", model.d_model)
    ids = torch.as_tensor(end(model, prompt, "to steer", -1).ids, device=model.device)
    x = activations(model, ids.cpu().numpy(), layer, "resid_mid")
    norm, length = float(np.median(np.linalg.norm(x, axis=1))), float(np.linalg.norm(v))
    unit = norm / length
    predicted, beyond = _crossing(_predictor(model, ids, layer, v, LOOK * unit), float(nats), unit)
    known = Steering(predicted, None, norm, length, censored=False, predicted_censored=beyond, nats=float(nats))
    if not measure:
        return known
    whole = continuation(model, prompt, tokens) if continued is None else continued
    if len(whole) <= len(ids) or not torch.equal(whole[: len(ids)], ids):
        raise PolytopeError(f"continued: {len(whole)} ids that do not go on from the prompt's {len(ids)}")
    clean = _logits(model, whole, layer, None)[len(ids) - 1 : -1]

    def kl(c: float) -> float:
        moved = _logits(model, whole, layer, torch.as_tensor(c * v))[len(ids) - 1 : -1]
        return _percentile(clean, moved)

    measured, censored = _crossing(kl, float(nats), unit)
    return replace(known, measured=measured, censored=censored)


@torch.no_grad()
def continuation(model: Model, prompt: str, tokens: int = 48) -> torch.Tensor:
    """Return the ids of a prompt with its likeliest continuation, as far as the model's context goes."""
    ids = torch.as_tensor(end(model, prompt, "to continue", -1).ids, device=model.device)
    for _ in range(min(tokens, model.context_length - len(ids))):
        with model.alone():
            out = forward(model, ids[None], logits=True, logits_to_keep=1).logits[0, -1]
        ids = torch.cat([ids, out.argmax()[None]])
    return ids


@public
def linear_accessibility(model: Model, texts: Sequence[str], tokens: Sequence[tuple[str, str]], layer: int) -> float:
    """Return how often the logit lens at a layer's output prefers the first of two tokens after each text.

    Args:
        model: a causal model.
        texts: prompts.
        tokens: the right and the wrong next token of each.
        layer: the block.

    Raises:
        PolytopeError: a token that is no single one, or as many pairs as there are no texts.

    """
    from polytope_lm.changes.readout import readout  # noqa: PLC0415 - only here

    if len(texts) != len(tokens) or not len(texts):
        raise PolytopeError(f"{len(texts)} texts and {len(tokens)} pairs of tokens: give one pair for each text")
    right = 0
    for text, pair in zip(texts, tokens, strict=True):
        asked = readout(model, tuple(pair))  # type: ignore[arg-type]
        read, tap, kept = end(model, text, "of the lens", -1), (layer, "resid_post"), list[torch.Tensor]()
        taps: list[Tap] = [tap]  # type: ignore[list-item]
        with torch.no_grad(), model.alone(), tapped(model, taps, lambda _t, value, kept=kept: kept.append(value)):  # type: ignore[misc]
            forward(model, torch.as_tensor(read.ids, device=model.device)[None])
        residual = kept[0].reshape(len(read.ids), -1)[-1:].float().cpu().numpy()
        right += float(asked.value(torch.as_tensor(next_token_logits(model, residual)))[0]) > 0
    return right / len(texts)


@torch.no_grad()
def _logits(model: Model, ids: torch.Tensor, layer: int, push: torch.Tensor | None) -> torch.Tensor:
    """Return the logits at every position, with a vector added at all of them."""
    move = (lambda own: own) if push is None else (lambda own: own + push.to(own))
    batch = ids[None]
    with model.alone(), patched(model.block(layer), Replaced(layer, "resid_mid", slice(None)), move, batch.shape):
        found: torch.Tensor = forward(model, batch, logits=True).logits[0]
    return found.double().cpu()


def _percentile(clean: torch.Tensor, moved: torch.Tensor) -> float:
    """Return the 95th percentile of per-token KL."""
    each = [float(_KL.change(moved[n : n + 1], clean[n : n + 1])[0]) for n in range(len(clean))]
    return float(np.percentile(each, 95))


def _predictor(model: Model, ids: torch.Tensor, layer: int, v: np.ndarray, d: float) -> Callable[[float], float]:
    """Return the percentile of KL on the prompt's tokens as a function of the coefficient, by two derivatives."""
    push = torch.as_tensor(d * v)
    clean, plus, minus = (_logits(model, ids, layer, one) for one in (None, push, -push))
    first, second = (plus - minus) / (2 * d), (plus + minus - 2 * clean) / d**2
    return lambda c: _percentile(clean, clean + c * first + c**2 / 2 * second)


def _crossing(of: Callable[[float], float], level: float, unit: float) -> tuple[float, bool]:
    """Return the least coefficient at which a percentile reaches a level: a log-spaced scan, then bisection."""
    steps = unit * np.geomspace(1e-3, LARGEST, _SCAN)
    over = next((n for n, c in enumerate(steps) if not of(float(c)) < level), None)
    if over is None:
        return float(steps[-1]), True
    low, high = (float(steps[over - 1]) if over else 0.0), float(steps[over])
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if of(middle) < level else (low, middle)
    return high, False
