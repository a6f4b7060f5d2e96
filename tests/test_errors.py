"""A public function that is called wrongly answers in one line, before it does anything."""

from __future__ import annotations

import inspect

import pytest

import polytope_lm as plm
from polytope_lm.errors import public


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: plm.load("tiny-gpt2", devise="cpu"), r"^load\(\) .*'devise'.*'device'\?$"),
        (lambda: plm.wrap(None, tokeniser=None), r"^wrap\(\) .*'tokeniser'.*'tokenizer'\?$"),
        (lambda: plm.encode(None, "x", zzzz=1), r"^encode\(\) .*'zzzz'.*choose among model, "),
        (lambda: plm.encode(None, "x", batch_token=1), r"^encode\(\) .*'batch_tokens'\?$"),
        (plm.capture, r"^capture\(\): .*'model'"),
        (lambda: plm.open_store("a", "b"), r"^open_store\(\): too many positional"),
        (lambda: plm.load("tiny-gpt2", name="x"), r"^load\(\): multiple values .*'name'"),
    ],
)
def test_a_wrong_call_is_one_line(call, said):
    with pytest.raises(plm.PolytopeError, match=said) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [n for n in plm.__all__ if inspect.isfunction(getattr(plm, n))])
def test_every_public_function_is_checked(name):
    with pytest.raises(plm.PolytopeError, match=rf"^{name}\(\) has no argument 'qqqq'"):
        getattr(plm, name)(qqqq=1)


def test_errors_of_the_function_itself_pass():
    @public
    def wrong(x: int = 0) -> None:
        raise TypeError(f"inside {x}")

    assert str(inspect.signature(wrong)) == "(x: 'int' = 0) -> 'None'"
    with pytest.raises(TypeError, match="inside 3"):
        wrong(x=3)
