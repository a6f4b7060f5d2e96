"""Documents: text with labelled spans, read from files, hub data sets or the built-in sample.

`plm.documents(source)` reads any source; a file each for the formats is beside this one.
"""

from __future__ import annotations

import inspect
import sys
from types import ModuleType

from polytope_lm.documents.collection import Documents, Tally
from polytope_lm.documents.document import Document, Span
from polytope_lm.documents.source import Source, documents

__all__ = ["Document", "Documents", "Source", "Span", "Tally", "documents"]


class _CallableModule(ModuleType):
    """Importing this package binds it as `polytope_lm.documents`, over the function of that name: so it is called."""

    __call__ = staticmethod(documents)
    __signature__ = inspect.signature(documents)


sys.modules[__name__].__class__ = _CallableModule
