"""Which tokens are compared: labelled ones, by seed, without repeated documents and attention sinks.

A first-position token without BOS attends to itself alone and has a norm of its own in many models (an
attention sink): left in, sinks make a cluster that any representation finds. They are counted and left out.
Scores of pairs look at all tokens of a grouping, or at as many of them as they can afford.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from polytope_lm.codes.overview import first_positions
from polytope_lm.errors import PolytopeError
from polytope_lm.seeds import Purpose, derived
from polytope_lm.statistics.estimate import effective_number
from polytope_lm.statistics.neighbours import has_neighbours
from polytope_lm.statistics.nulls import NOISE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Int

    from polytope_lm.codes.codes import TokenCodes
    from polytope_lm.statistics.similarity import PairScore

NOT_LABELS = frozenset({"document", "position", "start", "end", "token_id", "token"})
FULL_K, TOKENS_PER_CLUSTER = 100, 60
PER_DOCUMENT = 20
"""Tokens of one document that are compared at most, so that few documents do not carry the sample."""

EXCLUDED = ("lemma", "form", "token", "document")
"""Strict neighbours share none of these, in the order of the columns of `Sample.groups`."""

MIN_SHARE = 0.05
"""Least share of tokens with enough allowed neighbours (or one of their label): below, agreement is nearly 0
by construction, whatever the representation."""


@dataclass(frozen=True)
class SampleSummary:
    """Which tokens were compared, and which were not.

    Attributes:
        tokens: tokens compared.
        documents: documents that they come from.
        available: tokens in the codes.
        repeated_documents: documents left out because an earlier one has the same text.
        first_position: first-position tokens without BOS (attention sinks) left out of the scores.
        without_label: tokens left out because they have no label.
        not_sampled: eligible tokens beyond the limits `per_document` and `tokens`.
        label_counts: tokens of each label value.
        effective: Kish's number of documents, `(sum n)^2 / sum n^2`; None in files of earlier versions.

    """

    tokens: int
    documents: int
    available: int
    repeated_documents: int
    first_position: int
    without_label: int
    not_sampled: int
    label_counts: Mapping[str, int]
    effective: float | None = None


@dataclass(frozen=True)
class Sample:
    """The compared tokens, as integer ids ready for the kernels.

    Neighbours that share one of `groups` (lemma, form, token, document; -1 for none) do not count. `form` and
    `lemma` say where these come from: `label form`, or `surface`. Documents are numbered from 0.
    """

    rows: Int[np.ndarray, " n"]
    labels: Int[np.ndarray, " n"]
    token: Int[np.ndarray, " n"]
    documents: Int[np.ndarray, " n"]
    groups: Int[np.ndarray, "n 4"]
    form: str
    lemma: str
    summary: SampleSummary


def layers_of(codes: TokenCodes, layer: int | Sequence[int] | str | None) -> tuple[int, ...]:
    """Return the layers that were asked for, each of them captured; None and `all`: every one."""
    if layer is None or isinstance(layer, str):
        return codes.layers
    several = (layer,) if isinstance(layer, int) else np.atleast_1d(layer)
    wanted = tuple(dict.fromkeys(int(index) for index in several))
    for index in wanted:
        if index not in codes.layers:
            there = ", ".join(map(str, codes.layers))
            raise PolytopeError(f"layer {index} is not in these codes; captured layers: {there}")
    return wanted


def label_names(codes: TokenCodes) -> list[str]:
    """Return the labels that these codes have."""
    return [str(name) for name in codes.tokens.columns if name not in NOT_LABELS]


def check_label(codes: TokenCodes, label: str, purpose: str = "") -> None:
    """Refuse a label that these codes do not have."""
    if label not in label_names(codes):
        there = ", ".join(map(repr, label_names(codes))) or "none"
        raise PolytopeError(f"no label {label!r}{purpose}; these codes have {there}")


def choose(
    codes: TokenCodes,
    label: str,
    *,
    tokens: int,
    seed: int,
    also: Sequence[str] = (),
    per_document: int | None = PER_DOCUMENT,
) -> Sample:
    """Choose the tokens to compare: some of those that have the label and those of `also`, by seed.

    At most `per_document` of each document (None: all), and of these at most `tokens`.
    """
    table = codes.tokens
    for name in (label, *also):
        check_label(codes, name)
    repeated = repeated_documents(codes.texts)
    fresh = ~np.isin(table["document"].to_numpy(), np.fromiter(repeated, dtype=np.int64))
    inside = fresh & ~first_positions(codes)
    labelled = table[list(dict.fromkeys((label, *also)))].notna().to_numpy().all(axis=1)
    rows = np.flatnonzero(inside & labelled)
    eligible = len(rows)
    rng = np.random.default_rng(derived(seed, Purpose.TOKENS))
    if per_document is not None:
        rows = rows[capped(table["document"].to_numpy()[rows], per_document, rng)]
    if len(rows) > tokens:
        rows = np.sort(rng.choice(rows, size=tokens, replace=False))
    values = table[label].iloc[rows].astype(str)
    if values.nunique() < 2:
        found = f"one value, {values.iloc[0]!r}," if len(values) else "no value"
        lost = table[label][inside & labelled].nunique() > 1
        cure = f"take more of each document (now {per_document}) or more in all" if lost else "choose another label"
        raise PolytopeError(
            f"label {label!r} has {found} among {len(rows)} tokens; a grouping needs two values, {cure}"
        )
    documents = pd.factorize(table["document"].iloc[rows])[0].astype(np.int32)
    summary = SampleSummary(
        tokens=len(rows),
        documents=int(table["document"].iloc[rows].nunique()),
        available=len(table),
        repeated_documents=len(repeated),
        first_position=int((fresh & ~inside).sum()),
        without_label=int((inside & ~labelled).sum()),
        not_sampled=eligible - len(rows),
        label_counts=dict(sorted(Counter(values).items())),
        effective=effective_number(documents),
    )
    table = table.iloc[rows]
    surface = table["token"].astype(str).str.strip().str.casefold()
    form, form_from = _words(table, "form", surface)
    lemma, lemma_from = _words(table, "lemma", surface)
    token = table["token_id"].to_numpy().astype(np.int32)
    groups = np.stack([lemma, form, token, documents], axis=1).astype(np.int32)
    labels = pd.factorize(values, sort=True)[0].astype(np.int32)
    return Sample(rows, labels, token, documents, groups, form_from, lemma_from, summary)


def capped(documents: Int[np.ndarray, " n"], most: int, rng: np.random.Generator) -> Int[np.ndarray, " m"]:
    """Return the places of at most so many rows of each document, drawn at random, ascending."""
    if most < 1:
        raise PolytopeError(f"per_document = {most} leaves no token; give 1 or more, or None for all")
    order = np.lexsort((rng.random(len(documents)), documents))
    _, first, sizes = np.unique(documents[order], return_index=True, return_counts=True)
    rank = np.arange(len(order)) - np.repeat(first, sizes)
    return np.sort(order[rank < most])


def check_neighbours(codes: TokenCodes, sample: Sample, label: str, k: int) -> None:
    """Refuse what strict neighbour agreement can not be a score of, before anything is clustered.

    That is: (nearly) no token has k allowed neighbours at all, or (nearly) none has one with its own label,
    because the label says which lemma, form, token or document it is.
    """
    any_label, own_label = has_neighbours(sample.groups, sample.labels, k)
    if any_label.mean() < MIN_SHARE:
        form = sample.form.removeprefix("label ")
        words = codes.tokens["form" if form == "form" else "token"].iloc[sample.rows].astype(str).str.strip()
        if any((sample.groups[:, column] == sample.groups[0, column]).all() for column in range(3)):
            raise PolytopeError(
                f"every labelled token is the word {words.iloc[0]!r}, so no neighbour of another word exists; "
                "strict neighbour agreement needs several words: capture several words' files together, with a "
                "label that they share"
            )
        raise PolytopeError(
            f"only {int(any_label.sum())} of {len(sample.rows)} tokens have {k} strict neighbours (another lemma, "
            "form, token and document); add documents with other words"
        )
    if own_label.mean() >= MIN_SHARE:
        return
    for column, name in enumerate(EXCLUDED):
        pairs = np.unique(np.stack([sample.labels, sample.groups[:, column]], axis=1), axis=0)
        if len(pairs) == len(np.unique(sample.labels)):  # all tokens of one label value share their group
            raise PolytopeError(
                f"strict neighbours exclude tokens of the same {name}, so agreement with {label!r} cannot "
                "exist; choose another label"
            )
    raise PolytopeError(
        f"only {int(own_label.sum())} of {len(own_label)} tokens have a strict neighbour (another lemma, "
        f"form, token and document) with the same {label!r}; choose a label that several words and documents "
        "share"
    )


def clusters_for(tokens: int) -> int:
    """Return the protocol's k: 100, or n/60 below 6,000 tokens, at least 2."""
    return max(2, min(FULL_K, tokens // TOKENS_PER_CLUSTER))


def _words(table: pd.DataFrame, name: str, surface: pd.Series) -> tuple[Int[np.ndarray, " n"], str]:
    """Return ids of the label `name`, case folded, or of the surface where there is no such label."""
    if name not in table.columns:
        return pd.factorize(surface)[0], "surface"
    words = table[name].str.casefold().where(table[name].notna(), surface)
    return pd.factorize(words)[0], f"label {name}"


def repeated_documents(texts: Sequence[str]) -> set[int]:
    """Return the documents whose text an earlier one has."""
    return set(np.flatnonzero(pd.Series(list(texts), dtype=object).duplicated()).tolist())


def rows_of(
    codes: TokenCodes, groups: Int[np.ndarray, " n"], rows: Int[np.ndarray, " n"] | None
) -> Int[np.ndarray, " n"]:
    """Return the rows in the codes that group ids speak of: all of them where none are named."""
    found = np.arange(len(codes)) if rows is None else np.asarray(rows)
    if len(found) != len(groups):
        raise PolytopeError(
            f"{len(groups)} group ids for {len(found)} tokens; give one a token (-1 for noise), or say rows="
        )
    if len(found) and (int(found.min()) < 0 or int(found.max()) >= len(codes)):
        raise PolytopeError(
            f"rows from {int(found.min())} to {int(found.max())}, and these codes have {len(codes)} tokens; "
            "give rows of these codes"
        )
    return found


def rows_of_table(codes: TokenCodes, table: pd.DataFrame) -> Int[np.ndarray, " n"]:
    """Return the rows in the codes that a result's table of tokens speaks of; refuse other codes."""
    rows = table["row"].to_numpy().astype(np.int64)
    same = len(rows) > 0 and int(rows.max()) < len(codes)
    if same:
        here = codes.tokens.iloc[rows]
        ids = [str(codes.ids[int(each)]) for each in here["document"]]
        same = ids == table["document"].tolist()
        same = same and bool((here["position"].to_numpy() == table["position"].to_numpy()).all())
    if not same:
        raise PolytopeError(
            f"this result's {len(rows)} tokens are not in these codes; give the codes that it was made from"
        )
    return rows


def affordable(groups: Int[np.ndarray, " n"], tokens: int, seed: int) -> Int[np.ndarray, " m"]:
    """Return indices of at most so many tokens that are in a group, drawn at random, ascending."""
    if tokens < 2:
        raise PolytopeError(f"tokens = {tokens} makes no pair; at least 2 are needed, 1,000 is the default")
    inside = np.flatnonzero(groups != NOISE)
    if len(inside) > tokens:
        rng = np.random.default_rng(derived(seed, Purpose.PAIRS))
        inside = np.sort(rng.choice(inside, size=tokens, replace=False))
    return inside


def of_all(score: PairScore, groups: Int[np.ndarray, " n"], chosen: int) -> PairScore:
    """Return a score of some of the tokens with the noise of all, and how many were not drawn."""
    noise = int((groups == NOISE).sum())
    return replace(score, noise=noise, beyond=len(groups) - noise - chosen)


def documents_and_words(
    codes: TokenCodes, rows: Int[np.ndarray, " n"]
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Return each token's document and vocabulary id."""
    table = codes.tokens.iloc[rows]
    return table["document"].to_numpy().astype(np.int64), table["token_id"].to_numpy().astype(np.int64)
