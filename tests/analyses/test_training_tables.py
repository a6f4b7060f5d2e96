"""The findings' tables of training, toys, and local maps are the kept numbers, cell by cell."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tables import numbers, says, table

from polytope_lm import toys
from polytope_lm.geometry.reduction import GROUPED

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "findings.md").read_text(encoding="utf-8")
TINY = ("tiny-gpt2", "tiny-relu")
COUNT = "local complexity, r = 0.05 |x|"
CHANGED = ("bits changed", "SimHash bits changed", "weights' relative change")


def kept(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / "analyses" / "results" / f"{name}.json").read_text(encoding="utf-8"))
    return found


@pytest.fixture(scope="module")
def values() -> dict[str, dict[int, dict[str, float]]]:
    """Every number of training, by network and update."""
    found = kept("training-dynamics").items()
    return {name: {row["step"]: row["values"] for row in one["steps"]} for name, one in found}


# ---------------------------------------------------------------- training


def test_when_bits_planes_and_weights_settle(values) -> None:
    settled = {name: one["settled"] for name, one in kept("training-dynamics").items()}
    _, rows = table(TEXT, "## What changes while a network is trained")
    assert len(rows) == 9
    for name, *cells in rows:
        model, _, what = name.partition(": ")
        last = max(values[model])
        for cell, quantity in zip(cells, CHANGED, strict=True):
            if what == "settled by update":
                step = settled[model][f"settled: {quantity}"]
                says(cell, step)
                assert ("(the last)" in cell) == (step == last)
            else:
                step, *end = (int(each) for each in numbers(what))
                assert end in ([], [last])
                says(cell, 100 * values[model][step][f"{quantity} to the last"])
    early = values["small-relu"]
    assert "in small-relu's first 16 updates 4.5 % of\nthe weights' norm turns 38 % of the bits" in TEXT
    first = [100 * early[16][f"{quantity} since the one before"] for quantity in CHANGED]
    assert [round(first[0]), round(first[1]), round(first[2], 1)] == [38, 38, 4.5]


DIGITS = {
    "local complexity near training / test points": (f"{COUNT}, training", f"{COUNT}, test"),
    "near random points": (f"{COUNT}, random",),
    "on the decision boundary / the same paths elsewhere": (
        f"{COUNT}, decision boundary", f"{COUNT}, same paths elsewhere",
    ),
    "norm of the Jacobian, test points / decision boundary": (
        "norm of the Jacobian, test", "norm of the Jacobian, decision boundary",
    ),
    "variance within over between classes, training / test": (
        "within over between classes, training", "within over between classes, test",
    ),
    "accuracy, test": ("accuracy, test",),
    "sharpness (a straight line: 1)": ("sharpness",),
}  # fmt: skip


def test_the_digits(values) -> None:
    head, rows = table(TEXT, "So do random planes that never learn, in the same updates**")
    steps = [int(*numbers(cell)) for cell in head[1:]]
    assert steps == [0, 128, 1024, 4096]
    assert [row[0] for row in rows] == list(DIGITS)
    for name, *cells in rows:
        for cell, step in zip(cells, steps, strict=True):
            says(cell, *(values["digits"][step][quantity] for quantity in DIGITS[name]))


TWINS = {
    "loss, held out, of the fixed batch": "loss, held out",
    "local complexity, r = .05 of the norm": f"{COUNT}, layer 2, held out",
    "norm of the MLP's Jacobian": "norm of the Jacobian, layer 2, held out",
    "code's AMI with the part of speech": "code, AMI",
    "less the better cosine's": "code minus best cosine, AMI",
    "sharpness": "sharpness",
}


def test_the_tiny_twins(values) -> None:
    head, rows = table(TEXT, "The tiny twins by one recipe, GELU / ReLU")
    steps = [int(*numbers(cell)) for cell in head[1:]]
    assert [row[0] for row in rows] == list(TWINS)
    for name, *cells in rows:
        for cell, step in zip(cells, steps, strict=True):
            says(cell, *(values[model][step][TWINS[name]] for model in TINY))


PLACES = {
    "near training tokens": "training",
    "near held-out tokens": "held out",
    "where the next token changes": "decision boundary",
    "the same paths elsewhere": "same paths elsewhere",
}


def test_training_text_and_the_boundary_between_two_next_tokens(values) -> None:
    head, rows = table(TEXT, "**Training text, and the boundary between two next tokens.**")
    assert [cell.partition(",")[0] for cell in head[1:]] == list(TINY)
    assert len(rows) == 9
    what = ""
    for name, *cells in rows:
        found = re.match("training less held out|boundary less elsewhere", name)
        what = found[0] if found else what
        layer, step = (re.search(f"{word} ([0-9]+)", name) for word in ("layer", "update"))
        for cell, model in zip(cells, TINY, strict=True):
            own = values[model][int(step[1]) if step else 1000]
            if name in PLACES:
                says(cell, *(own[f"{COUNT}, layer {number}, {PLACES[name]}"] for number in range(4)))
            else:
                assert layer, name
                title = f"differences of {COUNT}, layer {layer[1]}, {what}"
                says(cell, *(own[title + end] for end in ("", ", low", ", high")))


# ---------------------------------------------------------------- toys


def test_the_toys() -> None:
    found = kept("toys")
    bits, quadrants = found["XOR of bits"], [found[f"XOR, {n} neurons"] for n in (2, 20, 100)]
    _, rows = table(TEXT, "`python -m analyses.toys --out DIR`")
    by_name = {row[0]: row[1:] for row in rows}
    assert len(by_name) == len(rows) == 9

    def circle(name: str, *, interval: bool = True) -> Callable[[list[str]], None]:
        one, ends = found[name], ("mean", "low", "high") if interval else ("mean",)

        def check(cells: list[str]) -> None:
            says(cells[0], one["seeds"])
            says(cells[1], *(one["accuracy"][end] for end in ends))
            size = [6] if "window" in cells[2] else []
            says(cells[2], one["closed"], one["seeds"], *size)
            assert one["on"] == ("a window of side 6" if size else "the whole plane")

        return check

    def two_bits(cells: list[str]) -> None:
        says(cells[0], bits["seeds"])
        learned = bits["learned by two neurons"]
        says(cells[2], learned, bits["of them with three regions in the unit square"])
        assert f"all {learned} with three regions" in cells[2]

    def built(cells: list[str]) -> None:
        goal, network = toys.task("bits"), toys.exact_xor()
        says(cells[1], (np.sign(network.output(goal.x)[:, 0] - 0.5) == goal.y).mean())
        says(cells[2], -bits["margins of the four codes"]["01"])

    def squares(cells: list[str]) -> None:
        says(cells[0], 5)
        says(cells[1], *(each["accuracy"]["mean"] for each in quadrants))
        says(cells[2], *(each["regions"]["mean"] for each in quadrants))

    def rings(cells: list[str]) -> None:
        says(cells[0], 3)
        says(cells[1], found["annuli, 16 x 16"]["accuracy"]["mean"])
        says(cells[2], found["annuli, 16 x 16"]["regions"]["mean"])

    checks = {
        "XOR of two bits, built with 2 neurons": built,
        "XOR of two bits, 2 neurons trained": two_bits,
        "XOR of quadrants: 2, 20, 100 neurons": squares,
        "the same, 2 neurons trained": circle("circle, 2"),
        "3 neurons trained": circle("circle, 3"),
        "4 neurons trained": circle("circle, 4"),
        "3 x 8 neurons trained": circle("circle, 8 x 8 x 8", interval=False),
        "XOR of annuli, 16 x 16": rings,
    }
    assert {name for name in by_name if name not in checks} == {"circle in an annulus, built with 3 neurons"}
    for name, check in checks.items():
        check(by_name[name])


def test_where_breakpoints_lie() -> None:
    found = kept("toys")
    text = " ".join(TEXT.partition("**Where do breakpoints lie?**")[2].partition("\n\n")[0].split())
    spacing, rank = "spacing: coefficient of variation less random points'", "density against |f''|: rank correlation"
    interval = r"(\+?\.\d+ \[\.\d+, \.\d+\])"
    patterns = {
        "sine": rf"R² (\S+), (\d+) breakpoints.*?larger by {interval}.*?correlation with `\|f''\|` {interval}",
        "sine of 1/x": rf"R² (\S+), (\d+) breakpoints\) it does, {interval}, and spacing .*? still, {interval}",
    }
    for name, pattern in patterns.items():
        match = re.search(pattern, text.partition("On `sin(1/x)`")[2 if "1/x" in name else 0])
        assert match, name
        first, second = (spacing, rank) if name == "sine" else (rank, spacing)
        for shown, quantity in zip(match.groups(), ("R2", "breakpoints", first, second), strict=True):
            ends = ("mean", "low", "high") if "[" in shown else ("mean",)
            says(shown, *(found[name][quantity][end] for end in ends))


# ---------------------------------------------------------------- local maps


def arm_of(column: str, largest: int) -> str | None:
    """Return the arm that a column shows; None of a column that this test knows nothing of."""
    named = {
        "no MLP": "mean-ablated", "one mean map": "mean map 1", "one linear fit": "linear",
        "one quadratic": "quadratic", **{name: f"{name} {largest}" for name in GROUPED if name.startswith("by ")},
    }  # fmt: skip
    match = re.fullmatch("([0-9,]+)(?: maps| (random groups(?:, nearest)?))?", column)
    if match:
        return f"{match[2] or 'k maps'} {match[1].replace(',', '')}"
    return named.get(column)


@pytest.mark.parametrize(
    ("name", "below", "columns", "expected"),
    [
        ("affine-maps", "Nats a token lost with k affine maps in one MLP's place", 14,
         {("tiny-relu", n, "tangent") for n in range(4)}
         | {("tiny-gpt2", n, kind) for n in range(4) for kind in ("tangent", "secant")}),
        ("affine-maps-smollm2", "(`analyses/results/affine-maps-smollm2.json`):", 12,
         {("smollm2-135m", n, kind) for n in (4, 14) for kind in ("tangent", "secant")}),
    ],
)  # fmt: skip
def test_nats_lost_with_maps_in_one_mlps_place(name, below, columns, expected) -> None:
    """Rows and columns may be added; those that are kept must all be shown."""
    arms = {(m, r["layer"], r["maps"]): r["arms"] for m, rows in kept(name)["models"].items() for r in rows}
    head, rows = table(TEXT, below)
    seen = set()
    for title, *cells in rows:
        match = re.fullmatch("(?:([^,]+), )?([0-9]+)(?:, (tangent|secant))?", title)
        key = (match[1] or "smollm2-135m", int(match[2]), match[3] or "tangent") if match else ()
        if key not in arms:
            continue
        seen.add(key)
        largest = max(int(each.split()[-1]) for each in arms[key] if each.startswith("k maps"))
        known = 0
        for cell, column in zip(cells, head[1:], strict=True):
            arm = arm_of(column, largest)
            if arm in arms[key]:
                known += 1
                lost = arms[key][arm]["lost"]
                says(cell, *(lost if "[" in cell else lost[:1]))
        assert known == columns, title
    assert seen >= expected


def test_one_layers_maps_told_by_anothers() -> None:
    pairs = {(p["maps"], p["source"], p["from"], p["target"], p["to"]): p for p in kept("affine-maps")["matching"]}
    head, rows = table(TEXT, "**Is one layer's map a linear function of another's?**")
    seen = set()
    for title, *cells in rows:
        target, layer, *kind = title.split(", ")
        to, maps, other = int(layer), kind[0] if kind else "tangent", TINY[target == TINY[0]]
        if target not in TINY:
            continue
        for cell, column in zip(cells, head[1:], strict=True):
            means = {"mean map loses": "mean map", "no MLP": "mean-ablated"}
            if column in means:
                same = [p["lost"] for key, p in pairs.items() if (key[0], *key[3:]) == (maps, target, to)]
                assert same
                for lost in same:  # whatever told the maps, what they replace is one
                    says(cell, lost[means[column]][0])
            elif match := re.fullmatch("from (?:([0-9])|the other network's same layer)", column):
                key = (maps, target, int(match[1]), target, to) if match[1] else (maps, other, to, target, to)
                if key not in pairs:
                    assert cell == "", (title, column)
                else:
                    says(cell, pairs[key]["explained"]["matched"][0], pairs[key]["lost"]["matched"][0])
                    seen.add(key)
    # tiny-relu's rows show what tiny-gpt2's tangents tell, not its secants.
    assert set(pairs) - seen == {("secant", "tiny-gpt2", layer, "tiny-relu", layer) for layer in range(4)}
