"""Speed and memory beside a peer's, from one run: `python -m benchmarks.NAME [--json]`."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before transformers is imported: a kernel that is absent is not fetched
