"""Names that results, tables and figures share."""

from __future__ import annotations

from polytope_lm.representations import controls as simhash

AMI = "AMI"
AGREEMENT = "strict neighbour agreement"
AMI_TOKEN = "AMI with token identity"  # noqa: S105 -- a token of text, no secret
SCORES = (AMI, AGREEMENT, AMI_TOKEN)
"""All scores; the verdict reads the first two."""
SECOND_ORDER = (AMI, AMI_TOKEN)
"""Scores that count pairs of documents, see `inference.intervals`."""

BEST_COSINE = "better cosine of h"
SIMHASH = simhash.SIMHASH
REFERENCES = (BEST_COSINE, SIMHASH)
"""Comparators of the verdict: the better of raw and centred cosine of `h`; the mean of the SimHash draws."""
