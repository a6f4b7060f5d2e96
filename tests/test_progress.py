"""A long job says how far it is: a bar on a terminal, elsewhere a line at regular times."""

import io
import re
import time

import pytest

from polytope_lm.progress import progress, stepwise


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_outside_a_terminal_lines_come_at_regular_times_also_while_one_step_takes_long() -> None:
    out = io.StringIO()
    with progress("capture", stream=out, every=0.05) as told:
        told(25, 100, "shard\x1b[31m 3")
        time.sleep(0.18)
    lines = out.getvalue().splitlines()
    assert 2 <= len(lines) <= 4
    found = re.fullmatch(r"capture: 25 %, 0 min so far, about 1 min left \(shard\\u001b\[31m 3\)", lines[0])
    assert found, lines[0]
    before = out.getvalue()
    time.sleep(0.12)
    assert out.getvalue() == before, "nothing is said once the job is over"


def test_a_job_that_ends_soon_or_is_not_shown_says_nothing() -> None:
    out = io.StringIO()
    with progress("capture", stream=out) as told:
        told(1, 2, "")
    with progress("capture", show=False, stream=out, every=0.01) as told:
        told(1, 2, "x")
        time.sleep(0.05)
    assert out.getvalue() == ""


def test_a_terminal_gets_a_bar_that_is_gone_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    out = Terminal()
    with progress("test", stream=out) as told:
        told(1, 4, "layer 2: [red]\x1b]0;x\x07")
        time.sleep(0.3)
    assert "layer 2: [red]" in out.getvalue()
    assert "\x1b]0" not in out.getvalue()
    assert "25%" in out.getvalue()


def test_an_error_inside_ends_the_lines_and_goes_on() -> None:
    out = io.StringIO()
    with pytest.raises(ZeroDivisionError), progress("test", stream=out, every=0.02):
        1 / 0  # noqa: B018
    before = out.getvalue()
    time.sleep(0.06)
    assert out.getvalue() == before


def test_steps_are_counted_before_each() -> None:
    seen: list[tuple[int, int, str]] = []
    tell = stepwise(lambda *step: seen.append(step), 2)
    tell("a")
    tell("b")
    stepwise(None, 1)("nobody listens")
    assert seen == [(0, 2, "a"), (1, 2, "b")]
