"""The drawings of blocks in the docs are those that the script makes, one for each kind of block."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from analyses.block_drawings import BLOCKS, svg

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.name)
def test_the_docs_show_it(block):
    drawn = (ROOT / "docs" / "pictures" / f"{block.name}.svg").read_text(encoding="utf-8")
    assert drawn == svg(block)
    assert f"pictures/{block.name}.svg" in (ROOT / "docs" / "concepts.md").read_text(encoding="utf-8")
    assert re.search(r">code: [^<]+<", drawn)
