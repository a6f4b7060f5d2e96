"""One seed becomes many: each random choice has its own stream, and neighbouring seeds share none.

With `seed + number` the draws 1 to 4 of seed 0 were the draws 0 to 3 of seed 1, so that a second seed was
hardly a second opinion.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np

from polytope_lm.errors import PolytopeError

if TYPE_CHECKING:
    from jaxtyping import Int64


class Purpose(IntEnum):
    """What a random stream is for: the one list of all. A value once given is kept, results depend on it."""

    TOKENS = 0  # which tokens are compared
    HALVES = 1  # which documents (or groups of pairs) a resample keeps
    PICKS = 2  # which draw of a random control moves a half
    MEDOIDS = 3  # first medoids
    REPRESENTATION = 4  # random controls that are representations
    PERMUTED_LABELS = 5  # labels permuted or exchanged
    TIES = 6  # neighbours drawn at random; the order that breaks ties
    WEIGHTS = 7  # clusters: weights permuted or drawn anew
    MAP = 8  # places on a map
    EXCHANGES = 9  # labels exchanged between documents, a score's own null
    ASKED = 10  # clusters: tokens whose neighbours are sought among very many
    SIDES = 11  # calibration: each half of a split is put to the test with a seed of its own
    ROUNDS = 12  # clusters: another measurement of a layer, all of its random choices anew
    EFFECTS = 40  # boundaries: folds, blocks, resamples
    PLANES = 41  # boundaries: rate-matched hyperplanes
    SHUFFLES = 42  # boundaries: labels permuted within groups
    PAIR_WEIGHTS = 43  # boundaries: weights permuted or drawn anew
    PAIRS = 100  # groups: tokens whose pairs are scored
    NULLS = 101  # groups: random groups
    SPLITS = 102  # groups: thirds of the documents
    ITEMS = 103  # groups: intruder items
    TOP_TOKENS = 110  # neurons: random groups of top tokens
    SENTENCES = 300  # senses: words and sentences of a resample
    SENSE_DRAWS = 301  # senses: which draw of a random control moves a resample
    DIRECTIONS = 400  # directions: which random directions and neurons
    PROMPTS = 401  # directions: prompts of a resample, folds
    DIRECTION_PLANES = 402  # directions: rate-matched hyperplanes
    REGIONS = 403  # directions: tokens' regions, halves of the documents
    TESTED_DOCUMENTS = 500  # determination: which documents are tested
    DONORS = 501  # determination: whose codes and magnitudes are taken
    DONOR_CLUSTERS = 502  # determination: clusters that donors come from, k-means of u
    BIT_PLANES = 503  # determination: rate-matched hyperplanes
    NUDGES = 602  # diff: weights changed at random
    DIFF_RESAMPLES = 601  # diff: documents of a resample
    EXCHANGED_DOCUMENTS = 610  # selective: documents that exchange their values
    RANDOM_NEURONS = 611  # selective: neurons of the same rates
    ABLATION_RESAMPLES = 612  # selective: documents of a resample
    DETERMINATION_RESAMPLES = 505  # determination: documents of a resample, picks among draws
    FRAMES = 600  # measures: directions of frames
    REDUCTION = 620  # maps: which documents are tested, random groups, first centres, resamples


def derived(seed: int, purpose: Purpose, number: int = 0) -> int:
    """Return the seed of one purpose, below 2^32 (what scikit-learn takes), the same on every machine.

    Args:
        seed: the user's.
        purpose: what it is for.
        number: the draw, for what is drawn several times.

    Raises:
        PolytopeError: a negative seed, or one that is no whole number.

    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        msg = f"seed = {seed!r} is no seed; give a whole number from 0"
        raise PolytopeError(msg)
    return int(np.random.SeedSequence([int(seed), int(purpose), number]).generate_state(1)[0])


def tie_order(rows: int, seed: int = 0) -> Int64[np.ndarray, " rows"]:
    """Return the order in which rows at the same distance are taken as neighbours: the first in it is nearer.

    One permutation of the searched rows for every search and every representation of them, on a processor or a device.
    By the row's number instead, neighbours, and so their labels, would come from the first documents too often.
    """
    return np.random.default_rng(derived(seed, Purpose.TIES)).permutation(rows)
