"""Ask whether the contexts whose codes change most in fine-tuning are those of the new domain.

tiny-gpt2, trained on Python's documentation, is fine-tuned on news. `plm.diff` then compares it with itself before,
on held-out texts of both domains: the share of bits that flip on each domain's tokens, and the news' share among the
tokens with the most flips. The same for a random change of the weights of the same norm, parameter by parameter, which
learned nothing of news, and for fine-tuning on more documentation, which has learned as long.

    python -m analyses.diff_of_domains --data ../shared/data --out runs/diff

Kept are numbers, no texts: `diff-of-domains.json`, and a drawing of them.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

import polytope_lm as plm
from analyses._corpora import news
from analyses._running import asked, run, teller, write_json
from analyses.train_tiny import next_token_loss, split
from polytope_lm.controls.weights import norms_of_change, nudged
from polytope_lm.documents import Document
from polytope_lm.toys.training import Training, train

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Sequence
    from pathlib import Path

    from polytope_lm.models.model import Model

DOMAINS = ("documentation", "news")
_CHARACTERS = 600
"""Of each text, so that documents of both domains are alike in length."""
_TOP = 200
_COLOURS = {"documentation": "#0072b2", "news": "#d55e00"}


def texts(directory: Path, items: int, seed: int) -> dict[str, tuple[list[str], list[Document]]]:
    """Return by domain what is trained on, and held-out documents."""
    from pydoc_data.topics import topics  # noqa: PLC0415

    seen, held_out = split(topics)
    read = [document.text for document in news(directory, items, seed)]
    half = len(read) // 2
    # News items are short: several make a text of the other domain's length.
    joined = [" ".join(read[i : i + 3])[:_CHARACTERS] for i in range(half, len(read) - 2, 3)]
    pieces = [
        text[i : i + _CHARACTERS] for text in held_out.values() for i in range(0, len(text) - _CHARACTERS, _CHARACTERS)
    ]
    count = min(len(joined), len(pieces), 120)
    rng = np.random.default_rng(seed)
    chosen = {
        "documentation": [pieces[i] for i in rng.permutation(len(pieces))[:count]],
        "news": [joined[i] for i in rng.permutation(len(joined))[:count]],
    }
    return {
        name: (
            list(seen.values()) if name == "documentation" else read[:half],
            [Document(f"{name} {i}", text, {"domain": name}) for i, text in enumerate(chosen[name])],
        )
        for name in DOMAINS
    }


def tuned(model: Model, on: Sequence[str], steps: int, seed: int) -> Model:
    """Return the model, fine-tuned on texts."""
    ids = torch.tensor([i for text in on for i in model.tokenizer(text + "\n\n", verbose=False).input_ids])
    hf: Any = copy.deepcopy(model.hf)

    def batch(step: int) -> torch.Tensor:
        rng = np.random.default_rng([seed, step])
        starts = rng.integers(0, len(ids) - 129, size=8)
        return torch.stack([ids[start : start + 129] for start in starts])

    train(hf, next_token_loss, batch, Training(steps=steps, rate=1e-3, report=10))
    return plm.wrap(hf.eval(), model.tokenizer, name=f"{model.name} fine-tuned")


def loss_on(model: Model, documents: Sequence[Document]) -> float:
    """Return the mean loss of the next token, nats."""
    sums, count = 0.0, 0
    with torch.no_grad():
        for document in documents:
            ids = torch.tensor([model.tokenizer(document.text).input_ids[:256]])
            sums += float(next_token_loss(model.hf, ids)) * (ids.shape[1] - 1)  # type: ignore[arg-type]
            count += ids.shape[1] - 1
    return sums / count


def compared(before: Model, after: Model, documents: Sequence[Document], seed: int) -> dict[str, Any]:
    """Return what flips between two models, by domain and layer."""
    found = plm.diff(before, after, list(documents), nulls=(), seed=seed, progress=teller("diff of domains", "tokens"))
    table = found.token_table
    assert table is not None  # noqa: S101 - it was made here
    place = table[[layer.site.key for layer in found.layers]].sum(axis=1).to_numpy()
    most = set(np.argsort(-place, kind="stable")[:_TOP].tolist())
    return {
        "layers": [
            {
                "layer": one.layer,
                "share": one.share.value,
                "low": one.share.low,
                "high": one.share.high,
                "near": one.near,
            }
            for one in found.layers
        ],
        "by domain": found.by("domain", top=_TOP).to_dict("records"),
        "documents among the most flipped": len({table["document"][row] for row in most}),
    }


def drawing(result: dict[str, Any]) -> str:
    """Return an SVG: for each change of the weights, the share of bits that flip on each domain's tokens."""
    largest = max(row["high"] for run_ in result["runs"].values() for row in run_["by domain"])
    lines, y = [], 30
    for name, found in result["runs"].items():
        lines.append(f'<text x="10" y="{y + 16}">{name}</text>')
        for row in found["by domain"]:
            colour, width = _COLOURS[row["domain"]], 300 * row["share"] / largest
            low, high = (210 + 300 * row[end] / largest for end in ("low", "high"))
            said = f"{row['share']:.1%} {row['domain']}; {row['among_top']:.0%} of the most flipped, "
            lines += [
                f'<rect x="210" y="{y}" width="{width:.1f}" height="11" fill="{colour}"/>',
                f'<path d="M{low:.1f} {y + 5.5}H{high:.1f}" stroke="#1d2125" stroke-width="1.5"/>',
                f'<text x="{high + 6:.1f}" y="{y + 10}" class="s">{said}{row["expected"]:.0%} of all</text>',
            ]
            y += 14
        y += 14
    style = "text{font:13px sans-serif;fill:#1d2125}.s{font-size:11px;fill:#59626b}"
    head = '<text x="10" y="16">Share of bits that flip on the tokens of two domains</text>'
    size = f'viewBox="0 0 800 {y}" width="800" height="{y}"'
    back = f'<rect width="800" height="{y}" fill="#fff"/>'
    inside = f"<style>{style}</style>{back}{head}{''.join(lines)}"
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{inside}</svg>\n'


def main(argv: Sequence[str] | None = None) -> None:
    """Fine-tune, compare, write."""

    def own(parser: ArgumentParser) -> None:
        from pathlib import Path  # noqa: PLC0415

        parser.add_argument("--data", type=Path, required=True, help="a directory with news/ag_news.csv")
        parser.add_argument("--steps", type=int, default=60, help="of fine-tuning (%(default)s)")
        parser.add_argument("--items", type=int, default=3000, help="news items read (%(default)s)")

    given = asked("diff_of_domains", __doc__, argv, own, models=("tiny-gpt2",))
    options = given.given

    def work() -> None:
        before = plm.load(given.models[0])
        corpora = texts(options.data, options.items, options.seed)
        documents = [document for name in DOMAINS for document in corpora[name][1]]
        result: dict[str, Any] = {
            "command": given.command, "model": given.models[0], "steps": options.steps,
            "documents": {name: len(corpora[name][1]) for name in DOMAINS}, "top": _TOP, "runs": {}, "loss": {},
        }  # fmt: skip
        result["loss"]["before"] = {name: loss_on(before, corpora[name][1]) for name in DOMAINS}

        def add(name: str, model: Model) -> None:
            result["runs"][name] = compared(before, model, documents, options.seed)
            result["loss"][name] = {domain: loss_on(model, corpora[domain][1]) for domain in DOMAINS}
            write_json(options.out / "diff-of-domains.json", result)
            (options.out / "diff-of-domains.svg").write_text(drawing(result), encoding="utf-8")

        after = tuned(before, corpora["news"][0], options.steps, options.seed)
        add("fine-tuned on news", after)
        add("random weight change", nudged(before, norms_of_change(before, after), options.seed))
        add("fine-tuned on documentation", tuned(before, corpora["documentation"][0], options.steps, options.seed))

    run(work)


if __name__ == "__main__":
    main()
