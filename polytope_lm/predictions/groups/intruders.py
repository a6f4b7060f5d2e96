"""Intruder detection: can a judge tell which of five tokens in context is not of the group.

An item shows four members of one group and one outsider, in random order; chance is 1/5. Groups take turns,
so that a large one counts once. To keep trivial cues from deciding, five members of five documents are drawn
and one of them is *replaced*: by a token of another group and of a document that the other four do not come
from, which is as frequent as the replaced one (the same power of 2 of its count among the grouped tokens), or
(`match="token"`) the very same token, so that only the context is left to go by. In random groups the
outsider is then like any other, and a judge is right one time in five. Noise is neither member nor outsider.

Sources: Chang et al., "Reading tea leaves: how humans interpret topic models" (NeurIPS 2009), for the task;
Paulo & Belrose, "Evaluating SAE interpretability without explanations" (2025), for groups of contexts.

Items go to disk for people or a language model to judge. `intruders.jsonl`, a line an item, holds texts and
no answers; whoever judges replaces `null` with 1 to 5, and an item left at null is unanswered:

    {"item": "0f3a...", "examples": ["... <<token>> ...", (five)], "answer": null}

`intruders.key.jsonl` holds answers and no texts:

    {"item": "0f3a...", "intruder": 3, "group": 17, "rows": [12, 840, 77, 1201, 5]}

`delphi.py` gives the same groups to EleutherAI's delphi.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from einops import rearrange
from scipy.stats import binomtest

from polytope_lm.errors import PolytopeError
from polytope_lm.files import expand
from polytope_lm.predictions.arguments import asked
from polytope_lm.predictions.clusters.sampling import documents_and_words, rows_of
from polytope_lm.predictions.groups.coherence import CHARACTERS, ENCODER, context_parts, embeddings, encoder_of
from polytope_lm.seeds import Purpose, derived
from polytope_lm.statistics.nulls import Rate, counted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from jaxtyping import Int

    from polytope_lm.codes.codes import TokenCodes
    from polytope_lm.models.model import Model
    from polytope_lm.predictions.groups.coherence import Embed

SHOWN = 5
CHANCE = 1 / SHOWN
MARK = ("<<", ">>")
"""Around the token in an example, as delphi marks it."""

Match = Literal["frequency", "token"]
_ATTEMPTS = 20  # draws of members for one item before the next group has its turn


@dataclass(frozen=True)
class IntruderItem:
    """Four members of a group and one outsider.

    Attributes:
        id: a hash of the examples, which tells nothing of the answer.
        group: the members' group.
        rows: the five tokens' rows in the codes, in the order shown.
        intruder: which of them is the outsider, 1 to 5.
        contexts: for each, the text left of the token, the token, the text right of it.

    """

    id: str
    group: int
    rows: tuple[int, ...]
    intruder: int
    contexts: tuple[tuple[str, str, str], ...]

    @property
    def examples(self) -> tuple[str, ...]:
        """The five contexts with the token marked."""
        return tuple(f"{left}{MARK[0]}{token}{MARK[1]}{right}" for left, token, right in self.contexts)


@dataclass(frozen=True)
class IntruderItems:
    """Items of one grouping.

    Attributes:
        items: in the order in which groups took turns.
        match: how outsiders were matched: `frequency` or `token`.
        groups: groups that gave items.
        unfit: groups without five members of five documents, or without an outsider that matches.

    """

    items: tuple[IntruderItem, ...]
    match: str
    groups: int
    unfit: int

    @property
    def key(self) -> dict[str, int]:
        """The answers: item id to outsider, 1 to 5."""
        return {item.id: item.intruder for item in self.items}

    def __len__(self) -> int:
        return len(self.items)


@dataclass(frozen=True)
class IntruderScore:
    """How often a judge found the outsider.

    Attributes:
        judge: who it was.
        correct: items answered correctly.
        answered: items answered; those without an answer are not counted as wrong, and stated.
        unanswered: items without an answer.
        accuracy: correct / answered.
        low: lower end of the exact 95 % binomial interval (Clopper & Pearson, 1934); items count as
            independent.
        high: upper end.
        p: one-sided binomial p of accuracy by chance, 1/5.

    """

    judge: str
    correct: int
    answered: int
    unanswered: int
    accuracy: float
    low: float
    high: float
    p: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.accuracy:.3f} [{self.low:.3f}, {self.high:.3f}], chance {CHANCE}"


@asked
def intruder_items(
    codes: TokenCodes,
    groups: Int[np.ndarray, " n"],
    *,
    rows: Int[np.ndarray, " n"] | None = None,
    items: int = 100,
    match: Match = "frequency",
    characters: int = CHARACTERS,
    seed: int = 0,
) -> IntruderItems:
    """Draw items of a grouping.

    Args:
        codes: where the tokens are.
        groups: id of each token's group, -1 for none.
        rows: the tokens' rows in the codes; None: all tokens, in order.
        items: at most so many.
        match: what an outsider has in common with the member it stands for: `frequency` or `token`.
        characters: of context on each side.
        seed: of every draw.

    Raises:
        PolytopeError: no item can be made, or an unknown `match`.

    """
    if match not in get_args(Match) or items < 1:
        raise PolytopeError(
            f"match = {match!r}, items = {items}; match is 'frequency' or 'token', and items at least 1"
        )
    at = rows_of(codes, groups, rows)
    maker = _Maker(codes, at, groups, match, np.random.default_rng(derived(seed, Purpose.ITEMS)))
    made: dict[str, IntruderItem] = {}
    turn = list(maker.rng.permutation(np.unique(groups[counted(groups)])))
    fruitful, barren = set(), set()
    while turn and len(made) < items:
        group = int(turn.pop(0))
        item = maker.item(group, characters)
        if item is None or item.id in made:
            barren.add(group)
            continue
        made[item.id] = item
        fruitful.add(group)
        turn.append(group)
    if not made:
        raise PolytopeError(
            f"no group of {len(barren)} has {SHOWN} tokens of as many documents and a matching outsider; ask "
            "for fewer groups, more tokens, or match='frequency'"
        )
    return IntruderItems(tuple(made.values()), match, len(fruitful), len(barren - fruitful))


class _Maker:
    """Draws members and outsiders of one grouping."""

    def __init__(
        self, codes: TokenCodes, at: Int[np.ndarray, " n"], groups: Int[np.ndarray, " n"], match: Match,
        rng: np.random.Generator,
    ) -> None:  # fmt: skip
        self.codes, self.at, self.groups, self.rng = codes, at, groups, rng
        self.documents, words = documents_and_words(codes, at)
        word, counts = np.unique(words, return_inverse=True, return_counts=True)[1:]
        self.cue = word if match == "token" else np.floor(np.log2(counts[word])).astype(np.int64)

    def item(self, group: int, characters: int) -> IntruderItem | None:
        """Make one item; None where the draws found no five members or no outsider."""
        for _ in range(_ATTEMPTS):
            drawn = self.rng.permutation(np.flatnonzero(self.groups == group))
            # The first of each document.
            members = drawn[np.sort(np.unique(self.documents[drawn], return_index=True)[1])][:SHOWN]
            if len(members) < SHOWN:
                return None
            outsiders = self._outsiders(group, members)
            if len(outsiders):
                return self._item(group, members[:-1], int(self.rng.choice(outsiders)), characters)
        return None

    def _outsiders(self, group: int, members: Int[np.ndarray, " m"]) -> Int[np.ndarray, " k"]:
        fits = (self.groups >= 0) & (self.groups != group) & (self.cue == self.cue[members[-1]])
        return np.flatnonzero(fits & ~np.isin(self.documents, self.documents[members[:-1]]))

    def _item(self, group: int, members: Int[np.ndarray, " m"], outsider: int, characters: int) -> IntruderItem:
        where = int(self.rng.integers(SHOWN))
        rows = tuple(int(row) for row in self.at[np.insert(members, where, outsider)])
        contexts = tuple(context_parts(self.codes, row, characters) for row in rows)
        text = "\0".join("\1".join(parts) for parts in contexts)
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        return IntruderItem(digest, group, rows, where + 1, contexts)


def judged_by_encoder(
    codes: TokenCodes, items: IntruderItems, encoder: Model | Embed | str | None = None
) -> dict[str, int]:
    """Answer (1 to 5) as an encoder would: the context with the least mean cosine to the other four.

    Args:
        codes: what the items were drawn from; their model may not be the judge.
        items: from `intruder_items`.
        encoder: a loaded model, the name of one, or a function of texts; None: `minilm-l6`.

    """
    texts = ["".join(parts) for item in items.items for parts in item.contexts]
    unit = rearrange(embeddings(texts, encoder_of(codes, encoder)), "(item shown) d -> item shown d", shown=SHOWN)
    cosines = np.einsum("iad,ibd->iab", unit, unit)
    others = (cosines.sum(axis=2) - np.einsum("iaa->ia", cosines)) / (SHOWN - 1)
    return {item.id: int(row.argmin()) + 1 for item, row in zip(items.items, others, strict=True)}


def score_answers(key: Mapping[str, int], answers: Mapping[str, int | None], judge: str = "a judge") -> IntruderScore:
    """Score a judge's answers.

    Args:
        key: item id to outsider, 1 to 5 (`IntruderItems.key`).
        answers: item id to answer, 1 to 5, or None.
        judge: who answered.

    Raises:
        PolytopeError: an answer to an item that the key does not have, or no answer at all.

    """
    unknown = [item for item in answers if item not in key]
    if unknown:
        raise PolytopeError(
            f"an answer to item {unknown[0]!r}, which the key does not have; give the key that was written "
            "with these items"
        )
    given = {item: answer for item, answer in answers.items() if answer is not None}
    if not given:
        raise PolytopeError(f"none of {len(key)} items has an answer; fill in `answer` with 1 to {SHOWN}")
    correct = sum(key[item] == answer for item, answer in given.items())
    test, rate = binomtest(correct, len(given), CHANCE, alternative="greater"), Rate.of(correct, len(given))
    return IntruderScore(
        judge=judge, correct=correct, answered=len(given), unanswered=len(key) - len(given),
        accuracy=rate.value, low=rate.low, high=rate.high, p=float(test.pvalue),
    )  # fmt: skip


@asked
def intruder_detection(
    codes: TokenCodes,
    groups: Int[np.ndarray, " n"],
    *,
    rows: Int[np.ndarray, " n"] | None = None,
    encoder: Model | Embed | str | None = None,
    **options: Any,
) -> IntruderScore:
    """Draw items of a grouping and have an encoder answer them.

    Args:
        codes: where the tokens are.
        groups: id of each token's group, -1 for none.
        rows: the tokens' rows in the codes; None: all tokens, in order.
        encoder: see `judged_by_encoder`.
        **options: `items`, `match`, `characters`, `seed`, as in `intruder_items`.

    Raises:
        PolytopeError: as `intruder_items` and `judged_by_encoder`.

    """
    items = intruder_items(codes, groups, rows=rows, **options)
    return score_answers(items.key, judged_by_encoder(codes, items, encoder), judge=judge_name(encoder))


def judge_name(encoder: Model | Embed | str | None) -> str:
    """Return what results call an encoder."""
    if encoder is None or isinstance(encoder, str):
        return encoder or ENCODER
    return str(getattr(encoder, "name", getattr(encoder, "__name__", "a function")))


QUESTIONS, KEY = "intruders.jsonl", "intruders.key.jsonl"


def write_items(items: IntruderItems, directory: str | Path) -> tuple[Path, Path]:
    """Write the questions and, apart from them, the key.

    Args:
        items: from `intruder_items`.
        directory: where to; it is made.

    Returns:
        The paths of `intruders.jsonl` and `intruders.key.jsonl`.

    """
    folder = expand(directory)
    folder.mkdir(parents=True, exist_ok=True)
    questions, key = folder / QUESTIONS, folder / KEY
    # In the order of the ids, so that the order of the groups is no cue.
    ordered = sorted(items.items, key=lambda item: item.id)
    _write(questions, [{"item": i.id, "examples": list(i.examples), "answer": None} for i in ordered])
    _write(key, [{"item": i.id, "intruder": i.intruder, "group": i.group, "rows": list(i.rows)} for i in ordered])
    return questions, key


def read_key(path: str | Path) -> dict[str, int]:
    """Read a key: item id to outsider, 1 to 5.

    Raises:
        PolytopeError: no such file, or a line that is no entry of a key; the message names it.

    """
    return {item: value for _, item, value in _entries(expand(path), "intruder") if value is not None}


def read_answers(path: str | Path, key: dict[str, int]) -> dict[str, int | None]:
    """Read questions that were filled in: item id to answer, 1 to 5, or None.

    Raises:
        PolytopeError: a line is no JSON object, names no item of the key (from `read_key`) or one again, or
            has another answer; the message names the line.

    """
    out: dict[str, int | None] = {}
    for number, item, answer in _entries(expand(path), "answer"):
        if item not in key:
            raise PolytopeError(
                f"{path}, line {number}: item {item!r} is not in the key; give the key that was written with "
                "these items"
            )
        out[item] = answer
    return out


def score_file(answers: str | Path, key: str | Path, judge: str = "a judge") -> IntruderScore:
    """Score a file of questions that were filled in.

    Args:
        answers: the file with answers.
        key: the key's file.
        judge: who answered.

    Raises:
        PolytopeError: as `read_key` and `read_answers`; no answer at all.

    """
    known = read_key(key)
    return score_answers(known, read_answers(answers, known), judge)


def _write(path: Path, lines: list[dict[str, Any]]) -> None:
    text = "".join(json.dumps(line, ensure_ascii=True) + "\n" for line in lines)
    path.write_text(text, encoding="utf-8")


def _entries(path: Path, name: str) -> Iterator[tuple[int, str, int | None]]:
    """Yield line number, item and the number named so, checked."""
    if not path.is_file():
        raise PolytopeError(f"no file {str(path)!r}; write_items makes {QUESTIONS} and {KEY}")
    seen: set[str] = set()
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise PolytopeError(f"{path}: not UTF-8 from byte {error.start} on; save it as UTF-8") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        item, value = _entry(line, name, f"{path}, line {number}")
        if item in seen:
            raise PolytopeError(f"{path}, line {number}: item {item!r} is there twice; keep one line of it")
        seen.add(item)
        yield number, item, value


def _entry(line: str, name: str, where: str) -> tuple[str, int | None]:
    try:
        data = json.loads(line)
    except ValueError as error:
        raise PolytopeError(f"{where}: no JSON ({error}); one object a line") from error
    if not isinstance(data, dict) or not isinstance(data.get("item"), str) or name not in data:
        raise PolytopeError(f'{where}: no object with "item" and "{name}"; keep both as they were written')
    value = data[name]
    if value is None and name == "answer":
        return data["item"], None
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= SHOWN:
        raise PolytopeError(f'{where}: "{name}" is {value!r:.40}; give a whole number from 1 to {SHOWN}')
    return data["item"], value
