"""One self-contained HTML page from results.

`write` takes result objects, `from_directories` their saved files. Neither loads a model.
"""

from __future__ import annotations

from polytope_lm.report.contents import from_directories
from polytope_lm.report.page import write

__all__ = ["from_directories", "write"]
