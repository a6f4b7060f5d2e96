"""What a user meets first: a quick import, public names, the README's commands, the notebook."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import polytope_lm as plm

ROOT = Path(__file__).resolve().parents[1]


def test_importing_brings_in_no_heavy_package() -> None:
    heavy = ("torch", "numpy", "transformers", "pandas")
    script = f"import sys, polytope_lm; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert out.stdout.strip() == "[]"


def test_public_names_exist_and_are_few() -> None:
    parts = [name for name in plm.__all__ if isinstance(getattr(plm, name), ModuleType)]
    assert len(plm.__all__) - len(parts) <= 20
    with pytest.raises(AttributeError, match="nothing"):
        plm.nothing  # noqa: B018


def test_the_function_documents_survives_its_module() -> None:
    import polytope_lm.documents  # noqa: F401

    assert [d.text for d in plm.documents(["a text", "another"])] == ["a text", "another"]


def test_the_readmes_commands_are_the_projects() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = re.findall(r"^pip install .*$", readme, re.MULTILINE)
    assert len(commands) == 2
    assert commands[0].endswith("polytope-lm demo")
    assert "pytest" in commands[1]
    for link in re.findall(r"\]\(([^)#]+)\)", readme):
        assert link.startswith("http") or (ROOT / link).exists(), link


def test_torch_is_pinned_once() -> None:
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert re.findall(r"^torch==[\d.]+$", pins, re.MULTILINE) == ["torch==2.13.0"]


NOTEBOOKS = (
    "quickstart", "polytopes", "neighbours", "monosemantic", "boundaries", "directions", "maps", "gpt2"
)  # fmt: skip


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_notebook_runs(tmp_path: Path, name: str) -> None:
    jupytext = pytest.importorskip("jupytext", reason="needs the extra docs")
    nbclient = pytest.importorskip("nbclient", reason="needs the extra docs")
    notebook = jupytext.read(ROOT / "notebooks" / f"{name}.py")
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert all(cell.outputs for cell in notebook.cells if cell.cell_type == "code")


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_notebooks_two_forms_agree(name: str) -> None:
    jupytext = pytest.importorskip("jupytext", reason="needs the extra docs")
    text, paired = (jupytext.read(ROOT / "notebooks" / f"{name}.{ext}") for ext in ("py", "ipynb"))
    assert [c.source for c in text.cells] == [c.source for c in paired.cells]
    assert all(cell.outputs for cell in paired.cells if cell.cell_type == "code")  # a repository page shows them


def test_a_page_and_its_function_share_a_name_and_the_function_has_it():
    code = (
        "import polytope_lm.predictions.clusters.test, polytope_lm.codes.overview, polytope_lm as plm; "
        "from polytope_lm.predictions import clusters; "
        "names = [name for name in plm.predictions.__all__ if name not in {'intruder_files', 'delphi'}]; "
        "print(all(callable(getattr(plm.predictions, name)) for name in names), "
        "callable(plm.predictions.intruder_files.write_items) and callable(plm.predictions.delphi.write_latents), "
        "clusters is plm.predictions.clusters, dir(plm.predictions) == plm.predictions.__all__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True"] * 4


def test_controls_can_be_clustered_whatever_was_imported_before():
    code = (
        "import polytope_lm.predictions.clusters.clusterers; "
        "from polytope_lm.representations import registered; "
        "print([each.draws for each in registered() if each.name == 'SimHash, rate-matched'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[5]"]
