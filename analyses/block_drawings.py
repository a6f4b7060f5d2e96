"""Draw where `x`, `u`, `h` and `post` are in one transformer block, a picture a kind of block.

python -m analyses.block_drawings --out docs/pictures
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

_LANES = {"top": 34, "middle": 92, "low": 150, "lowest": 204}
_INK, _SOFT, _BLUE = "#1d2125", "#59626b", "#0072b2"


@dataclass(frozen=True)
class Step:
    """Something in the picture.

    Attributes:
        at: how far to the right, in pixels.
        lane: its height.
        text: written in it.
        kind: `value` (a named tensor), `part` (a module) or `joint` (a sum or product).
        below: a second name, under a value: TransformerLens's.

    """

    at: int
    lane: str
    text: str
    kind: str = "part"
    below: str = ""


@dataclass(frozen=True)
class Block:
    """One kind of block.

    Attributes:
        name: of the file.
        title: for people who hear the picture.
        steps: what is drawn.
        arrows: from step to step, by number; a third entry names the lane by which a line goes round.

    """

    name: str
    title: str
    steps: tuple[Step, ...]
    arrows: tuple[tuple[int, int] | tuple[int, int, str], ...]


_PLAIN = (
    Step(40, "middle", "x", "value", "resid_mid"), Step(130, "middle", "norm"),
    Step(215, "middle", "u", "value", "mlp_in"),
    Step(300, "middle", "W, b"), Step(385, "middle", "h", "value", "pre"), Step(475, "middle", "GELU, ReLU"),
    Step(570, "middle", "post", "value", "post"), Step(655, "middle", "W_out"), Step(735, "middle", "+", "joint"),
    Step(385, "low", "code: h > 0", "code"),
)  # fmt: skip
_GATED = (
    Step(40, "middle", "x", "value", "resid_mid"), Step(130, "middle", "norm"),
    Step(215, "middle", "u", "value", "mlp_in"),
    Step(300, "middle", "W_gate"), Step(385, "middle", "h", "value", "pre"), Step(475, "middle", "SiLU, GELU"),
    Step(550, "middle", "\u00d7", "joint"), Step(612, "middle", "post", "value", "post"), Step(680, "middle", "W_out"),
    Step(745, "middle", "+", "joint"), Step(300, "lowest", "W_up"), Step(385, "lowest", "up", "value", "pre_linear"),
    Step(385, "low", "code: h > 0", "code"),
)  # fmt: skip
_ROUTER = (
    Step(40, "middle", "x", "value", "resid_mid"), Step(130, "middle", "norm"),
    Step(215, "middle", "u", "value", "mlp_in"),
    Step(300, "middle", "W_r"), Step(385, "middle", "r", "value", "router"), Step(475, "middle", "top k"),
    Step(590, "middle", "k of E experts"), Step(735, "middle", "+", "joint"), Step(475, "low", "code: which k", "code"),
)  # fmt: skip
_CHAIN = tuple((step, step + 1) for step in range(8))
_ROUND = (*_CHAIN, (0, 8, "top"), (4, 9))

BLOCKS = (
    Block("block-sequential", "Sequential block: GPT-2, OPT, MPT", _PLAIN, _ROUND),
    Block(
        "block-gated", "Gated block: Llama, Mistral, Qwen, Gemma, SmolLM2", _GATED,
        (*_CHAIN, (8, 9), (0, 9, "top"), (2, 10), (10, 11), (11, 6), (4, 12)),
    ),
    Block(
        "block-parallel", "Parallel block: GPT-J, most Pythias, Falcon, Phi",
        (Step(40, "middle", "x", "value", "resid_pre"), *_PLAIN[1:], Step(475, "top", "attention, of the same x")),
        (*_CHAIN, (0, 10), (10, 8), (4, 9)),
    ),
    Block(
        "block-post-norm", "Post-norm block: BERT, MiniLM, GPT-1", _PLAIN,
        (*_CHAIN, (2, 8, "top"), (4, 9)),
    ),
    Block(
        "block-router", "Mixture of experts: Mixtral, OLMoE, Qwen-MoE, DeepSeek-V3", _ROUTER,
        (*_CHAIN[:7], (0, 7, "top"), (5, 8)),
    ),
)  # fmt: skip


def _half_width(step: Step) -> float:
    return {"joint": 11, "value": 22}.get(step.kind, 4.0 * len(step.text) + 10)


def _drawn(step: Step) -> str:
    x, y, half = step.at, _LANES[step.lane], _half_width(step)
    text = f'<text x="{x}" y="{y + 5}">{step.text.replace(">", "&gt;")}</text>'
    if step.kind == "joint":
        return f'<circle cx="{x}" cy="{y}" r="11" class="joint"/>{text}'
    if step.kind == "value":
        named = f'<text x="{x}" y="{y + 24}" class="small">{step.below}</text>'
        return f'<text x="{x}" y="{y + 5}" class="value">{step.text}</text>{named}'
    shape = "code" if step.kind == "code" else "part"
    return f'<rect x="{x - half}" y="{y - 15}" width="{2 * half}" height="30" rx="5" class="{shape}"/>{text}'


def _arrow(block: Block, arrow: tuple[int, int] | tuple[int, int, str]) -> str:
    start, end = block.steps[arrow[0]], block.steps[arrow[1]]
    x, y, to_x, to_y = start.at, _LANES[start.lane], end.at, _LANES[end.lane]
    if len(arrow) == 3:
        over = _LANES[arrow[2]]
        path = f"M{x} {y - 14}V{over}H{to_x}V{to_y - 13}"
    elif y == to_y:
        path = f"M{x + _half_width(start)} {y}H{to_x - _half_width(end) - 3}"
    elif x == to_x:
        # Downwards, past the second name of a value.
        path = f"M{x} {y + (29 if start.kind == 'value' else 15)}V{to_y - 18}"
    elif start.kind == "value" and start.at < end.at and end.kind == "part":
        path = f"M{x} {y + (29 if to_y > y else -14)}V{to_y}H{to_x - _half_width(end) - 3}"
    else:
        path = f"M{x + _half_width(start)} {y}H{to_x}V{to_y + (13 if y > to_y else -13)}"
    return f'<path d="{path}" marker-end="url(#to)"/>'


def svg(block: Block) -> str:
    """Return one block's picture."""
    style = (
        f"text{{font:14px system-ui,sans-serif;text-anchor:middle;fill:{_INK}}}.small{{font-size:11px;fill:{_SOFT}}}"
        f".value{{font-weight:600}}path{{fill:none;stroke:{_SOFT};stroke-width:1.4}}.part{{fill:#f4f2ec;stroke:{_SOFT}}}"
        f".code{{fill:#e3f0f8;stroke:{_BLUE};stroke-width:1.6}}.joint{{fill:#fff;stroke:{_SOFT}}}"
    )
    head = (
        '<defs><marker id="to" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path d="M0 0L8 4L0 8z" style="fill:{_SOFT};stroke:none"/></marker></defs>'
    )
    drawn = "".join(_arrow(block, each) for each in block.arrows) + "".join(map(_drawn, block.steps))
    height = max(_LANES[step.lane] for step in block.steps) + 36
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 790 {height}" role="img" aria-label="{block.title}">'
        f"<style>{style}</style>{head}<rect width='790' height='{height}' fill='#fff'/>{drawn}</svg>\n"
    )


def main() -> None:
    """Write the pictures."""
    parser = argparse.ArgumentParser(prog="python -m analyses.block_drawings", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="directory of the pictures")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    for block in BLOCKS:
        (out / f"{block.name}.svg").write_text(svg(block), encoding="utf-8")


if __name__ == "__main__":
    main()
