"""A small treebank, news items and ambiguous words, as a user would have them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from pathlib import Path

NOUNS, VERBS = ("river", "bank", "boat", "duck", "pond", "lake"), ("saw", "owns", "leaves", "likes", "finds")


def _treebank(folder: Path, rng: np.random.Generator) -> None:
    lines = []
    for document in range(20):
        lines.append(f"# newdoc id = {('weblog', 'email')[document % 2]}-{document}")
        for sentence in range(3):
            lines += [f"# sent_id = {document}-{sentence}"]
            for i in range(8):
                word, upos, xpos, role = (
                    (rng.choice(NOUNS), "NOUN", "NN", ("subj", "obj")[i % 4 // 2])
                    if i % 2 == 0
                    else (rng.choice(VERBS), "VERB", "VBZ", ("root", "dep")[i % 4 // 2])
                )
                lines.append(f"{i + 1}\t{word}\t{word}\t{upos}\t{xpos}\t_\t0\t{role}\t_\t_")
            lines.append("")
    folder.mkdir()
    (folder / "small.conllu").write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The three corpora of the analyses, tiny."""
    rng = np.random.default_rng(0)
    root = tmp_path_factory.mktemp("data")
    _treebank(root / "treebank", rng)
    news = root / "news"
    news.mkdir()
    (news / "classes.txt").write_text("World\nSports\n")
    rows = [
        f'"{i % 2 + 1}","The {rng.choice(NOUNS)} {i}","A {rng.choice(NOUNS)} {rng.choice(VERBS)} the '
        f'{rng.choice(NOUNS)} and {rng.choice(VERBS)} it."'
        for i in range(40)
    ]
    (news / "ag_news.csv").write_text("\n".join(rows) + "\n")
    for word in ("bank", "bass"):
        folder = root / "senses" / word
        folder.mkdir(parents=True)
        (folder / "classes_map.txt").write_text(json.dumps({"0": f"{word}_a", "1": f"{word}_b"}))
        sentences = [f"2\tthe {rng.choice(NOUNS)} {word} number {i} was {rng.choice(VERBS)}" for i in range(12)]
        (folder / "train.data.txt").write_text("\n".join(sentences) + "\n")
        (folder / "train.gold.txt").write_text("\n".join(str(i % 2) for i in range(12)) + "\n")
    return root
