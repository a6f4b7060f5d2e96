"""What 48 to 384 bytes a token buy: codes beside SimHash, product quantisation and RaBitQ of the same vectors.

The vectors are `h` of one layer, at the last token of the ambiguous words (CoarseWSD-20) of a directory of the user's.
Kept of a token are so many bytes; both sides of a comparison are what was kept (RaBitQ's queries are float32). Two
uses: recall@10, the share of a token's 10 nearest by the centred cosine of the float32 `h` (4N bytes) that are among
the 10 nearest by what was kept, over all tokens of other sentences; and sense accuracy, whether the nearest other use
of the same word has its sense, macro over words. What a scheme has to learn (means, scales, centroids, which neurons)
it learns on half of the sentences of each word; all figures are of the other half.

| scheme | B bytes are |
|---|---|
| code, top bits by margin | signs of the 8B neurons with the largest mean `abs(h_i)` over their deviation; Hamming |
| code, evenest bits | signs of the 8B neurons whose firing rate is nearest to one half; Hamming |
| code, random bits | signs of 8B random neurons; Hamming |
| sign and magnitude | 4B neurons by margin, two bits each: sign, `abs(h_i)` above its side's median; cosine of means |
| SimHash | 8B random hyperplanes through the centre; Hamming |
| product quantisation | faiss, B subquantisers of 8 bits, of the centred unit vectors; cosine of what is decoded |
| RaBitQ | faiss, 1 to 4 bits for as many principal directions as B bytes hold; its own estimate of the distance |

    python -m analyses.bytes_against_use --data DATA --out DIR [--model NAME] [--layers 4] [--sentences 200]

    python -m analyses.report_picture DIR/figure.html docs/pictures/bytes-against-use.png --width 1120 --height 490

DIR/result.json, DIR/figure.html. Intervals: 95 %, bootstrap over sentences, and over draws where there are such. Scores
are kept, texts are not. Needs faiss (the extra `dev`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import polytope_lm as plm
from analyses._corpora import ambiguous_words
from analyses._running import asked, run, write_json
from polytope_lm.codes.hamming import hamming
from polytope_lm.errors import PolytopeError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    import plotly.graph_objects as go
    from jaxtyping import Bool, Float, Int

    Scheme = Callable[[Float[np.ndarray, "F N"], Float[np.ndarray, "T N"], int, int], Float[np.ndarray, "T T"] | None]

BUDGETS = (48, 96, 192, 384)
K = 10
DRAWS = 5
FLOAT = "cosine of h, centred, float32"


def _margins(h: Float[np.ndarray, "F N"]) -> Float[np.ndarray, " N"]:
    """Return each neuron's margin, its mean distance from its boundary over its standard deviation."""
    return np.abs(h).mean(0) / np.maximum(h.std(0), 1e-12)


def _signs(h: Float[np.ndarray, "T N"], chosen: Int[np.ndarray, " M"]) -> Float[np.ndarray, "T T"]:
    packed = hamming.pack(h[:, chosen] > 0)
    return hamming.distances(packed, packed).astype(np.float32)


def _cosine(vectors: Float[np.ndarray, "T N"]) -> Float[np.ndarray, "T T"]:
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return (1 - unit @ unit.T).astype(np.float32)


def top_bits(
    fit: Float[np.ndarray, "F N"], h: Float[np.ndarray, "T N"], budget: int, _seed: int
) -> Float[np.ndarray, "T T"] | None:
    """Signs of the neurons with the largest margin."""
    if 8 * budget > h.shape[1]:
        return None
    return _signs(h, np.argsort(-_margins(fit), kind="stable")[: 8 * budget])


def even_bits(
    fit: Float[np.ndarray, "F N"], h: Float[np.ndarray, "T N"], budget: int, _seed: int
) -> Float[np.ndarray, "T T"] | None:
    """Signs of the neurons that are on most nearly as often as off."""
    if 8 * budget > h.shape[1]:
        return None
    return _signs(h, np.argsort(np.abs((fit > 0).mean(0) - 0.5), kind="stable")[: 8 * budget])


def random_bits(
    _fit: Float[np.ndarray, "F N"], h: Float[np.ndarray, "T N"], budget: int, seed: int
) -> Float[np.ndarray, "T T"] | None:
    """Signs of random neurons."""
    if 8 * budget > h.shape[1]:
        return None
    return _signs(h, np.random.default_rng(seed).permutation(h.shape[1])[: 8 * budget])


def sign_and_magnitude(
    fit: Float[np.ndarray, "F N"], h: Float[np.ndarray, "T N"], budget: int, _seed: int
) -> Float[np.ndarray, "T T"] | None:
    """Two bits a neuron, decoded as the mean of the four cells, less the neuron's mean."""
    if 4 * budget > h.shape[1]:
        return None
    chosen = np.argsort(-_margins(fit), kind="stable")[: 4 * budget]
    fit, h = fit[:, chosen], h[:, chosen]
    decoded = np.zeros_like(h)
    for side in (False, True):
        here = np.where((fit > 0) == side, np.abs(fit), np.nan)
        with np.errstate(all="ignore"):
            median = np.nan_to_num(np.nanmedian(np.where(np.isnan(here).all(0), 0.0, here), axis=0))
        for large in (False, True):
            members = ((fit > 0) == side) & ((np.abs(fit) > median) == large)
            mean = np.where(members, fit, 0).sum(0) / np.maximum(members.sum(0), 1)
            decoded = np.where(((h > 0) == side) & ((np.abs(h) > median) == large), mean, decoded)
    return _cosine(decoded - fit.mean(0))


def simhash(
    fit: Float[np.ndarray, "F N"], h: Float[np.ndarray, "T N"], budget: int, seed: int
) -> Float[np.ndarray, "T T"]:
    """Sides of random hyperplanes through the mean."""
    planes = np.random.default_rng(seed).standard_normal((h.shape[1], 8 * budget)).astype(np.float32)
    packed = hamming.pack((h - fit.mean(0)) @ planes > 0)
    return hamming.distances(packed, packed).astype(np.float32)


def _centred(
    fit: Float[np.ndarray, "F N"], h: Float[np.ndarray, "T N"]
) -> tuple[Float[np.ndarray, "F N"], Float[np.ndarray, "T N"]]:
    """Return both as unit vectors from the mean of the first."""
    both = [vectors - fit.mean(0) for vectors in (fit, h)]
    first, second = (v / np.maximum(np.linalg.norm(v, axis=1, keepdims=True), 1e-12) for v in both)
    return np.ascontiguousarray(first, np.float32), np.ascontiguousarray(second, np.float32)


def product_quantised(
    fit: Float[np.ndarray, "F N"], h: Float[np.ndarray, "T N"], budget: int, seed: int
) -> Float[np.ndarray, "T T"] | None:
    """Product quantisation by faiss, decoded."""
    import faiss  # noqa: PLC0415 - an extra's

    if h.shape[1] % budget or len(fit) < 256:
        return None
    train, vectors = _centred(fit, h)
    quantiser = faiss.ProductQuantizer(h.shape[1], budget, 8)
    quantiser.cp.seed, quantiser.cp.niter, quantiser.cp.min_points_per_centroid = seed, 15, 1
    quantiser.train(train)
    return _cosine(quantiser.decode(quantiser.compute_codes(vectors)))


def rabitq(
    fit: Float[np.ndarray, "F N"], h: Float[np.ndarray, "T N"], budget: int, seed: int
) -> Float[np.ndarray, "T T"] | None:
    """RaBitQ by faiss on the first principal directions, randomly rotated: its own estimate from the float vectors.

    Few bits for many directions, or more bits for fewer: what recalls the neighbours of the vectors to learn from best.
    """
    import faiss  # noqa: PLC0415 - an extra's

    train, vectors = _centred(fit, h)
    _, _, directions = np.linalg.svd(train, full_matrices=True)

    def estimated(rows: Float[np.ndarray, "n N"], bits: int, most: int) -> Float[np.ndarray, "n n"]:
        rotation = np.linalg.qr(np.random.default_rng(seed).standard_normal((most, most)))[0]
        basis = (directions[:most].T @ rotation).astype(np.float32)
        index, given = faiss.IndexRaBitQ(most, faiss.METRIC_L2, bits), np.ascontiguousarray(rows @ basis)
        index.train(np.ascontiguousarray(train @ basis))
        index.qb = 0  # queries as they are
        index.add(given)
        distances, places = index.search(given, len(given))
        out = np.empty_like(distances)
        np.put_along_axis(out, places, distances, axis=1)
        return out

    some = train[:300]
    near, choices = _nearest(_cosine(some)), {}
    for bits in range(1, 5):
        sizes = {d: faiss.IndexRaBitQ(d, faiss.METRIC_L2, bits).code_size for d in range(8, len(directions) + 1, 8)}
        if most := max((d for d, size in sizes.items() if size <= budget), default=0):
            choices[float(recalls(estimated(some, bits, most), near).mean())] = (bits, most)
    return estimated(vectors, *choices[max(choices)]) if choices else None


def _nearest(distance: Float[np.ndarray, "T T"]) -> Bool[np.ndarray, "T T"]:
    """Mark each row's K nearest others."""
    apart = distance.copy()
    np.fill_diagonal(apart, np.inf)
    near = np.zeros(apart.shape, bool)
    np.put_along_axis(near, np.argsort(apart, axis=1, kind="stable")[:, :K], values=True, axis=1)
    return near


SCHEMES: dict[str, tuple[Scheme, int]] = {
    "code, top bits by margin": (top_bits, 1),
    "code, evenest bits": (even_bits, 1),
    "code, random bits": (random_bits, DRAWS),
    "sign and magnitude": (sign_and_magnitude, 1),
    "SimHash": (simhash, DRAWS),
    "product quantisation": (product_quantised, 1),
    "RaBitQ": (rabitq, 1),
}
"""Each scheme and how many draws it has; None where so many bytes are more than it can use."""


@dataclass(frozen=True)
class Uses:
    """The tokens that are compared.

    Attributes:
        h: `[T, N]`.
        word: which word each is of, `[T]`.
        sense: which sense, `[T]`.

    """

    h: Float[np.ndarray, "T N"]
    word: Int[np.ndarray, " T"]
    sense: Int[np.ndarray, " T"]


def recalls(distance: Float[np.ndarray, "T T"], near: Bool[np.ndarray, "T T"]) -> Float[np.ndarray, " T"]:
    """Return for each token the share of its float neighbours that are among the K nearest by a distance."""
    apart = distance.copy()
    np.fill_diagonal(apart, np.inf)
    found = np.argsort(apart, axis=1, kind="stable")[:, :K]
    return np.asarray(np.take_along_axis(near, found, axis=1).mean(1))


def senses_right(distance: Float[np.ndarray, "T T"], uses: Uses) -> Float[np.ndarray, " T"]:
    """Return whether the nearest other use of the same word has the same sense."""
    apart = np.where(uses.word[:, None] == uses.word[None], distance, np.inf)
    np.fill_diagonal(apart, np.inf)
    return (uses.sense[apart.argmin(1)] == uses.sense).astype(np.float64)


def measured(uses: Uses, fit: Float[np.ndarray, "F N"], resamples: int, seed: int) -> list[dict[str, Any]]:
    """Return a row a scheme and budget: recall and accuracy, each with its interval."""
    whole = _cosine(uses.h - fit.mean(0))
    near = _nearest(whole)
    rows = [_row(FLOAT, 4 * uses.h.shape[1], [whole], near, uses, resamples, seed)]
    for name, (scheme, draws) in SCHEMES.items():
        for budget in BUDGETS:
            found = [scheme(fit, uses.h, budget, seed + draw) for draw in range(draws)]
            distances = [each for each in found if each is not None]
            if distances:
                rows.append(_row(name, budget, distances, near, uses, resamples, seed))
                print(f"{name}, {budget} bytes: recall {rows[-1]['recall'][0]:.3f}, sense {rows[-1]['sense'][0]:.3f}")
    return rows


def _row(
    name: str, budget: int, distances: Sequence[Float[np.ndarray, "T T"]], near: Bool[np.ndarray, "T T"], uses: Uses,
    resamples: int, seed: int,
) -> dict[str, Any]:  # fmt: skip
    recall = np.stack([recalls(each, near) for each in distances])
    sense = np.stack([senses_right(each, uses) for each in distances])
    words = [np.flatnonzero(uses.word == word) for word in np.unique(uses.word)]

    def macro(values: Float[np.ndarray, " T"], rows: Sequence[Int[np.ndarray, " t"]]) -> float:
        return float(np.mean([values[chosen].mean() for chosen in rows]))

    rng = np.random.default_rng([seed, 1])
    drawn: list[tuple[float, float]] = []
    for _ in range(resamples):
        draw = rng.integers(len(distances))
        chosen = [rng.choice(rows, len(rows)) for rows in words]  # a sentence has one use: the sentence is the unit
        drawn.append((float(recall[draw, np.concatenate(chosen)].mean()), macro(sense[draw], chosen)))
    spread = np.quantile(np.array(drawn), [0.025, 0.975], axis=0)
    values = (float(recall.mean()), float(np.mean([macro(each, words) for each in sense])))
    both = [[values[i], float(spread[0, i]), float(spread[1, i])] for i in range(2)]
    return {"scheme": name, "bytes": budget, "recall": both[0], "sense": both[1], "draws": len(distances)}


@dataclass(frozen=True)
class Found:
    """What is kept of a run."""

    command: str
    model: str
    layer: int
    width: int
    tokens: int
    fitted: int
    words: int
    majority: float
    rows: list[dict[str, Any]]


def figure(found: Found) -> go.Figure:
    """Draw recall and sense accuracy against bytes, a line a scheme, the float vectors as a level."""
    import plotly.graph_objects as go  # noqa: PLC0415 - slow to import
    from plotly.subplots import make_subplots  # noqa: PLC0415

    from polytope_lm.plotting import COLOURS, INK, RULE  # noqa: PLC0415

    whole = next(row for row in found.rows if row["scheme"] == FLOAT)
    level = f"sense of the nearest other use, accuracy (dots: float32, {whole['bytes']:,} bytes)"
    titles = (f"recall of the {K} float neighbours", level)
    drawn = make_subplots(cols=2, subplot_titles=titles, horizontal_spacing=0.09)
    dashes = ("dot", "solid", "dash", "solid", "dash", "dashdot", "longdash")
    marks = ("circle-open", "circle", "circle-open-dot", "diamond", "square", "triangle-up", "x")
    for number, name in enumerate(SCHEMES):
        rows = [row for row in found.rows if row["scheme"] == name]
        if not rows:
            continue
        for column, key in enumerate(("recall", "sense"), 1):
            values = np.array([row[key] for row in rows])
            drawn.add_trace(
                go.Scatter(
                    x=[row["bytes"] * (1 + 0.02 * (number - 3)) for row in rows], y=values[:, 0], name=name,
                    showlegend=column == 1, mode="lines+markers",
                    line={"color": COLOURS[number], "dash": dashes[number], "width": 2},
                    marker={"symbol": marks[number], "size": 9},
                    error_y={"type": "data", "symmetric": False, "array": values[:, 2] - values[:, 0],
                             "arrayminus": values[:, 0] - values[:, 1], "thickness": 1, "width": 2},
                ),
                row=1, col=column,
            )  # fmt: skip
    drawn.add_hline(y=whole["sense"][0], line={"color": INK, "dash": "dot"}, row=1, col=2)
    drawn.add_hline(y=found.majority, line={"color": RULE}, annotation_text="most frequent sense",
                    annotation_position="bottom right", row=1, col=2)  # fmt: skip
    drawn.update_xaxes(type="log", tickvals=list(BUDGETS), title="bytes a token and layer", range=[1.6, 2.65])
    drawn.update_layout(
        template="plotly_white", width=1100, height=460, legend={"orientation": "h", "y": -0.2},
        title=f"{found.model}, layer {found.layer}, {found.width} neurons, {found.tokens:,} uses",
    )  # fmt: skip
    return drawn


def table(found: Found) -> str:
    """Return the figures as Markdown."""
    lines = ["| scheme | bytes | recall@10 | sense accuracy |", "|---|---|---|---|"]
    for row in found.rows:
        cells = [f"{v:.3f} [{low:.3f}, {high:.3f}]" for v, low, high in (row["recall"], row["sense"])]
        lines.append(f"| {row['scheme']} | {row['bytes']:,} | {cells[0]} | {cells[1]} |")
    return "\n".join(lines).replace(" 0.", " .").replace("[0.", "[.")


def own_options(parser: argparse.ArgumentParser) -> None:
    """Add what only this analysis asks."""
    parser.add_argument("--data", type=Path, required=True, help="directory with senses/WORD/")
    parser.add_argument("--sentences", type=int, default=200, help="of each word, at most (%(default)s)")
    parser.add_argument("--resamples", type=int, default=1000, help="of sentences (%(default)s)")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the analysis, write what it found, print its table."""

    def work() -> None:
        found = asked("bytes_against_use", __doc__, argv, own_options, models=("minilm-l6",), layers=None)
        given = found.given
        model = plm.load(found.models[0], device=found.given.device)
        layer = (found.layers or (model.n_layers // 2,))[0]
        documents = ambiguous_words(given.data, given.sentences, given.seed)
        codes = plm.encode(model, documents, layers=[layer], keep=("h",), tokens="word-final")
        rows = np.flatnonzero(codes.tokens["sense"].notna())
        labels = codes.tokens.iloc[rows]
        word, sense = (np.unique(labels[name], return_inverse=True)[1] for name in ("word", "sense"))
        order = np.random.default_rng([given.seed, 2]).permutation(len(rows))
        fitted = np.zeros(len(rows), bool)
        for each in np.unique(word):
            own = order[word[order] == each]
            fitted[own[: len(own) // 2]] = True
        if fitted.sum() < 2 or (~fitted).sum() <= K:
            raise PolytopeError(f"{len(rows)} uses of ambiguous words: give more than {2 * K}")
        h = codes.activations("h", layer)[rows]
        uses = Uses(h[~fitted], word[~fitted], sense[~fitted])
        shares = [np.bincount(uses.sense[uses.word == w]).max() / (uses.word == w).sum() for w in np.unique(uses.word)]
        kept = Found(
            found.command, model.name, layer, h.shape[1], len(uses.h), int(fitted.sum()), len(np.unique(word)),
            float(np.mean(shares)), measured(uses, h[fitted], given.resamples, given.seed),
        )  # fmt: skip
        write_json(given.out / "result.json", asdict(kept))
        ready = "document.documentElement.classList.add('ready')"
        page = figure(kept).to_html(include_plotlyjs=True, post_script=ready)
        given.out.joinpath("figure.html").write_text(page, encoding="utf-8")
        print(table(kept))

    run(work)


if __name__ == "__main__":
    main()
