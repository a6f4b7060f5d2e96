"""One self-contained HTML page from results.

`write` takes result objects, `from_directories` their saved files. Neither loads a model.
"""

from __future__ import annotations

from polytope_lm.report.page import from_directories, write

__all__ = ["from_directories", "write"]
