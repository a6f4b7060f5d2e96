"""What does an MLP's code determine? Every arm, at some layers and at all layers at once, in several models.

Protocol. Documents of the built-in sample (or `--documents`) in stretches of at most 128 tokens; 40 of them tested,
means, slopes, read-outs, clusters and donors fitted on the others (at most 8,000 tokens), position 0 left alone. Told:
loss recovered and KL of every arm with intervals over documents, and whether the code's bits carry more than bits
spent otherwise (`polytope_lm.predictions.determination`). MiniLM, without logits, by the cosine of its final state.

    python -m analyses.one_bit_mlp --out DIR [--model NAME ...] [--layers 1,4,14,24] [--documents SOURCE]

DIR/MODEL/determination.json and report.html; DIR/MODEL/layers/*.jsonl, from which a run that was stopped goes on;
DIR/result.json with the table of all models. Scores are kept, texts are not.

    python -m analyses.one_bit_mlp --table DIR/result.json

prints the table of docs/findings.md.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import polytope_lm as plm
from analyses._running import MODELS, asked, folder_name, read_json, run, teller, write_json
from polytope_lm.documents import Document
from polytope_lm.report import write

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from polytope_lm.predictions.determination.result import DeterminationResult

SMOLLM2 = (1, 4, 14, 24)
"""Those of the first trial with plain hooks."""
CHARACTERS = 1500
"""Of each document that are read: some three stretches, of which one is tested or all are fitted on."""
TABLED = (
    ("constant per cell", "1 bit"), ("constant per cell", "2 bits"), ("affine per cell", "tangent"),
    ("affine per cell", "secant"), ("hard gate", "hard gate"), ("hard gate", "negative side flattened"),
    ("code imposed, magnitudes kept", "of the same token"), ("code imposed, magnitudes kept", "a random one"),
    ("magnitudes imposed, code kept", "of the same token"), ("magnitudes imposed, code kept", "a random one"),
    ("bits read out by ridge", "code"), ("bits read out by ridge", "sign of u"),
    ("bits read out by ridge", "SimHash, rate-matched"), ("bits read out by ridge", "k-means index of u"),
)  # fmt: skip


@dataclass(frozen=True)
class Options:
    """What is run.

    Attributes:
        out: where results go.
        layers: which, or the analysis' own choice (None): SmolLM2's of the trial, else up to four over the model.
        source: the documents.
        tested: documents.
        fitting: tokens of the other documents, at most.
        seed: of every random choice.
        resamples: behind each interval.
        command: what the user typed.
        device: a torch device.

    """

    out: Path
    layers: tuple[int, ...] | None
    source: str
    tested: int
    fitting: int
    seed: int
    resamples: int
    command: str
    device: str


def chosen_layers(name: str, layers: int, given: tuple[int, ...] | None) -> list[int]:
    """Return the layers that are run: those asked for that the model has, or its own choice."""
    if given is not None:
        return [layer for layer in given if layer < layers] or [layers - 1]
    if name.startswith("smollm2"):
        return list(SMOLLM2)
    return [int(i) for i in np.unique(np.linspace(0, layers - 1, 4).round())]


def run_model(name: str, options: Options) -> DeterminationResult:
    """Test one model; write and return what was found."""
    model = plm.load(name, device=options.device)
    out = options.out / folder_name(name)
    layers = chosen_layers(name, model.n_layers, options.layers)
    print(f"{model.name}: layers {', '.join(map(str, layers))} and all {model.n_layers} at once", flush=True)
    beginnings = [Document(each.id, each.text[:CHARACTERS]) for each in plm.documents(options.source)]
    codes = plm.encode(model, beginnings, layers=layers, tokens="random:1")
    result = plm.predictions.determination(
        codes, layers, documents=options.tested, fit_tokens=options.fitting, seed=options.seed,
        resamples=options.resamples, to=out / "layers", progress=teller(model.name, "documents"),
    )  # fmt: skip
    result = replace(result, command=options.command)
    result.save(out)
    write(out / "report.html", others=[result])
    return result


def summary(results: Sequence[DeterminationResult], options: Options) -> dict[str, Any]:
    """Return what DIR/result.json holds."""
    return {
        "command": options.command,
        "models": [
            {
                "model": str(result.provenance["model"]),
                "revision": str(result.provenance["revision"]),
                "measure": result.settings.measure,
                "documents": result.settings.documents,
                "fitted": [result.settings.fitting_documents, result.settings.fitting_tokens],
                "verdict": result.verdict,
                "places": [
                    {
                        "place": "all" if one is result.together else str(one.site.layer),
                        "outcome": "not testable" if one.verdict is None else one.verdict.outcome,
                        "removed": str(one.removed),
                        "scores": [
                            {
                                "group": each.group, "arm": each.name, "replaced": round(each.replaced, 3),
                                "recovered": None if each.recovered is None else str(each.recovered),
                                "lost": str(each.lost), "kl": None if each.kl is None else str(each.kl),
                            }
                            for each in one.scores
                        ],
                    }
                    for one in result.places
                ],
            }
            for result in results
        ],
    }  # fmt: skip


def tables(data: dict[str, Any]) -> str:
    """Return the tables of docs/findings.md: loss recovered, a row an arm, a column a place; without ratio the loss."""
    parts = [f"`{data['command']}`"]
    for model in data["models"]:
        places = model["places"]
        heads = [f"layer {one['place']}" if one["place"] != "all" else "all layers" for one in places]
        unit = "nats" if model["measure"] == "next token" else "1 - cosine"
        lines = [f"| {model['model']} | {' | '.join(heads)} |", f"|---{'|---' * len(heads)}|"]
        lines.append(
            f"| *without the MLP, {unit} lost* | " + " | ".join(_short(one["removed"]) for one in places) + " |"
        )
        for group, arm in TABLED:
            cells = [next((s for s in one["scores"] if (s["group"], s["arm"]) == (group, arm)), None) for one in places]
            if any(cell is None for cell in cells):
                continue
            found = [_short(cell["recovered"]) if cell["recovered"] else f"({_short(cell['lost'])})" for cell in cells]
            lines.append(f"| {arm if group == arm else f'{group}: {arm}'} | {' | '.join(found)} |")
        lines.append("| *verdict* | " + " | ".join(one["outcome"] for one in places) + " |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _short(estimate: str) -> str:
    """Write `0.123 [0.100, 0.150]` with two digits."""
    value, _, rest = estimate.partition(" [")
    low, high = rest.rstrip("]").split(", ")
    return f"{float(value):.2f} [{float(low):.2f}, {float(high):.2f}]"


def own_options(parser: argparse.ArgumentParser) -> None:
    """Add what only this analysis asks."""
    parser.add_argument(
        "--documents", default="sample", help="a file or directory of texts (default: the built-in sample)"
    )
    parser.add_argument("--tested", type=int, default=40, help="documents that are tested (%(default)s)")
    parser.add_argument("--fitting", type=int, default=8000, help="tokens that maps are fitted on (%(default)s)")
    parser.add_argument("--resamples", type=int, default=1000, help="of documents (%(default)s)")


def arguments(argv: Sequence[str] | None) -> tuple[tuple[str, ...], Options]:
    """Parse the command line: which models, and what is run on them."""
    found = asked("one_bit_mlp", __doc__, argv, own_options, models=MODELS, layers=None)
    given = found.given
    layers = None if given.layers is None else found.layers or tuple(range(1000))
    return found.models, Options(
        given.out,
        layers,
        given.documents,
        given.tested,
        given.fitting,
        given.seed,
        given.resamples,
        found.command,
        given.device,
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Run the analysis and print its tables; with `--table FILE` only print those of a result."""

    def work() -> None:
        typed = sys.argv[1:] if argv is None else list(argv)
        if typed[:1] == ["--table"] and len(typed) == 2:
            print(tables(read_json(Path(typed[1]))))
            return
        models, options = arguments(argv)
        found = summary([run_model(name, options) for name in models], options)
        write_json(options.out / "result.json", found)
        print(tables(found))

    run(work)


if __name__ == "__main__":
    main()
