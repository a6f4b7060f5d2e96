"""What tests of reading documents share."""

from __future__ import annotations

import pytest

from polytope_lm.documents import documents
from polytope_lm.errors import PolytopeError


def texts(source, **options):
    return [document.text for document in documents(source, **options)]


def refused(source, pattern, **options):
    """The error of reading a source: one line, no traceback inside."""
    with pytest.raises(PolytopeError, match=pattern) as caught:
        list(documents(source, **options))
    assert "\n" not in str(caught.value)
