"""What words alone would score: two controls that need no other representation of the tokens.

- *Labels permuted* among tokens of the same word in the same document: the code's own clusters against labels
  that know word and document but not the token in its context. Drawn several times.
- *Token identity*: each token takes the commonest label that its token has in *other* documents (the
  commonest label of all where it occurs in no other): the AMI that a lexicon reaches without any model. A
  lexicon makes no difference between strict neighbours, which are all other tokens, so they are drawn at
  random among those allowed: its agreement is the chance level of that score.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from polytope_lm.controls.labels import permuted_labels
from polytope_lm.errors import PolytopeError
from polytope_lm.inference.ami import resampled_ami
from polytope_lm.inference.neighbours import strict_neighbours
from polytope_lm.predictions.scoring import DEPTH, Layout, scores_of, summed_up
from polytope_lm.predictions.seeds import PERMUTED_LABELS, TIES, derived

if TYPE_CHECKING:
    from jaxtyping import Int

    from polytope_lm.predictions.sampling import Sample
    from polytope_lm.predictions.scoring import Measured, Task

LABELS_PERMUTED = "code, labels permuted in word and document"
TOKEN_IDENTITY = "token identity"  # noqa: S105 -- a token of text, no secret
NULLS = (LABELS_PERMUTED, TOKEN_IDENTITY)
DRAWS = 5

_WORD, _DOCUMENT = 1, 3
"""Columns of `Sample.groups`."""


def labels_permuted(code: Layout, task: Task) -> Measured:
    """Score the code's clusters against labels permuted among the tokens that share word and document.

    Args:
        code: what the code did with the tokens.
        task: its labels are permuted.

    Raises:
        PolytopeError: no label can move.

    """
    sample = task.sample
    within = sample.groups[:, _WORD], sample.groups[:, _DOCUMENT]
    drawn = [
        permuted_labels(sample.labels, *within, seed=derived(task.seed, PERMUTED_LABELS, number))
        for number in range(DRAWS)
    ]
    if drawn[0].movable == 0:
        msg = "no label can move: tokens of one word in one document all have the same; choose another label"
        raise PolytopeError(msg)
    draws = np.stack([scores_of(code, task, each.values) for each in drawn])
    isolates = (
        f"the null of these very data: {drawn[0].movable:,} of {len(sample.labels):,} labels could move, the "
        "others are alike within word and document"
    )
    return summed_up((LABELS_PERMUTED, "control", isolates), code, draws, task)


def token_identity(task: Task) -> Measured:
    """Score what the token alone says: its commonest label elsewhere, and neighbours drawn at random.

    Args:
        task: tokens, labels and halves.

    """
    sample = task.sample
    n = len(sample.labels)
    at_random = np.random.default_rng(derived(task.seed, TIES)).random((n, n), dtype=np.float32)
    near = strict_neighbours(at_random, sample.groups, DEPTH * task.neighbours)
    shown = near[:, : task.neighbours]
    away = np.where(shown < 0, np.nan, 1).astype(np.float32)
    guesses = majority_elsewhere(sample)
    lexical = resampled_ami(sample.token, guesses, task.with_whole)
    layout = Layout(guesses, near, away, lexical, "same token or not")
    isolates = "the lexicon alone: each token's commonest label in other documents, neighbours at random"
    draws = scores_of(layout, task, sample.labels)[None]
    return summed_up((TOKEN_IDENTITY, "control", isolates), layout, draws, task)


def majority_elsewhere(sample: Sample) -> Int[np.ndarray, " n"]:
    """Return each token's commonest label in other documents, the commonest of all where there is none.

    Ties go to the label that is commoner in the whole sample.

    Args:
        sample: tokens, labels, documents.

    """
    common = np.bincount(sample.labels)
    order = np.argsort(-common, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    here = rank[sample.labels]  # label 0 is the commonest, so that argmax breaks ties as it should
    token = np.unique(sample.token, return_inverse=True)[1]
    pair = np.unique(np.stack([token, sample.documents]), axis=1, return_inverse=True)[1].ravel()
    everywhere = np.zeros((token.max() + 1, len(common)), dtype=np.int64)
    inside = np.zeros((pair.max() + 1, len(common)), dtype=np.int64)
    np.add.at(everywhere, (token, here), 1)
    np.add.at(inside, (pair, here), 1)
    guesses: Int[np.ndarray, " n"] = order[(everywhere[token] - inside[pair]).argmax(axis=1)]
    return guesses.astype(np.int32)
