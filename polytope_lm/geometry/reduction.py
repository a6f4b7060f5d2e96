"""How few affine maps do an MLP's work: loss recovered with k maps in its place, beside what else k could have been spent on.

Maps are fitted on other documents than those that are tested. A tested token has the centre nearest its own map, so with
each token its own map nothing is lost. The first position of a document is left alone.

| arm | what stands in the MLP's place |
|---|---|
| k maps | k-means of the maps `(J, a)` under the Frobenius norm; nearest by the token's own map |
| random groups | mean maps of k random groups of the same sizes; a tested token has one at random, large ones more often |
| random groups, nearest | the same mean maps; a tested token has the one nearest its own map, as with k maps |
| by code | mean maps of k-means clusters of the codes; nearest by Euclidean distance to the mean code |
| by cosine | the same by the direction of `u`, centred |
| by vector | the same by `u` itself |
| mean map | one map for all: the mean |
| linear | one least-squares linear map from `u` to the output (ridge) |
| quadratic | neuron by neuron, the least-squares quadratic in its pre-activation (gated: in both): where pre-activations are Gaussian, the least-squares quadratic of `u` (Belrose & Rigg 2502.01032) |
| own map | each token its own |
| mean-ablated | the output's mean |

Score: **loss recovered**, `1 - (L_k - L_orig)/(L_noMLP - L_orig)`, L the cross-entropy of the next token in nats: 1 where
nothing is lost, 0 where as much as without the MLP, negative where k maps do more harm than that. *Without*: its output
is the mean over the fitting tokens. Where that costs less than .02 nats, the difference alone. Intervals: percentile
bootstrap over tested documents. The ratio is that by which sparse autoencoders are judged (Rajamanoharan et al.,
"Improving dictionary learning with gated sparse autoencoders", 2404.16014; there without means 0).
"""  # noqa: E501 - a table's row is one line

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from polytope_lm.errors import PolytopeError, brief, public
from polytope_lm.geometry.affine import Centres, Kind, Maps, Weights, inputs_of, k_means, maps_at, reduce
from polytope_lm.models.gates import Mlp, mlp_of
from polytope_lm.models.mlp_rows import Row, run_clean, run_rows, scores
from polytope_lm.models.sites import Site
from polytope_lm.plotting import Curve, histories
from polytope_lm.result import Result, reproducible, versions
from polytope_lm.seeds import Purpose, derived
from polytope_lm.statistics.estimate import Estimate, Resampled, resampled
from polytope_lm.statistics.ridge import ridge
from polytope_lm.tokens.windowing import Windowing, parse_rule

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go
    from jaxtyping import Float, Int

    from polytope_lm.documents import Document
    from polytope_lm.models.model import Model

LEAST = 0.02
"""Nats: where removing the MLP costs less, no ratio is shown."""
MAPS, RANDOM, NEAREST = "k maps", "random groups", "random groups, nearest"
CODE, COSINE, VECTOR = "by code", "by cosine", "by vector"
MEAN, LINEAR, QUADRATIC, OWN, ABLATED = "mean map", "linear", "quadratic", "own map", "mean-ablated"
GROUPED = (MAPS, RANDOM, NEAREST, CODE, COSINE, VECTOR)
ITERATIONS, FEWER, MANY = 20, 4, 1000
"""Of k-means, and how many beyond so many centres."""
PER_MAP = 3
"""Fitting tokens that a map must have at least: with fewer, centres are hardly more than the tokens themselves."""
_LEAST_DOCUMENTS, _LEAST_TOKENS = 4, 8


@dataclass(frozen=True)
class ArmLoss:
    """What was left of one MLP's work under one arm.

    Attributes:
        name: the arm.
        k: how many maps; 0 for arms that have none.
        recovered: loss recovered; None where removing the MLP costs too little.
        lost: loss beyond the clean one, nats a token.

    """

    name: str
    k: int
    recovered: Estimate | None
    lost: Estimate


@dataclass(frozen=True, repr=False)
class Reduction(Result):
    """Loss recovered with few maps in one MLP's place.

    Attributes:
        site: whose MLP.
        maps: tangent or secant.
        clean: the model's loss, nats a token.
        removed: what removing the MLP adds, nats a token.
        arms: by arm and k.
        fitted: tokens that maps were fitted on.
        tested: tokens whose loss was taken.
        documents: tested ones.
        seed: of every random choice.
        provenance: of the model.
        versions: of what computed it.
        command: what reproduces it.

    """

    site: Site
    maps: str
    clean: float
    removed: Estimate
    arms: tuple[ArmLoss, ...]
    fitted: int
    tested: int
    documents: int
    seed: int
    provenance: Mapping[str, Any]
    versions: Mapping[str, str]
    command: str

    kind = "reduction"
    file = "reduction.json"
    tab = "Maps"
    several = True

    def __repr__(self) -> str:
        return f"<Reduction: {self.headline}>"

    @property
    def headline(self) -> str:
        """What came out."""
        least = min((arm for arm in self.arms if arm.name == MAPS), key=lambda arm: arm.lost.value)
        other = self.arm(RANDOM, least.k)
        # A result that was saved before has no such arm.
        near = next((arm for arm in self.arms if (arm.name, arm.k) == (NEAREST, least.k)), None)
        beside = "" if near is None else f", the nearest of them {near.lost.value:.3f}"
        premises = "" if self.site.premises.met else " Outside the paper's premises."
        return (
            f"{self.site.place}: {least.k:,} {self.maps} maps lose {least.lost.value:.3f} nats a token, as many random "
            f"groups {other.lost.value:.3f}{beside}, no MLP {self.removed.value:.3f}.{premises}"
        )

    def arm(self, name: str, k: int = 0) -> ArmLoss:
        """Return one arm's loss.

        Raises:
            PolytopeError: no such arm.

        """
        for arm in self.arms:
            if (arm.name, arm.k) == (name, k):
                return arm
        raise PolytopeError(f"no arm {name!r} of {k} maps; there are {', '.join(f'{a.name} {a.k}' for a in self.arms)}")

    def to_frame(self) -> pd.DataFrame:
        """Return one row an arm and k."""
        import pandas as pd  # noqa: PLC0415 - a table is wanted less often than the record

        columns = ["arm", "k", "loss recovered", "low", "high", "nats lost", "nats low", "nats high"]
        rows = []
        for arm in self.arms:
            share = (None,) * 3 if arm.recovered is None else _three(arm.recovered)
            rows.append((arm.name, arm.k, *share, *_three(arm.lost)))
        return pd.DataFrame(rows, columns=columns)

    def notes(self) -> list[str]:
        """Return what the numbers stand on."""
        tested = f"{self.tested:,} tokens of {self.documents} other documents tested"
        on = f"{self.fitted:,} tokens to fit on, {tested}; clean loss {self.clean:.3f} nats; {self.site.premises}."
        return [on]

    def plot(self) -> go.Figure:
        """Draw loss recovered against k with its intervals, or nats lost where there is no ratio."""
        share = all(arm.recovered is not None for arm in self.arms)
        what = "loss recovered (1: all, 0: as without the MLP)" if share else "nats lost a token"

        def curve(name: str, arms: Sequence[ArmLoss], ks: Sequence[float]) -> Curve:
            found = [arm.recovered or arm.lost for arm in arms]
            return Curve(name, ks, [e.value for e in found], [e.low for e in found], [e.high for e in found])

        grouped = {name: [arm for arm in self.arms if arm.name == name] for name in GROUPED}
        # A result that was saved before has fewer kinds of groups.
        lines = [curve(name, arms, [arm.k for arm in arms]) for name, arms in grouped.items() if arms]
        ks = lines[0].x
        lines += [curve(name, [self.arm(name)] * 2, [min(ks), max(ks)]) for name in (LINEAR, QUADRATIC)]
        title = f"{self.site.place}, {self.maps} maps: {what} against k"
        return histories({title: lines}, x="k", span=(-1.05, 1.05) if share else None)


def _three(estimate: Estimate) -> tuple[float, float, float]:
    return estimate.value, estimate.low, estimate.high


@reproducible("plm.geometry.reduction.reduction")
@public
def reduction(  # noqa: PLR0913 - options of a test
    model: Model,
    documents: Sequence[Document | str],
    layer: int,
    *,
    ks: Sequence[int] = (1, 10, 100),
    kind: Kind = "tangent",
    fit_tokens: int = 10_000,
    tested: int = 20,
    max_tokens: int = 128,
    seed: int = 0,
    resamples: int = 1000,
    progress: Callable[[int, int, str], None] | None = None,
) -> Reduction:
    """Run a model with k affine maps in one MLP's place, for several k, beside the controls.

    Args:
        model: with a next token.
        documents: texts; some are tested, drawn by seed, the others are fitted on.
        layer: whose MLP.
        ks: how many maps.
        kind: tangent or secant maps.
        fit_tokens: at most; the last stretch is whole.
        tested: documents, 2 or more, at most half of all.
        max_tokens: of a stretch; a tested document's first, of the others as many as are needed.
        seed: of every random choice.
        resamples: bootstrap resamples of documents.
        progress: told `(done, total, what)`.

    Raises:
        PolytopeError: a model without logits, a mixture of experts, too few documents, k beyond a third of the fitting
            tokens, a number that is too small.

    Examples:
        >>> import polytope_lm as plm
        >>> from polytope_lm.geometry.reduction import reduction
        >>> found = reduction(
        ...     plm.load("tiny-relu"), list(plm.documents("sample"))[:8], 1, ks=[1, 4], tested=2, max_tokens=24,
        ...     resamples=20,
        ... )
        >>> found.arm("own map").lost.value < 1e-4 < found.removed.value
        True

    """
    if not model.has_logits:
        raise PolytopeError(f"{model.name} has no next-token distribution, so no loss: give a causal model with a head")
    _checked(ks, fit_tokens=(fit_tokens, 1), tested=(tested, 2), max_tokens=(max_tokens, _LEAST_TOKENS))
    Weights.of(model, layer)  # Where the layer has no map it says so, before anything is read.
    fitted, windows = _split(model, documents, tested=tested, max_tokens=max_tokens, fit_tokens=fit_tokens, seed=seed)
    total = sum(len(ids) - 1 for ids in fitted)
    most = max(1, total // PER_MAP)
    wrong = [k for k in ks if isinstance(k, bool) or not isinstance(k, int | np.integer) or not 1 <= k <= most]
    if wrong or not len(ks):
        raise PolytopeError(
            f"ks={brief(list(ks))}: give numbers from 1 to {most:,}, at least {PER_MAP} for each map of the {total:,} "
            "tokens that maps are fitted on; or raise fit_tokens, with documents enough"
        )
    said = progress or (lambda _done, _total, _what: None)
    said(0, len(windows), f"layer {layer}: fitting {total:,} maps")
    arms = _arms(model, layer, fitted, sorted({int(k) for k in ks}), kind, seed)
    sums = []
    for number, ids in enumerate(windows):
        said(number, len(windows), f"layer {layer}: testing")
        clean = run_clean(model, [layer], torch.as_tensor(ids, device=model.device))
        own, _ = scores(clean.out, clean, model)
        rows = [Row(_alone(arm), name in {LINEAR, ABLATED}) for (name, _), arm in arms.items()]
        sums.append((len(ids) - 2, own, *(scores(o, clean, model)[0] for o in run_rows(model, [layer], clean, rows))))
    said(len(windows), len(windows), f"layer {layer}")
    return _result(model, layer, kind, list(arms), np.array(sums, float), total, seed, resamples)


def _checked(ks: object, **counts: tuple[object, int]) -> None:
    """Refuse `ks` that are no list, and a count that is below its least."""
    if not isinstance(ks, Iterable):
        raise PolytopeError(f"ks={brief(ks)}: give several numbers of maps, such as [1, 10, 100]")
    for name, (value, least) in counts.items():
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise PolytopeError(f"{name}={brief(value)}: give a whole number from {least}")


def _split(
    model: Model, documents: Sequence[Document | str], *, tested: int, max_tokens: int, fit_tokens: int, seed: int
) -> tuple[list[Int[np.ndarray, " _"]], list[Int[np.ndarray, " _"]]]:
    """Return the windows to fit on, documents' first ones first, and those to test, one a document."""
    from polytope_lm.documents import Document as Given  # noqa: PLC0415 - only here

    given = [Given(id=str(i), text=each) if isinstance(each, str) else each for i, each in enumerate(documents)]
    cut = Windowing(parse_rule("all"), min(model.context_length, max_tokens), 0, model.bos, causal=model.causal)
    by: dict[int, list[Int[np.ndarray, " _"]]] = {}
    for window in cut.apply(given, 0, model.tokenizer).windows:
        if len(window.input_ids) >= _LEAST_TOKENS:
            by.setdefault(window.document, []).append(np.asarray(window.input_ids))
    if len(by) < _LEAST_DOCUMENTS:
        raise PolytopeError(
            f"{len(by)} documents of at least {_LEAST_TOKENS} tokens; at least {_LEAST_DOCUMENTS} are needed, half "
            "of them to fit on: give more"
        )
    order = np.random.default_rng(derived(seed, Purpose.REDUCTION)).permutation(sorted(by))
    chosen = order[: min(tested, len(order) // 2)]
    others = [by[number] for number in order[len(chosen) :]]
    fitted: list[Int[np.ndarray, " _"]] = []
    total = 0
    for nth in range(max(map(len, others))):
        for windows in others:
            if nth < len(windows) and total < fit_tokens:
                fitted.append(windows[nth])
                total += len(windows[nth]) - 1
    return fitted, [by[number][0] for number in chosen]


Arm = Callable[[Mlp], Tensor]


def _alone(arm: Arm) -> Callable[[int, Mlp], Tensor]:
    """Return an arm as a row of one layer has it."""
    return lambda _layer, mlp: arm(mlp)


@torch.no_grad()
def _arms(
    model: Model, layer: int, fitted: Sequence[Int[np.ndarray, " _"]], ks: Sequence[int], kind: Kind, seed: int
) -> dict[tuple[str, int], Arm]:
    """Fit every arm; each makes `post`, or the output, of one sequence's MLP."""
    u = inputs_of(model, fitted, layer)
    block = model.block(layer)
    mlp = mlp_of(block, u)
    found = maps_at(model, layer, u, kind)
    rng = np.random.default_rng(derived(seed, Purpose.REDUCTION, 1))
    middle = u.float().mean(0)
    ways: dict[str, Callable[[Mlp], Tensor]] = {
        CODE: lambda m: (m.h > 0).float(),
        COSINE: lambda m: torch.nn.functional.normalize(m.u.float() - middle, dim=-1),
        VECTOR: lambda m: m.u.float(),
    }
    arms: dict[tuple[str, int], Arm] = {}
    for k in ks:
        turns = ITERATIONS if k <= MANY else FEWER
        centres = reduce(found, k, seed=derived(seed, Purpose.REDUCTION, 2), iterations=turns)
        arms[MAPS, k] = _by_map(model, centres)
        shuffled = rng.permutation(centres.labels)
        groups = Centres(found.means(shuffled, k), centres.sizes, shuffled)
        arms[RANDOM, k], arms[NEAREST, k] = _at_random(groups, rng), _by_map(model, groups)
        for name, points in ways.items():
            start = derived(seed, Purpose.REDUCTION, 2)
            labels = k_means(points(mlp).cpu().numpy(), k, seed=start, iterations=turns)
            arms[name, k] = _by_point(found.means(labels, k), _means(points(mlp), labels, k), points)
    out = block.down.forward(mlp.post)
    weight, bias, _ = ridge(u.float().cpu().numpy(), out.float().cpu().numpy(), np.arange(len(u)) % 5 == 0)
    w, b = torch.from_numpy(weight).to(u), torch.from_numpy(bias).to(u)
    one, ablated = found.means(np.zeros(len(found), np.int64), 1), out.mean(0)
    arms[MEAN, 1] = one.post
    arms[LINEAR, 0] = lambda m: m.u @ w + b
    arms[QUADRATIC, 0] = _quadratic(mlp)
    arms[OWN, 0] = lambda m: maps_at(model, layer, m.u, kind).post(m)
    arms[ABLATED, 0] = lambda m: ablated.expand(len(m.u), -1)
    return arms


def _by_map(model: Model, centres: Centres) -> Arm:
    layer, kind = centres.maps.layer, centres.maps.kind
    return lambda m: centres.maps[centres.nearest(maps_at(model, layer, m.u, kind))].post(m)


def _at_random(groups: Centres, rng: np.random.Generator) -> Arm:
    share = groups.sizes / groups.sizes.sum()
    return lambda m: groups.maps[rng.choice(len(share), len(m.u), p=share)].post(m)


def _by_point(groups: Maps, centres: Tensor, points: Callable[[Mlp], Tensor]) -> Arm:
    return lambda m: groups[torch.cdist(points(m), centres).argmin(dim=1)].post(m)


def _means(points: Tensor, labels: Int[np.ndarray, " n"], k: int) -> Tensor:
    which = torch.as_tensor(labels, device=points.device)
    sums = points.new_zeros(k, points.shape[1]).index_add_(0, which, points)
    return sums / torch.bincount(which, minlength=k).clamp(min=1)[:, None]


def _quadratic(mlp: Mlp) -> Arm:
    """Fit `post` of each neuron by a quadratic in its own pre-activations."""

    def terms(m: Mlp) -> Tensor:
        one, h = torch.ones_like(m.h), m.h
        parts = [one, h, h * h] if m.up is None else [one, h, m.up, h * h, h * m.up, m.up * m.up]
        return torch.stack(parts, dim=-1)

    n, size = (
        mlp.h.shape[1],
        len(terms(Mlp(mlp.u[:1], mlp.h[:1], None if mlp.up is None else mlp.up[:1], mlp.post[:1]))[0, 0]),
    )
    gram, moments = torch.zeros(n, size, size, dtype=torch.float64), torch.zeros(n, size, dtype=torch.float64)
    for start in range(0, len(mlp.h), 1024):
        part = slice(start, start + 1024)
        here = terms(Mlp(mlp.u[part], mlp.h[part], None if mlp.up is None else mlp.up[part], mlp.post[part])).double()
        gram += torch.einsum("tnp,tnq->npq", here, here).cpu()
        moments += torch.einsum("tnp,tn->np", here, mlp.post[part].double()).cpu()
    scale = gram.diagonal(dim1=1, dim2=2).clamp(min=1e-30).sqrt()  # terms of one size, so that the solution is stable
    normal = gram / (scale[:, :, None] * scale[:, None]) + 1e-8 * torch.eye(size, dtype=torch.float64)
    solved = torch.linalg.solve(normal, (moments / scale)[..., None])[..., 0] / scale
    coefficients = solved.to(mlp.h.device, torch.float32)
    return lambda m: (terms(m) * coefficients).sum(-1)


def _result(
    model: Model, layer: int, kind: Kind, names: list[tuple[str, int]], sums: Float[np.ndarray, "P _"], fitted: int,
    seed: int, resamples: int,
) -> Reduction:  # fmt: skip
    """Return the losses with their intervals from the documents' sums: tokens, clean loss, and each arm's."""
    times = resampled(np.arange(len(sums)), resamples, seed=derived(seed, Purpose.REDUCTION, 3))
    whole = np.concatenate([np.ones((1, len(sums))), times]) @ sums
    beyond = (whole[:, 2:] - whole[:, [1]]) / whole[:, [0]]
    removed = beyond[:, names.index((ABLATED, 0))]
    ratio = removed[0] >= LEAST and removed.min() > 0
    arms = []
    for column, (name, k) in enumerate(names):
        lost = beyond[:, column]
        share = 1 - lost / removed
        recovered = Resampled(share[0], share[1:]).by_percentiles() if ratio else None
        arms.append(ArmLoss(name, k, recovered, Resampled(lost[0], lost[1:]).by_percentiles()))
    return Reduction(
        site=model.site(layer), maps=kind, clean=float(whole[0, 1] / whole[0, 0]),
        removed=Resampled(removed[0], removed[1:]).by_percentiles(), arms=tuple(arms), fitted=fitted,
        tested=int(whole[0, 0]), documents=len(sums), seed=seed, provenance=dict(model.provenance),
        versions=versions("numpy", "torch", "transformers", "scikit-learn"), command="",
    )  # fmt: skip
