"""One layer: every representation and control, scored against every label.

A representation's clusters and neighbours know no label, so several labels of the same tokens cost little
more than one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from polytope_lm.controls import simhash
from polytope_lm.errors import PolytopeError
from polytope_lm.predictions.learned import MAKERS, SHOWN, row_name
from polytope_lm.predictions.nulls import LABELS_PERMUTED, TOKEN_IDENTITY, labels_permuted, token_identity
from polytope_lm.predictions.scoring import laid_out, scored
from polytope_lm.representations import code, cosine, standardised
from polytope_lm.representations.registry import get

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from polytope_lm.predictions.learned import Controls
    from polytope_lm.predictions.scoring import Layout, Measured, Task
    from polytope_lm.representations.arrays import LayerArrays
    from polytope_lm.representations.registry import Representation

BUILT_IN = (code.NAME, standardised.NAME, *cosine.COSINES, simhash.NAME)
"""What the verdict reads, and the rate-standardised code: measured always."""


@dataclass(frozen=True)
class Menu:
    """What is measured in each layer.

    Attributes:
        representations: the built-in ones first.
        nulls: of `nulls.NULLS`.
        controls: the model with other weights; one without names measures none.
        unavailable: rows that can be had in no layer, with the reason.

    """

    representations: tuple[Representation, ...]
    nulls: tuple[str, ...]
    controls: Controls
    unavailable: Mapping[str, str]

    @property
    def steps(self) -> int:
        """How many rows there will be."""
        return len(self.representations) + len(self.nulls) + len(self.controls.names) * len(SHOWN)


class LayerScores:
    """One layer's rows, label by label, as they come in.

    Args:
        tasks: what is shared by all representations, by label; the same tokens, halves and k in each.
        clock: told the seconds of each step.
        tell: told `(step, what)` before each row.

    Attributes:
        measured: by label, then by row.
        left_out: by label, then by row: the reason.

    """

    def __init__(
        self,
        tasks: Mapping[str, Task],
        clock: Callable[[str, float], None],
        tell: Callable[[int, str], None],
    ) -> None:
        self.measured: dict[str, dict[str, Measured]] = {label: {} for label in tasks}
        self.left_out: dict[str, dict[str, str]] = {label: {} for label in tasks}
        self._tasks, self._clock, self._tell = tasks, clock, tell
        self._step = 0

    def run(self, menu: Menu, arrays: LayerArrays) -> None:
        """Measure what can be measured; what can't says why, but the built-in representations raise."""
        first: list[Layout] = []
        for representation in menu.representations:
            found = self._add(representation, arrays, must=representation.name in BUILT_IN)
            first = first or found
        for name in menu.nulls:
            self._null(name, first[0])
        for control in menu.controls.names:
            self._control(menu.controls, control, arrays.site.layer)
        for reasons in self.left_out.values():
            reasons.update(menu.unavailable)

    def _add(self, representation: Representation, arrays: LayerArrays, *, must: bool) -> list[Layout]:
        self._next(representation.name)
        try:
            layouts = laid_out(representation, arrays, next(iter(self._tasks.values())), self._clock)
            for label, task in self._tasks.items():
                self.measured[label][representation.name] = scored(representation, layouts, task, self._clock)
        except PolytopeError as error:
            if must:
                raise
            self._leave_out(representation.name, error)
            return []
        return layouts

    def _null(self, name: str, code_layout: Layout) -> None:
        self._next(name)
        for label, task in self._tasks.items():
            try:
                self.measured[label][name] = (
                    token_identity(task) if name == TOKEN_IDENTITY else labels_permuted(code_layout, task)
                )
            except PolytopeError as error:
                self.left_out[label][name] = str(error)

    def _control(self, controls: Controls, control: str, layer: int) -> None:
        names = {name: row_name(name, control) for name in SHOWN}
        try:
            arrays = controls.arrays(control, layer)
        except PolytopeError as error:
            for name in names.values():
                self._next(name)
                self._leave_out(name, error)
            return
        for name, shown in names.items():
            as_control = replace(get(name), name=shown, role="control", isolates=MAKERS[control][2])
            self._add(as_control, arrays, must=False)

    def _next(self, what: str) -> None:
        self._tell(self._step, what)
        self._step += 1

    def _leave_out(self, name: str, error: PolytopeError) -> None:
        for label in self._tasks:
            self.measured[label].pop(name, None)
            self.left_out[label][name] = str(error)


def beside_code(measured: Mapping[str, Measured]) -> tuple[str, ...]:
    """Return the controls over which the code's lead is shown: other weights, other labels, the lexicon."""
    wanted = (*(row_name(code.NAME, control) for control in MAKERS), LABELS_PERMUTED, TOKEN_IDENTITY)
    return tuple(name for name in wanted if name in measured)
