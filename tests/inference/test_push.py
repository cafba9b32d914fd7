"""Publishing a run's agents on a local stand-in of the hub, and reading them back."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import jax
import numpy as np
import pytest
from tiny_model import CONFIG, make_tiny, random_params, tiny_folder
from transformers import AutoTokenizer

from experiments import push as command
from memr1_jax.agents.agent_folder import write_settings
from memr1_jax.agents.chat_examples import write_chat_examples
from memr1_jax.errors import UserError
from memr1_jax.evals.answering import Prediction, summarise
from memr1_jax.evals.evaluator import Evaluation
from memr1_jax.evals.report.report import write_evaluation
from memr1_jax.inference.loading import load
from memr1_jax.inference.model_card import load_call, model_card
from memr1_jax.inference.push import push
from memr1_jax.models.hf.hf_weights import load_params
from memr1_jax.models.hf.peft import export_adapters
from memr1_jax.models.hf.sources import published_name, resolve_model
from memr1_jax.models.lora import LoRA, init_adapters, merge
from memr1_jax.options import with_options

# As Gemma's and Qwen3's templates differ from others.
TURNS = (
    "<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
)
WITHOUT_SYSTEM = (
    "{% for message in messages %}{% if message.role == 'system' %}"
    "{{ raise_exception('it has no system messages') }}{% endif %}" + TURNS + "{% endif %}"
)
REASONING = (
    "{% for message in messages %}" + TURNS + "{% if enable_thinking is defined and"
    " not enable_thinking %}<think></think>{% endif %}{% endif %}"
)
LORA = LoRA(rank=2, alpha=4.0, targets=("query", "down"))


def evaluation(right):
    """Makes six answers, the first `right` of them right."""
    predictions = []
    for index in range(6):
        scores = {"category": 1, "f1_set_of_words": 0.5, "exact_match": float(index < right)}
        rest = ("cat", 1, "", "", "whole", 1, True, scores)
        predictions.append(Prediction("first", index, "?", *rest))
    return Evaluation(summarise(predictions), predictions, {"turns": 5.0})


def adapters():
    made = init_adapters(CONFIG, LORA, jax.random.key(0))
    return jax.tree.map(lambda x: np.full(x.shape, 0.01, np.float32), made)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Returns the folder of a run that exported both agents, and the manager's adapters."""
    folder = tmp_path_factory.mktemp("run")
    tiny = make_tiny()
    for agent in ("manager", "answer"):
        exported = shutil.copytree(tiny_folder(), folder / "export" / agent)
        write_settings(exported, tiny.options, "noted", tiny.pair.encoder.embedder)
        model = tiny.models.of(agent)
        write_chat_examples(exported, tiny.options, model.tokenizer, model.stop_tokens)
    export_adapters(folder / "export" / "manager_adapter", adapters(), LORA, CONFIG, "ana/base")
    inputs = {
        "--model": {"name": "Qwen/Qwen2.5-0.5B-Instruct", "digest": "ab"},
        "prompt of the manager": {"name": "manager_compact", "digest": "cd12"},
    }
    options = {"algorithm": "grpo", "group": 8, "batch": 128, "output": "/home/ana/runs/one"}
    (folder / "run.json").write_text(json.dumps({"inputs": inputs, "options": options}))
    for when, right in (("before", 2), ("after", 5)):
        write_evaluation(folder, when, evaluation(right), "validation")
    return folder


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Returns a folder that takes commits and gives files as the hub does."""
    root = tmp_path / "hub"

    class Api:
        def create_repo(self, name, *, private, exist_ok):
            (root / name).mkdir(parents=True, exist_ok=exist_ok)
            (root / name / ".private").write_text(str(private))

        def create_commit(self, name, operations, *, commit_message):
            for operation in operations:
                content = operation.path_or_fileobj
                content = content if isinstance(content, bytes) else Path(content).read_bytes()
                (root / name / operation.path_in_repo).write_bytes(content)

    def download(name, **_):
        if not (root / name).is_dir():
            raise OSError("404")
        return str(root / name)

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.setenv("MEMR1_CACHE", str(tmp_path / "cache"))
    return root


def test_what_is_pushed_is_loaded_as_it_was_trained(run, hub):
    told = []
    assert push(run, "ana/pair", license="apache-2.0", say=told.append) == [
        "ana/pair-manager",
        "ana/pair-answer",
    ]
    assert len(told) == 2
    assert (hub / "ana/pair-manager/.private").read_text() == "True"
    agents = load("ana/pair")
    assert agents.models.manager.folder == hub / "ana/pair-manager"
    assert agents.models.answerer.folder == hub / "ana/pair-answer"
    assert agents.options.memories == make_tiny().options.memories
    card = (hub / "ana/pair-manager/README.md").read_text()
    head, body = card.removeprefix("---\n").split("---\n", 1)
    assert "base_model: Qwen/Qwen2.5-0.5B-Instruct\n" in head
    assert "license: apache-2.0\n" in head and "library_name: transformers\n" in head
    assert "| 33.3 → 83.3 (+50.0 [" in body  # exact match with its interval
    assert "| manager | manager_compact | `cd12` |" in body
    assert "--group=8\n" in body and "/home/ana" not in card
    assert 'm1.load("ana/pair")' in body and "`ana/pair-answer`" in body


def test_adapters_alone_are_merged_into_their_base_model_on_loading(run, hub, tmp_path):
    shutil.copytree(tiny_folder(), hub / "ana" / "base")
    assert push(run, "ana/small", adapters=True, private=False, say=str) == ["ana/small-manager"]
    pushed = hub / "ana/small-manager"
    assert (pushed / ".private").read_text() == "False"
    assert not (pushed / "config.json").exists()
    assert "library_name: peft" in (pushed / "README.md").read_text()
    folder = resolve_model("ana/small-manager")
    assert folder.is_relative_to(tmp_path / "cache") and (folder / "memr1_jax.json").is_file()
    found, config = load_params(folder)
    assert config == load_params(tiny_folder())[1]
    jax.tree.map(
        np.testing.assert_array_equal, found, merge(random_params(), adapters(), LORA.scale)
    )
    written = (folder / "config.json").stat().st_mtime_ns
    assert resolve_model(run / "export" / "manager_adapter") == folder  # a folder here is as good
    assert (folder / "config.json").stat().st_mtime_ns == written  # and not merged again


def test_adapters_of_a_model_that_is_only_here_stay_here(run, hub, tmp_path):
    copy = shutil.copytree(run, tmp_path / "run")
    path = copy / "export" / "manager_adapter" / "adapter_config.json"
    named = json.loads(path.read_text()) | {"base_model_name_or_path": str(tiny_folder())}
    path.write_text(json.dumps(named))
    with pytest.raises(UserError, match="a model that others do not have. Push the merged model"):
        push(copy, "ana/small", adapters=True, say=str)
    assert not hub.exists()


def test_the_card_of_an_agent_that_was_trained_alone_says_how_it_is_loaded(run, hub, tmp_path):
    base = "Qwen/Qwen2.5-0.5B-Instruct"
    shutil.copytree(tiny_folder(), hub / base)
    for agent, other in (("manager", "answer"), ("answer", "manager")):
        one = shutil.copytree(run, tmp_path / agent)
        shutil.rmtree(one / "export" / other)
        assert push(one, "ana/one", say=str) == [f"ana/one-{agent}"]
        card = (hub / f"ana/one-{agent}/README.md").read_text()
        assert f"was not trained: {base}." in card
        (line,) = [line for line in card.splitlines() if line.startswith("agents = ")]
        assert line == f"agents = {load_call(one, 'ana/one', [agent])}"
        agents = eval(line.removeprefix("agents = "), {"m1": SimpleNamespace(load=load)})
        folders = {"manager": agents.models.manager.folder, "answer": agents.models.answerer.folder}
        assert folders == {agent: hub / f"ana/one-{agent}", other: hub / base}
        assert agents.options.memories == make_tiny().options.memories  # as trained, either way


def test_the_card_says_that_weights_had_4_bits(tmp_path):
    inputs = {"--model": {"name": "smollm2-135m-q4", "digest": "ab"}}
    options = {"model": "smollm2-135m-q4", "answer_model": "/home/ana/mine", "group": 3}
    (tmp_path / "run.json").write_text(json.dumps({"inputs": inputs, "options": options}))
    card = model_card(tmp_path, "manager", "ana/pair")
    assert "base_model: HuggingFaceTB/SmolLM2-135M-Instruct\n" in card
    assert "SmolLM2-135M-Instruct, its 4-bit weights dequantised (`smollm2-135m-q4`)" in card
    assert "--answer_model=mine\n" in card and "--group=3\n" in card and "/home" not in card
    (tmp_path / "run.json").write_text(
        json.dumps({"inputs": {"--model": {"name": "gemma3-270m-q4"}}})
    )
    assert "google/gemma-3-270m, its 4-bit weights" in model_card(tmp_path, "answer", "ana/pair")


def test_the_card_says_how_was_trained_and_when_was_measured(run, tmp_path):
    card = model_card(run, "answer", "ana/pair")
    assert "Trained by outcome, GRPO, with memr1_jax" in card and "- reinforcement-learning" in card
    assert "Weights: whole, for from_pretrained" in card and "before and after training" in card
    options = {"algorithm": "sft", "lora_rank": 4}
    (tmp_path / "run.json").write_text(json.dumps({"options": options}))
    write_evaluation(tmp_path, "before", evaluation(2), "test")
    card = model_card(tmp_path, "answer", "ana/pair")
    assert "Trained on demonstrations, with memr1_jax" in card
    assert "reinforcement-learning" not in card
    assert "whole, adapters merged in, for from_pretrained" in card
    assert "split 'test', in percent, before training alone." in card


def test_what_cannot_be_pushed_is_told(run, hub, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="'pair' is no name on the hub"):
        push(run, "pair")
    with pytest.raises(UserError, match="has exported no agents; resume with --export"):
        push(tmp_path, "ana/pair")
    with pytest.raises(UserError, match="Nor is there a pair ana/none-manager and ana/none-answer"):
        load("ana/none")

    def forbid(*_, **__):
        raise OSError("403 Forbidden")

    monkeypatch.setattr(huggingface_hub.HfApi, "create_commit", forbid)
    with pytest.raises(UserError, match="did not take ana/pair-manager .403 Forbidden.*hf auth"):
        push(run, "ana/pair")


def test_the_command_takes_run_and_name_without_flags(run, hub, capsys, monkeypatch):
    seen = []
    monkeypatch.setattr(command, "run", lambda options, main, about, argv: seen.append(argv))
    command.command(["memr1 push", "runs/one", "ana/pair", "--adapters"])
    assert seen == [["memr1 push", "--run=runs/one", "--name=ana/pair", "--adapters"]]
    command.main(command.PushConfig(run=str(run), name="ana/pair"))
    assert 'm1.load("ana/pair")' in capsys.readouterr().out


def test_names_that_others_can_find():
    assert published_name("Qwen/Qwen3-4B") == "Qwen/Qwen3-4B"
    assert published_name("gemma3-270m-q4") == "google/gemma-3-270m"
    assert published_name("smollm2-135m-q4") == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert published_name("nano") == published_name("/home/ana/model") == ""


def rendered_by_transformers(example, tokenizer):
    return tokenizer.apply_chat_template(
        example["messages"],
        tokenize=False,
        add_generation_prompt=True,
        **example["chat_template_kwargs"],
    )


def test_chat_examples_are_what_transformers_renders_and_the_device_sees(run):
    tiny = make_tiny()
    tokenizer = AutoTokenizer.from_pretrained(run / "export" / "answer")
    examples = json.loads((run / "export" / "answer" / "chat_examples.json").read_text())
    assert list(examples) == ["manager", "answer"]
    for agent, example in examples.items():
        rendered = rendered_by_transformers(example, tokenizer)
        assert example["rendered"] == rendered
        template = getattr(tiny.pair, "manager" if agent == "manager" else "answerer").template
        beginning = list(template.instruction)[:-1]  # the last may join what follows
        assert tokenizer.encode(rendered, add_special_tokens=False)[: len(beginning)] == beginning
        assert "Ana has a dog." in rendered
    assert examples["answer"]["max_tokens"] == tiny.options.answer_response_length
    assert examples["answer"]["stop_token_ids"] == list(tiny.models.answerer.stop_tokens)


@pytest.mark.parametrize("thinking", [False, True])
@pytest.mark.parametrize("template", [WITHOUT_SYSTEM, REASONING], ids=["no system", "reasoning"])
def test_chat_examples_of_other_templates_render_alike_elsewhere(template, thinking, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder())
    tokenizer.chat_template = template
    options = with_options(make_tiny().options, thinking=thinking, constrained=False)
    write_chat_examples(tmp_path, options, tokenizer, (1,))
    examples = json.loads((tmp_path / "chat_examples.json").read_text())
    for example in examples.values():
        assert example["rendered"] == rendered_by_transformers(example, tokenizer)
        assert "Ana has a dog." in example["rendered"]
        closed = example["rendered"].endswith("<think></think>")
        assert closed == (template == REASONING and not thinking)
