"""The notebook, executed from top to bottom on the CPU with small settings."""

import os
from pathlib import Path

import pytest
from tiny_model import SIZES, tiny_folder

nbclient = pytest.importorskip("nbclient", reason="nbclient, which executes notebooks, is missing")
nbformat = pytest.importorskip("nbformat", reason="nbformat is missing")
pytest.importorskip("ipykernel", reason="ipykernel is missing")

ROOT = Path(__file__).parents[2]
PATH = ROOT / "notebooks" / "colab_tpu.ipynb"


def test_the_notebook_is_stored_without_outputs():
    notebook = nbformat.read(PATH, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert cells and all(not cell.outputs and cell.execution_count is None for cell in cells)


@pytest.mark.slow
def test_the_notebook_trains_evaluates_and_exports(tmp_path, monkeypatch):
    sizes = SIZES | {
        "model": tiny_folder(),
        "manager_steps": 1,
        "answer_steps": 1,
        "micro_batches": 1,
    }
    flags = " ".join(f"--{name}={value}" for name, value in sizes.items())
    monkeypatch.setenv("MEMR1_NOTEBOOK_FLAGS", flags)
    monkeypatch.setenv("MEMR1_NOTEBOOK_OUTPUT", str(tmp_path / "run"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    notebook = nbformat.read(PATH, as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=900, resources={"metadata": {"path": str(ROOT)}}
    )
    client.execute()

    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    data = [output["data"] for output in shown if "data" in output]
    tables = [
        item["text/markdown"] for item in data if "| category" in item.get("text/markdown", "")
    ]
    assert len(tables) == 2
    assert any("image/png" in item for item in data)
    assert (tmp_path / "run" / "agents.zip").stat().st_size > 100_000
    for agent in ("manager", "answer"):
        assert (tmp_path / "run" / "export" / agent / "model.safetensors").is_file()
