"""What the worlds of tokens share: documents whose tokens are alike, words without meaning, codes in memory.

Document correlation. A token takes its document's own label with probability `sqrt(c)`, and a label of its
own else, both from the same distribution. Two tokens of one document then both have the document's with
probability c: the intraclass correlation of every label's indicator is c.

World 1: the signs carry the meaning. A verdict other than *supported* is a miss.

Planted. 50 regions, each with a random prototype `s_r in {-1, 1}^N`. A token of region r has `h_i = s_i m_i`:
its signs are the prototype's, each flipped with probability `flip`; its magnitudes are lognormal with sigma
2, so heavy-tailed that a cosine sees only the few greatest of N coordinates. The weight is the identity, so
`u = h` and the boundaries are the coordinate planes.

A few regions are monosemantic: all of their tokens have one label, a or b in turn. The tokens of all others
take a or b at random. Labels have a document correlation (see `correlated`), regions none.

Truth. With the default 256 neurons and 2,000 tokens in 100 documents, k-medoids at k = 50 finds clusters
whose AMI with the label is ahead of the better cosine's, which is about .001, by `effect`. The number
of monosemantic regions sets it roughly, the flip rate finely: `FLIPS` is where the mean over 200 worlds (20
draws of the labels each) crossed the effect, with a standard error of .0006.

World 2: directions carry the meaning. *Supported* is a false positive.

Planted. Each label is a random centre in `u`-space, a token is its label's centre and Gaussian noise, and the
hyperplanes of the neurons are random. The code is then a noisy reading of the direction, with as much of the
meaning as any random hyperplanes have.

Truth. The code's clusters agree with the label (AMI some .3 at the defaults), the cosine's agree better or as
well, rate-matched SimHash as well: the code is ahead of neither.

World 3: the labels know nothing of the codes. *Supported* is a false positive, and so is *ahead of 0*.

Planted. Tokens fall into 50 regions, each a random centre in `u`-space, under random hyperplanes, so that
code, cosine and SimHash all find real clusters. Regions are as likely as each other, or as the i-th `1/i`
(Zipf): a difference of scores whose spread is misjudged when clusters differ in size shows here. Regions and
labels have the same intraclass correlation within documents, each from draws of its own, as clusters and labels
of real texts have: clusters then know documents, and a score that is adjusted for exchanging tokens alone is
above 0.

Truth. Counted from its own null, every representation's clusters have an expected AMI of 0 with the labels, and
its neighbours an expected agreement of 0: every difference is 0, and a 95 % interval excludes 0 in 5 % of worlds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from polytope_lm.codes.codes import Codes
from polytope_lm.errors import PolytopeError
from polytope_lm.models.sites import Premises, Site

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from jaxtyping import Float, Int


Sizes = Literal["equal", "zipf"]

WORDS = 300
"""Words, each as likely as the other and without any relation to regions or labels."""


def shares(count: int, sizes: Sizes) -> Float[np.ndarray, " count"]:
    """Return how likely each of `count` regions is: all alike, or the i-th as `1/i` (Zipf)."""
    if sizes not in {"equal", "zipf"}:
        raise PolytopeError(f"sizes = {sizes!r} of a world's regions; choose 'equal' or 'zipf'")
    weight = np.ones(count) if sizes == "equal" else 1 / np.arange(1, count + 1)
    out: Float[np.ndarray, " count"] = weight / weight.sum()
    return out


def documents_of(tokens: int, documents: int) -> Int[np.ndarray, " n"]:
    """Return the document of each token, as evenly as possible."""
    if not 1 <= documents <= tokens:
        raise PolytopeError(f"{tokens} tokens in {documents} documents; give every document of a world a token")
    return np.arange(tokens) * documents // tokens


def correlated(
    rng: np.random.Generator,
    document: Int[np.ndarray, " n"],
    share: Float[np.ndarray, " count"],
    correlation: float,
    shown: float = 1.0,
) -> Int[np.ndarray, " n"]:
    """Draw a label for each token, with that intraclass correlation within documents.

    Only the share `shown` of the tokens will keep these labels and the others know nothing of documents, so
    these get a correlation of `correlation / shown^2`.
    """
    if not 0 <= correlation <= 1:
        raise PolytopeError(f"document correlation = {correlation}; it goes from 0 to 1")
    home = rng.choice(len(share), int(document.max()) + 1, p=share)
    own = rng.random(len(document)) < np.sqrt(correlation) / shown
    drawn: Int[np.ndarray, " n"] = rng.choice(len(share), len(document), p=share)
    return np.where(own, home[document], drawn)


def _labelings(rng: np.random.Generator, labelings: int, seed: int) -> Iterator[tuple[str, np.random.Generator]]:
    """Return each labeling's column and the generator that draws it: the world's own first, then its own."""
    yield "label", rng
    for number in range(2, labelings + 1):
        yield f"label {number}", np.random.default_rng([seed, number])


def random_hyperplanes(rng: np.random.Generator, u: Float[np.ndarray, "n D"], width: int) -> Float[np.ndarray, "n N"]:
    """Return pre-activations of random hyperplanes on `u`, each with a bias of its own."""
    weight = rng.normal(size=(u.shape[1], width)) * np.sqrt(len(u) / (u**2).sum())
    out: Float[np.ndarray, "n N"] = u @ weight + 0.3 * rng.normal(size=width)
    return out


def planted_codes(
    rng: np.random.Generator,
    name: str,
    document: Int[np.ndarray, " n"],
    columns: Mapping[str, Int[np.ndarray, " n"]],
    u: Float[np.ndarray, "n D"],
    h: Float[np.ndarray, "n N"],
) -> Codes:
    """Return codes in memory with `u` and `h` kept, as a capture would give them.

    Documents ascend from 0; ids of a label column are written `NAME 3`.
    """
    table = _token_table(rng, document)
    for column, ids in columns.items():
        table[column] = pd.Series([f"{column} {i}" for i in ids], dtype="object")
    premises = Premises("piecewise affine", "relu", True, "none")
    site = Site(0, "pre", "blocks.0.mlp.hook_pre", h.shape[1], u.shape[1], premises)
    count = int(document.max()) + 1
    texts = [f"{i:04d} " + " ".join(table["token"].to_numpy()[document == i]) for i in range(count)]
    return Codes(
        sites=(site,),
        table=table,
        arrays={site.key: np.packbits(h > 0, axis=1, bitorder="little")},
        ids=[f"document {i}" for i in range(count)],
        texts=texts,
        kept=("u", "h"),
        provenance={"model": f"planted: {name}"},
        kept_arrays={f"{site.key}.u": u.astype(np.float32), f"{site.key}.h": h.astype(np.float32)},
    )


def _token_table(rng: np.random.Generator, document: Int[np.ndarray, " n"]) -> pd.DataFrame:
    """Return what a capture says of each token; words are drawn, each four characters and a space."""
    words = rng.integers(0, WORDS, len(document))
    # From 1: there is no attention sink here to leave out.
    position = 1 + np.arange(len(document)) - np.searchsorted(document, document)
    return pd.DataFrame(
        {
            "document": document,
            "position": position,
            "start": 5 * position,
            "end": 5 * position + 4,
            "token_id": words,
            "token": [f"w{word:03d}" for word in words],
        }
    )


MONOSEMANTIC = {0.02: 4, 0.04: 8}
"""Regions with one label, of `REGIONS`, for each true AMI difference."""

FLIPS = {0.02: 0.281, 0.04: 0.280}
"""Probability that a bit differs from its prototype's, for each true AMI difference."""

REGIONS = 50
SIGMA = 2.0


def code_world(
    effect: float = 0.04,
    *,
    tokens: int = 2000,
    documents: int = 100,
    width: int = 256,
    correlation: float = 0.1,
    labelings: int = 1,
    seed: int = 0,
) -> Codes:
    """Draw codes whose clusters are ahead of the cosine's in AMI with `label` by a known effect.

    Args:
        effect: the true difference in AMI at k = 50, 0.04 or 0.02; it holds for the default sizes.
        tokens: how many.
        documents: how many, of (nearly) equal lengths.
        width: N, the number of neurons.
        correlation: intraclass correlation of the labels within documents.
        labelings: how often labels are drawn for the same codes.
        seed: of everything.

    Returns:
        Codes of one site with labels `label` (0, 1), further ones `label 2` and so on, and `region` (the truth), `u`
        and `h` kept.

    Raises:
        PolytopeError: an effect that was not calibrated, or sizes that make no world.

    """
    if effect not in FLIPS:
        there = ", ".join(f"{each:g}" for each in FLIPS)
        raise PolytopeError(f"no code world with a true AMI difference of {effect}; choose among {there}")
    rng = np.random.default_rng(seed)
    document = documents_of(tokens, documents)
    region = rng.integers(0, REGIONS, tokens)
    mixed = 1 - MONOSEMANTIC[effect] / REGIONS
    columns = {
        name: np.where(
            region < MONOSEMANTIC[effect], region % 2,
            correlated(each, document, shares(2, "equal"), correlation, mixed),
        )
        for name, each in _labelings(rng, labelings, seed)
    }  # fmt: skip
    prototypes = rng.random((REGIONS, width)) < 0.5
    on = prototypes[region] ^ (rng.random((tokens, width)) < FLIPS[effect])
    h = np.where(on, 1.0, -1.0) * rng.lognormal(sigma=SIGMA, size=on.shape)
    columns["region"] = region
    return planted_codes(rng, f"code world, AMI ahead by {effect:g}", document, columns, h, h)


DIRECTION_LABELS = 8
DIRECTION_STRENGTH = 0.7
"""Standard deviation of the centres, where the noise has 1."""


def direction_world(
    *,
    tokens: int = 2000,
    documents: int = 100,
    width: int = 256,
    d_model: int = 24,
    correlation: float = 0.1,
    seed: int = 0,
) -> Codes:
    """Draw codes of random hyperplanes on inputs whose directions carry `label`.

    Args:
        tokens: how many.
        documents: how many, of (nearly) equal lengths.
        width: N, the number of random hyperplanes.
        d_model: D, the width of `u`.
        correlation: intraclass correlation of the labels within documents.
        seed: of everything.

    Returns:
        Codes of one site with the label `label`, `u` and `h` kept.

    Raises:
        PolytopeError: sizes that make no world.

    """
    rng = np.random.default_rng(seed)
    document = documents_of(tokens, documents)
    label = correlated(rng, document, shares(DIRECTION_LABELS, "equal"), correlation)
    centres = DIRECTION_STRENGTH * rng.normal(size=(DIRECTION_LABELS, d_model))
    u = centres[label] + rng.normal(size=(tokens, d_model))
    h = random_hyperplanes(rng, u, width)
    return planted_codes(rng, "direction world", document, {"label": label}, u, h)


NULL_LABELS = 2
NULL_STRENGTH = 1.0
"""Standard deviation of the centres, where the noise has 1."""


def null_world(
    sizes: Sizes = "equal",
    *,
    tokens: int = 2000,
    documents: int = 100,
    width: int = 256,
    d_model: int = 32,
    correlation: float = 0.1,
    labelings: int = 1,
    seed: int = 0,
) -> Codes:
    """Draw codes with real clusters and labels that are independent of them.

    Args:
        sizes: `equal` or `zipf`: how likely the regions are.
        tokens: how many.
        documents: how many, of (nearly) equal lengths.
        width: N, the number of random hyperplanes.
        d_model: D, the width of `u`.
        correlation: intraclass correlation within documents, of the labels and, independently, of the regions.
        labelings: how often labels are drawn for the same codes.
        seed: of everything.

    Returns:
        Codes of one site with labels `label` (independent), further ones `label 2` and so on, and `region` (planted),
        `u` and `h` kept.

    Raises:
        PolytopeError: another kind of sizes, or numbers that make no world.

    """
    rng = np.random.default_rng(seed)
    document = documents_of(tokens, documents)
    region = correlated(rng, document, shares(REGIONS, sizes), correlation)
    columns = {
        name: correlated(each, document, shares(NULL_LABELS, "equal"), correlation)
        for name, each in _labelings(rng, labelings, seed)
    }
    centres = NULL_STRENGTH * rng.normal(size=(REGIONS, d_model))
    u = centres[region] + rng.normal(size=(tokens, d_model))
    h = random_hyperplanes(rng, u, width)
    columns["region"] = region
    return planted_codes(rng, f"null world, {sizes} sizes", document, columns, u, h)
