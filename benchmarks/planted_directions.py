"""The verdict on directions in planted worlds: flips alone make the error, or curvature alone does.

Run with `python -m benchmarks.planted_directions [--runs 100] [--json]`.
"""

from __future__ import annotations

from typing import Any

import polytope_lm as plm
from benchmarks._machine import Figure, arguments, describe, report
from polytope_lm.predictions.directions.predicting import first_question
from polytope_lm.statistics.verdict import decide


def supported(activation: Any, runs: int) -> float:
    """Return the share of worlds in which the claim is supported."""
    count = 0
    for seed in range(runs):
        world = plm.worlds.direction_mlp_world(activation, seed=seed)
        cells, _ = first_question(
            world.radius, world.flips, world.planes, world.covariates, world.prompt, seed=seed, resamples=400
        )
        verdict = decide(
            cells, place="World", documents=60, smallest_effect=0.02, premises="", premises_met=True, unit="prompts"
        )
        count += verdict.outcome == "supported"
    return count / runs


def main() -> None:
    """Count and print."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--runs", type=int, default=100, help="worlds of each kind (100)")
    asked = parser.parse_args()
    machine = describe()
    note = f"{asked.runs} worlds of 60 prompts with 3 directions"
    report(
        [
            Figure("supported, ReLU world", supported("relu", asked.runs), "of runs", must=0.9, note=note),
            Figure(
                "supported, softplus world", supported("softplus", asked.runs), "of runs", must=0.025, bound="at most",
                note=note,
            ),
        ],
        asked.json,
        machine,
    )  # fmt: skip


if __name__ == "__main__":
    main()
