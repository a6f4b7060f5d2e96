"""What is read of a model's output: one number, or a whole vector, and how it changed from the clean run.

| readout | of | unit | first order along `v` |
|---|---|---|---|
| `logprob` | log-probability of the clean run's likeliest token | nats | `s g.v` |
| a token, `" Paris"` | log-probability of that token | nats | `s g.v` |
| two tokens | logit of the first less that of the second | logits | `s g.v` |
| `kl` | `KL(clean, changed)` of the next token | nats | that of the logits `z + s J v` |
| `js` | Jensen-Shannon divergence of the same | bits | that of the logits `z + s J v` |
| `mlp_out` | the layer's own MLP output, a vector | its own | `s J v` |
| `l2` | an encoder's final hidden state, a vector | its own | `s J v` |
| `cosine` | 1 - cosine of the final hidden states | none | that of `y + s J v` |

The relative error of an estimate is `|true - estimate| / |true|`, with Euclidean norms where a vector is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from polytope_lm.errors import PolytopeError, brief
from polytope_lm.models.logits import check_logits

if TYPE_CHECKING:
    from jaxtyping import Float

    from polytope_lm.models.model import Model

Kind = Literal["logprob", "logit difference", "kl", "js", "mlp_out", "l2", "cosine"]
ASKED = Kind | str | tuple[str, str] | None
"""What a user may give."""
_NAMED = ("logprob", "kl", "js", "mlp_out", "l2", "cosine")
_UNITS = {"logprob": "nats", "logit difference": "logits", "kl": "nats", "js": "bits", "mlp_out": "", "l2": ""}
_PLAIN = {
    "mlp_out": "the MLP's own output", "l2": "the final hidden state", "cosine": "1 - cosine of the final hidden state",
    "kl": "KL from the clean next-token distribution", "js": "JS from the clean next-token distribution",
}  # fmt: skip


@dataclass(frozen=True)
class Readout:
    """What is read; made by `readout`.

    Attributes:
        kind: which.
        tokens: ids of the tokens that are named; for `logprob` without a token, the clean run's likeliest.
        words: their texts.

    """

    kind: Kind
    tokens: tuple[int, ...] = ()
    words: tuple[str, ...] = ()

    @property
    def scalar(self) -> bool:
        """Whether it is a number with a gradient: `m`."""
        return self.kind in {"logprob", "logit difference"}

    @property
    def vector(self) -> bool:
        """Whether a whole vector is compared."""
        return self.kind in {"mlp_out", "l2"}

    @property
    def unit(self) -> str:
        """The unit of a change."""
        return _UNITS.get(self.kind, "")

    def __str__(self) -> str:
        if self.kind == "logit difference":
            return f"logit of {self.words[0]!r} less {self.words[1]!r}"
        if self.kind == "logprob":
            return f"log-probability of {self.words[0]!r}" if self.words else "log-probability of the likeliest token"
        return _PLAIN[self.kind]

    def at(self, model: Model, clean: Float[Tensor, "1 K"]) -> Readout:
        """Return the readout for one prompt: the likeliest token becomes a token."""
        if self.kind != "logprob" or self.tokens:
            return self
        token = int(clean[0].argmax())
        return Readout("logprob", (token,), (model.tokenizer.decode([token]) if model.tokenizer else str(token),))

    def value(self, out: Float[Tensor, "n K"]) -> Float[Tensor, " n"]:
        """Return the number `m` of each row; of scalar kinds only."""
        if self.kind == "logprob":
            return out.log_softmax(-1)[:, self.tokens[0]]
        return out[:, self.tokens[0]] - out[:, self.tokens[1]]

    def change(self, out: Float[Tensor, "n K"], clean: Float[Tensor, "1 K"]) -> Float[Tensor, " n"]:
        """Return how far each row is from the clean one: signed for scalar kinds, else from 0."""
        if self.scalar:
            return self.value(out) - self.value(clean)
        if self.vector:
            return length(out - clean)
        if self.kind == "cosine":
            return 1 - torch.cosine_similarity(out, clean, dim=-1)
        p, q = clean.log_softmax(-1), out.log_softmax(-1)
        if self.kind == "kl":
            return (p.exp() * (p - q)).sum(-1)
        middle = torch.logaddexp(p, q) - np.log(2)
        both: Tensor = (p.exp() * (p - middle)).sum(-1) + (q.exp() * (q - middle)).sum(-1)
        bits: Tensor = both / (2 * np.log(2))
        return bits


def length(vectors: Float[Tensor, "*n K"]) -> Float[Tensor, "*n"]:
    """Return Euclidean lengths."""
    found: Tensor = torch.linalg.vector_norm(vectors, dim=-1)
    return found


def readout(model: Model, asked: ASKED) -> Readout:
    """Return the readout that a user asked for; None: `logprob`, or an encoder's `l2`.

    Raises:
        PolytopeError: an encoder where logits are asked for, a causal model's final state, a word that is no single
            token, the same token twice, or anything else.

    """
    if asked is None:
        asked = "logprob" if model.has_logits else "l2"
    if isinstance(asked, (tuple, list)) and len(asked) == 2 and all(isinstance(word, str) for word in asked):
        check_logits(model)
        both = tuple(_token(model, word) for word in asked)
        if both[0] == both[1]:
            raise PolytopeError(f"readout = {brief(asked)}: both are token {both[0]}, the difference is 0; give two")
        return Readout("logit difference", both, tuple(asked))
    if not isinstance(asked, str) or not asked:
        raise PolytopeError(f"readout = {brief(asked)}: give one of {', '.join(_NAMED)}, a token, or two tokens")
    if asked in {"l2", "cosine"} and model.has_logits:
        raise PolytopeError(f"readout = {asked!r} is an encoder's; {model.name} has logits: give logprob, kl or js")
    if asked in {"logprob", "kl", "js"} or asked not in _NAMED:
        check_logits(model)
    if asked in _NAMED:
        return Readout(asked)  # type: ignore[arg-type]
    return Readout("logprob", (_token(model, asked),), (asked,))


def _token(model: Model, word: str) -> int:
    """Return a word's only token."""
    if model.tokenizer is None:
        raise PolytopeError(
            f"{model.name} has no tokenizer to find the token {word!r} with: plm.wrap(model, tokenizer)"
        )
    ids = model.tokenizer([word], add_special_tokens=False)["input_ids"][0]
    if len(ids) != 1:
        parts = ", ".join(repr(model.tokenizer.decode([i])) for i in ids) or "none"
        raise PolytopeError(
            f"readout token {word!r} is {len(ids)} tokens of {model.name} ({parts}): give one that is a single "
            "token (most begin with a space), or one of " + ", ".join(_NAMED)
        )
    return int(ids[0])
