"""The page of a training: its curves hold every number, and in a browser they are chosen, hidden and read off."""

from __future__ import annotations

import json

import pytest

from analyses import training_page

STEPS = [
    {
        "step": step,
        "values": {
            "loss, held out": 4.0 - at,
            "local complexity, r = 0.05 |x|, layer 0, training": 40.0 - 10 * at,
            "local complexity, r = 0.05 |x|, layer 1, training": 20.0 + at,
            "sharpness": 1.0,
            "lead, AMI": 0.1 * at,
            "lead, AMI, low": -0.1,
            "lead, AMI, high": 0.25,
            "bits changed to the last": 0.5,
            "SimHash bits changed to the last": 0.4,
        }
        | ({"local complexity, r = 0.05 |x|, layer 1, decision boundary": 31.25} if step != 1 else {}),
    }
    for at, step in enumerate((0, 1, 64))
]
NUMBERS = {
    "a <b>": {"settled": {"settled: bits changed": 64.0}, "steps": STEPS},
    "b": {"settled": {"settled: bits changed": 0.0}, "steps": STEPS[:1]},
}


def test_curves_that_belong_together_share_a_panel_and_none_is_lost():
    found = training_page.panels(STEPS)
    assert {title: [curve["name"] for curve in curves] for title, curves in found.items()} == {
        "loss": ["held out"],
        "local complexity, r = 0.05 |x|, layer 0": ["training"],
        "local complexity, r = 0.05 |x|, layer 1": ["training", "decision boundary"],
        "sharpness": ["sharpness"],
        "lead": ["AMI"],
        "changed to the last": ["bits changed", "SimHash bits changed"],
    }
    assert found["lead"] == [{"name": "AMI", "values": [0.0, 0.1, 0.2], "low": [-0.1] * 3, "high": [0.25] * 3}]
    assert found["local complexity, r = 0.05 |x|, layer 1"][1]["values"] == [31.25, None, 31.25]


@pytest.mark.parametrize(
    ("kept", "said"), [("{}", "no network was measured"), ("{", r"numbers\.json: JSONDecodeError")]
)
def test_what_cannot_be_drawn_is_said_in_one_line(tmp_path, kept, said):
    (tmp_path / "numbers.json").write_text(kept)
    with pytest.raises(SystemExit, match=f"^error: .*{said}"):
        training_page.main([str(tmp_path / "numbers.json"), str(tmp_path / "page.html")])
    assert not (tmp_path / "page.html").exists()


@pytest.mark.browser
def test_curves_are_chosen_hidden_and_read_off(tmp_path, opened):
    (tmp_path / "numbers.json").write_text(json.dumps(NUMBERS))
    training_page.main([str(tmp_path / "numbers.json"), str(tmp_path / "page.html")])
    page, trouble, requests = opened(tmp_path / "page.html")

    def titles():
        return page.locator("#panels h2").all_inner_texts()

    def keys(title):
        return [
            text.replace("\n", " ")
            for text in page.locator(f"figure:has(h2:text-is('{title}')) button").all_inner_texts()
        ]

    other = "local complexity, r = 0.05 |x|, layer 0"
    middle = "local complexity, r = 0.05 |x|, layer 1"
    assert titles() == ["loss", middle, "sharpness", "lead", "changed to the last"]
    assert page.inner_text("#settled") == "settled by update: bits changed 64"
    assert keys(middle) == ["training 22", "decision boundary 31.3"]
    assert keys("lead") == ["AMI 0.2 [\u22120.1, 0.25]"]
    page.focus("#step")
    page.keyboard.press("ArrowLeft")
    assert page.inner_text("#step-told") == "1"
    assert keys(middle) == ["training 21", "decision boundary \u2013"]
    page.locator(f"figure:has(h2:text-is('{middle}')) svg").first.hover(position={"x": 1, "y": 40})
    assert page.inner_text("#step-told") == "0"
    assert keys("loss") == ["held out 4"]
    lines = page.locator(f"figure:has(h2:text-is('{middle}')) > svg > path")
    before = lines.count()
    page.locator(f"figure:has(h2:text-is('{middle}')) button").first.click()
    assert lines.count() == before - 1
    assert (
        page.locator("button[aria-pressed=false]").all_inner_texts()
        == page.locator("button:has-text('training')").all_inner_texts()
    )
    page.select_option("#layer", "")
    assert titles()[1:3] == [other, middle]
    page.select_option("#family", "local complexity")
    page.select_option("#layer", "0")
    assert titles() == [other]
    page.check("#log")
    page.select_option("#network", "b")
    assert titles() == [middle]
    assert page.inner_text("#step-told") == "0"
    assert trouble == []
    assert len(requests) == 1


def test_the_published_page_has_the_kept_numbers(pytestconfig):
    root = pytestconfig.rootpath
    numbers = json.loads((root / "analyses" / "results" / "training-dynamics.json").read_text())
    text = (root / "docs" / "pictures" / "training.html").read_text()
    data = json.loads(text.partition('id="data">')[2].partition("</script>")[0])
    assert list(data["networks"]) == list(numbers)
    for name, each in numbers.items():
        drawn = data["networks"][name]
        assert drawn["steps"] == [row["step"] for row in each["steps"]]
        assert drawn["panels"] == training_page.panels(each["steps"])
    assert len(text) < 2_000_000
