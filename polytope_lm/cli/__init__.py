"""The command line, thin: it reads options, calls the library, shows what came back.

The library imports nothing of this, and no command imports torch before it needs it, so `--help` is instant.
"""

from __future__ import annotations

from polytope_lm.cli.app import app, main

__all__ = ["app", "main"]
