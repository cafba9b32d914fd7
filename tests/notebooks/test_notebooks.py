"""The notebooks: what is stored, and executed from top to bottom on the CPU with small settings."""

import json
import os
import re
import sys
import types
from pathlib import Path

import pytest
from tiny_model import GEMMA3, QWEN3, SIZES, write_model

from memr1_jax.flag_files import expanded

nbclient = pytest.importorskip("nbclient", reason="nbclient, which executes notebooks, is missing")
nbformat = pytest.importorskip("nbformat", reason="nbformat is missing")
pytest.importorskip("ipykernel", reason="ipykernel is missing")

ROOT = Path(__file__).parents[2]
PLACES = ("colab", "kaggle")
MODELS = {"qwen3_06b": QWEN3, "gemma3_1b_lora": GEMMA3}
# As Gemma's: it has no system role.
TEMPLATE = (
    "{% for message in messages %}{% if message.role == 'system' %}"
    "{{ raise_exception('it has no system messages') }}{% endif %}"
    "<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>model\n{% endif %}"
)


def read(place):
    return nbformat.read(ROOT / "notebooks" / f"{place}_tpu.ipynb", as_version=4)


def choosing(place):
    """Returns the code that chooses what is trained."""
    (cell,) = [cell for cell in read(place).cells if cell.source.startswith("FLAGFILE = ")]
    return cell.source


@pytest.mark.parametrize("place", PLACES)
def test_a_notebook_is_stored_without_outputs(place):
    notebook = read(place)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert cells and all(not cell.outputs and cell.execution_count is None for cell in cells)


@pytest.mark.parametrize("place", PLACES)
def test_both_models_can_be_chosen_by_their_flag_files(place, monkeypatch):
    monkeypatch.chdir(ROOT)
    named = re.findall(r"\w+\.flags", choosing(place))
    assert {f"{place}_{model}.flags" for model in MODELS} <= set(named)
    for name in named:
        (model,) = [
            line for line in expanded([f"--flagfile={name}"]) if line.startswith("--model=")
        ]
        assert (
            model.split("/")[-1]
            .lower()
            .replace("-", "")
            .replace(".", "")
            .startswith(name.split("_")[1])
        )


THERE = {"colab": "COLAB_RELEASE_TAG", "kaggle": "KAGGLE_KERNEL_RUN_TYPE"}  # variables of each


@pytest.mark.parametrize("place", PLACES)
def test_a_secret_reaches_the_training_through_the_environment(place, monkeypatch, capsys):
    secrets = {"HF_TOKEN": "of a test"}
    userdata = types.SimpleNamespace(get=secrets.__getitem__)
    monkeypatch.setitem(sys.modules, "google", types.ModuleType("google"))
    monkeypatch.setitem(sys.modules, "google.colab", types.SimpleNamespace(userdata=userdata))
    client = types.SimpleNamespace(get_secret=secrets.__getitem__)
    kaggle = types.SimpleNamespace(UserSecretsClient=lambda: client)
    monkeypatch.setitem(sys.modules, "kaggle_secrets", kaggle)
    monkeypatch.setenv("HF_TOKEN", "")
    monkeypatch.delenv("HF_TOKEN")
    code = "import os, shlex, sys\n" + choosing(place)
    exec(code, {})
    assert "HF_TOKEN" not in os.environ  # elsewhere nothing is asked
    monkeypatch.setenv(THERE[place], "something")
    exec(code, {})
    assert os.environ["HF_TOKEN"] == "of a test"
    monkeypatch.delenv("HF_TOKEN")
    secrets.clear()
    exec(code, {})
    assert "there is no secret HF_TOKEN" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("place", PLACES)
def test_a_notebook_trains_evaluates_and_exports(place, model, tmp_path, monkeypatch):
    folder = write_model(tmp_path / "model", MODELS[model])
    if "gemma" in model:
        (folder / "chat_template.jinja").unlink(missing_ok=True)
        path = folder / "tokenizer_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": TEMPLATE}))
    devices = {"colab": 1, "kaggle": 2}[place]
    sizes = SIZES | {
        "model": folder,
        "manager_steps": 1,
        "answer_steps": 1,
        "micro_batches": 1,
        "mesh": f"data:1,fsdp:{devices},tensor:1",
    }
    flags = " ".join(f"--{name}={value}" for name, value in sizes.items())
    monkeypatch.setenv("XLA_FLAGS", f"--xla_force_host_platform_device_count={devices}")
    monkeypatch.setenv("MEMR1_NOTEBOOK_FLAGFILE", f"{place}_{model}.flags")
    monkeypatch.setenv("MEMR1_NOTEBOOK_FLAGS", flags)
    monkeypatch.setenv("MEMR1_NOTEBOOK_OUTPUT", str(tmp_path / "run"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    notebook = read(place)
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
    said = "".join(output.get("text", "") for output in shown)
    assert (tmp_path / "run" / "agents.zip").stat().st_size > 100_000
    for agent in ("manager", "answer"):
        exported = tmp_path / "run" / "export" / agent
        assert (exported / "model.safetensors").is_file()
        assert f"{exported}: {MODELS[model].family.model_type}, 1000 tokens" in said
