"""Documents: text with labelled spans, read from files, hub data sets or the built-in sample.

`plm.documents(source)` reads, by what the source is:

- `"sample"`: the built-in one (document label `group`, token label `class`);
- `"hub:NAME"`, `"hub:NAME:CONFIG"`, `"hub:NAME:CONFIG#SPLIT"`: a data set of the Hugging Face hub, streamed, split
  `train` unless said; NAME may be a directory;
- a file: `.txt`, `.md`, `.rst` (one document, or one for each paragraph), `.jsonl`, `.csv`, `.tsv`, `.parquet` (a row
  each), `.conllu` (a `# newdoc` each), CoarseWSD's `X.data.txt` beside `X.gold.txt` (a line each);
- a directory of such files of one kind, or one that `datasets` wrote with `save_to_disk` (one that is called like a
  name above: `./sample`);
- a list of strings, of `Document`s, of mappings (rows), mixed or not; a DataFrame, a `Dataset` (rows); a Series (texts;
  its index gives identifiers where it is of unique strings);
- `Documents`, which pass through.

Identifiers are the source's own (file name, line, `# newdoc id`, column `id`), or a hash of file name and row.
"""

from __future__ import annotations

import inspect
import sys
from types import ModuleType

from polytope_lm.documents.collection import Document, Documents, Span, Tally
from polytope_lm.documents.source import documents

__all__ = ["Document", "Documents", "Span", "Tally", "documents"]


class _CallableModule(ModuleType):
    """The package and the function have one name: what a user gets by it is both."""

    __call__ = staticmethod(documents)
    __signature__ = inspect.signature(documents)


sys.modules[__name__].__class__ = _CallableModule
globals()["documents"] = sys.modules[__name__]
