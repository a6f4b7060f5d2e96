"""What selective neurons do: the loss when they are mean-ablated, beside as many random ones of the same rates.

`post_i` of the ablated neurons becomes its mean over the labelled tokens of *other* documents, at every position but
the first. The loss is that of the next token (nats), at the labelled tokens, each counted for its own value. A random
neuron takes the place of each: one of the ten nearest in firing rate that no value has.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from polytope_lm.codes.hamming import hamming
from polytope_lm.codes.reread import at_hand, read_again
from polytope_lm.codes.selective import Ablation
from polytope_lm.errors import PolytopeError
from polytope_lm.models.gates import rewriting
from polytope_lm.models.hooks import forward, read
from polytope_lm.seeds import Purpose, derived
from polytope_lm.statistics.estimate import Resampled, resampled

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from jaxtyping import Float, Int64
    from torch import Tensor

    from polytope_lm.codes.readable import Readable
    from polytope_lm.codes.selective import SelectiveSettings
    from polytope_lm.models.gates import Mlp
    from polytope_lm.models.model import Model
    from polytope_lm.models.sites import Site
    from polytope_lm.tokens.windowing import Batch

_LOGITS = 2**26  # numbers of one pass's logits: 256 MB in float32
_NEAREST = 10


def ablations(
    codes: Readable, site: Site, rows: Int64[np.ndarray, " R"], group: Int64[np.ndarray, " R"],
    names: Sequence[str], chosen: Mapping[str, Int64[np.ndarray, " _"]], settings: SelectiveSettings,
    model: Model | None,
) -> tuple[Ablation, ...]:  # fmt: skip
    """Ablate each value's neurons, and random ones, and take the loss on each value's tokens."""
    loaded = at_hand(codes, model)
    if not loaded.has_logits:
        raise PolytopeError(f"{loaded.name} has no next-token distribution, so no loss: leave out ablate")
    if site.kind not in {"pre", "gate"}:
        raise PolytopeError(f"{site.key}: its bits are no neurons of an MLP to ablate: leave out ablate")
    rates = hamming.rates(codes.rows(site, rows), site.width)
    sets = {name: neurons for name, neurons in chosen.items() if len(neurons)}
    rng = np.random.default_rng(derived(settings.seed, Purpose.RANDOM_NEURONS))
    taken = np.concatenate([np.empty(0, np.int64), *sets.values()])
    arms = {(name, -1): neurons for name, neurons in sets.items()}
    for name, neurons in sets.items():
        for draw in range(settings.draws):
            arms[name, draw] = of_same_rates(rates, neurons, taken, rng)
    losses = _Passes(codes, site, rows, loaded).losses(list(arms.values()))
    return _summed_up(codes, rows, group, names, sets, list(arms), losses, settings)


def of_same_rates(
    rates: Float[np.ndarray, " N"], neurons: Int64[np.ndarray, " m"], taken: Int64[np.ndarray, " _"],
    rng: np.random.Generator,
) -> Int64[np.ndarray, " m"]:  # fmt: skip
    """Return for each neuron another, not taken, each once: drawn among the ten nearest in rate."""
    free = np.setdiff1d(np.arange(len(rates)), taken)
    if len(free) < len(neurons):
        raise PolytopeError(f"{len(neurons)} selective neurons and {len(free)} others: give a smaller most")
    found = []
    for neuron in neurons:
        near = np.argsort(np.abs(rates[free] - rates[neuron]), kind="stable")[:_NEAREST]
        place = int(rng.choice(near))
        found.append(int(free[place]))
        free = np.delete(free, place)
    return np.array(found, np.int64)


@dataclass(frozen=True, eq=False)
class _Passes:
    """Passes of the model over the labelled tokens, in the capture's windows."""

    codes: Readable
    site: Site
    rows: Int64[np.ndarray, " R"]
    model: Model

    def _batches(self) -> Iterator[tuple[Batch, np.ndarray, tuple[np.ndarray, np.ndarray]]]:
        return read_again(self.codes, self.rows, self.model, alike=True)

    def _means(self) -> tuple[Float[np.ndarray, "D N"], Int64[np.ndarray, " R"]]:
        """Return the mean of `post` over the tokens of the other documents, and each token's document."""
        _, where = np.unique(self.codes.tokens["document"].to_numpy()[self.rows], return_inverse=True)
        count = int(where.max()) + 1
        sums = np.zeros((count, self.site.width))
        for batch, found, place in self._batches():
            held: list[Tensor] = []
            ids, mask = torch.from_numpy(batch.input_ids), torch.from_numpy(batch.attention_mask)
            read(self.model, ids, mask, {(self.site.layer, "post"): held.append})
            np.add.at(sums, where[found], held[0][place].float().cpu().numpy())
        sizes = np.bincount(where, minlength=count)[:, None]
        return (sums.sum(axis=0) - sums) / np.maximum(sizes.sum() - sizes, 1), where

    def losses(self, arms: Sequence[Int64[np.ndarray, " _"]]) -> Float[np.ndarray, "A R"]:
        """Return each labelled token's loss: of the clean model first, then of each arm; NaN without a next token."""
        means, where = self._means()
        out = np.full((1 + len(arms), len(self.rows)), np.nan)
        vocabulary = int(self.model.hf.get_output_embeddings().weight.shape[0])  # type: ignore[operator]
        for batch, found, place in self._batches():
            size = max(1, _LOGITS // (batch.input_ids.shape[1] * vocabulary))
            for first in range(0, len(batch.input_ids), size):
                part = slice(first, first + size)
                mine = (place[0] >= first) & (place[0] < first + size)
                document = np.zeros(len(batch.input_ids[part]), np.int64)
                document[place[0][mine] - first] = where[found[mine]]
                base = torch.from_numpy(means[document]).to(self.model.device, self.model.dtype)
                at = (place[0][mine] - first, place[1][mine])
                for number, neurons in enumerate((None, *arms)):
                    out[number, found[mine]] = self._loss(batch, part, base, neurons, at)
        return out

    @torch.inference_mode()
    def _loss(
        self, batch: Batch, part: slice, base: Float[Tensor, "b N"], neurons: Int64[np.ndarray, " _"] | None,
        at: tuple[np.ndarray, np.ndarray],
    ) -> Float[np.ndarray, " K"]:  # fmt: skip
        """Return the loss after some tokens of a part of a batch, with some neurons at their means."""
        mask = torch.from_numpy(batch.attention_mask[part]).to(self.model.device)
        ids = torch.from_numpy(batch.input_ids[part]).to(self.model.device).masked_fill(mask == 0, 0)

        def change(_layer: int, mlp: Mlp) -> Tensor:
            post = mlp.post.clone()
            which = torch.tensor(neurons, device=post.device)
            post[:, 1:, which] = base[:, None, which].expand(-1, post.shape[1] - 1, -1)
            return post

        if neurons is None:
            with self.model.alone():
                logits = forward(self.model, ids, logits=True).logits
        else:
            with rewriting(self.model, [self.site.layer], change):
                logits = forward(self.model, ids, logits=True).logits
        rows, columns = at
        following = np.minimum(columns + 1, ids.shape[1] - 1)
        there = (columns + 1 < ids.shape[1]) & (batch.attention_mask[part][rows, following] > 0)
        target = ids[rows, following]
        found = -logits[rows, columns].float().log_softmax(-1).gather(-1, target[:, None])[:, 0]
        return np.where(there, found.cpu().numpy(), np.nan)


def _summed_up(
    codes: Readable, rows: np.ndarray, group: np.ndarray, names: Sequence[str],
    sets: Mapping[str, np.ndarray], arms: Sequence[tuple[str, int]], losses: Float[np.ndarray, "A R"],
    settings: SelectiveSettings,
) -> tuple[Ablation, ...]:  # fmt: skip
    """Average over tokens, with intervals over documents; random draws by the one rule for all controls."""
    _, where = np.unique(codes.tokens["document"].to_numpy()[rows], return_inverse=True)
    there = np.isfinite(losses[0])
    out = []
    for number, texts in enumerate(names):
        mine = np.flatnonzero(there & (group == number))
        documents, place = np.unique(where[mine], return_inverse=True)
        if len(documents) < 2:
            continue
        seed = derived(settings.seed, Purpose.ABLATION_RESAMPLES, number)
        times = resampled(np.arange(len(documents)), settings.resamples, seed=seed)
        sizes = np.bincount(place, minlength=len(documents))
        picks = np.random.default_rng(seed + 1).random(settings.resamples)

        def mean(arm: int, mine: Any = mine, place: Any = place, sizes: Any = sizes, times: Any = times) -> Resampled:
            sums = np.bincount(place, losses[arm, mine] - losses[0, mine], len(sizes))
            return Resampled(float(sums.sum() / sizes.sum()), (times @ sums) / (times @ sizes))

        for name, neurons in sets.items():
            change = mean(1 + arms.index((name, -1)))
            draws = [mean(1 + arms.index((name, draw))) for draw in range(settings.draws)]
            random = Resampled.mean_of_draws(draws, picks)
            estimates = [one.by_percentiles() for one in (change, random, change - random)]
            out.append(Ablation(name, len(neurons), texts, int(sizes.sum()), *estimates))
    return tuple(out)
