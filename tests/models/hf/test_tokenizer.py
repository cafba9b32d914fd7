"""The tokenizer of a model folder."""

import dataclasses
import json

import pytest
import tokenizers

from memr1_jax.errors import UserError
from memr1_jax.models.decoder_config import PRESETS
from memr1_jax.models.hf.tokenizer import check_tokenizer, load_tokenizer, stop_tokens, turn_end

TINY = PRESETS["tiny"]
TEMPLATE = "{% for m in messages %}<s>{{ m['content'] }}</s>{% endfor %}"


@pytest.fixture
def folder(tmp_path):
    model = tokenizers.models.BPE({"a": 0, "b": 1, "<s>": 2, "</s>": 3, "<end>": 4}, [])
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.add_special_tokens(["<s>", "</s>", "<end>"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    write(tmp_path, eos_token="</s>", chat_template=TEMPLATE)
    return tmp_path


def write(folder, **options):
    options["tokenizer_class"] = "PreTrainedTokenizerFast"
    (folder / "tokenizer_config.json").write_text(json.dumps(options))


def test_loads_and_renders_a_chat(folder):
    tokenizer = load_tokenizer(folder)
    text = tokenizer.apply_chat_template([{"role": "user", "content": "ab"}], tokenize=False)
    assert text == "<s>ab</s>"
    assert tokenizer(text).input_ids == [2, 0, 1, 3]
    check_tokenizer(tokenizer, TINY, folder)


@pytest.mark.parametrize(
    ("generation", "stops"),
    [(None, (3,)), ({"eos_token_id": 4}, (3, 4)), ({"eos_token_id": [4, 3]}, (3, 4)), ({}, (3,))],
)
def test_stop_tokens(folder, generation, stops):
    if generation is not None:
        (folder / "generation_config.json").write_text(json.dumps(generation))
    assert stop_tokens(folder, load_tokenizer(folder)) == stops


@pytest.mark.parametrize(
    ("template", "end", "stops"),
    [
        (TEMPLATE, 3, (3,)),
        (TEMPLATE.replace("</s>", "<end>\n"), 4, (3, 4)),
        (TEMPLATE.replace("</s>", " {{ eos_token }}"), 3, (3,)),
        ("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}", None, (3,)),
        ("{{ messages[0].content }}<end>", None, (3,)),  # it drops what the assistant said
    ],
)
def test_a_turn_ends_where_the_chat_template_ends_it(folder, template, end, stops):
    write(folder, eos_token="</s>", chat_template=template)
    tokenizer = load_tokenizer(folder)
    assert turn_end(tokenizer) == end
    assert stop_tokens(folder, tokenizer) == stops


def test_warns_where_a_turn_ends_with_no_control_token(folder):
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    write(folder, eos_token="</s>", chat_template=template)
    with pytest.warns(UserWarning, match="ends the assistant's turns with no control token"):
        check_tokenizer(load_tokenizer(folder), TINY, folder)


def test_config_json_names_end_tokens_where_nothing_else_does(folder):
    (folder / "config.json").write_text('{"model_type": "llama", "eos_token_id": [1, 4]}')
    assert stop_tokens(folder, load_tokenizer(folder)) == (1, 3, 4)
    (folder / "generation_config.json").write_text('{"eos_token_id": 2}')
    assert stop_tokens(folder, load_tokenizer(folder)) == (2, 3)


@pytest.mark.parametrize("value", ['"</s>"', "[3, null]", '["3"]', "-1", "3.0", "true", "{}"])
def test_refuses_an_end_token_that_is_no_number(folder, value):
    (folder / "generation_config.json").write_text(f'{{"eos_token_id": {value}}}')
    with pytest.raises(UserError, match=r"generation_config\.json gives .* as eos_token_id"):
        stop_tokens(folder, load_tokenizer(folder))


def test_refuses_an_end_token_beyond_the_vocabulary(folder):
    (folder / "generation_config.json").write_text('{"eos_token_id": [3, 512]}')
    with pytest.raises(UserError, match="the end token 512, but .* has 512 entries"):
        check_tokenizer(load_tokenizer(folder), TINY, folder)


@pytest.mark.parametrize(
    "template",
    ["{% for", "{{ raise_exception('no') }}", "{% for i in range(10**9) %}{% endfor %}"],
)
def test_refuses_a_template_that_cannot_be_rendered(folder, template):
    write(folder, eos_token="</s>", chat_template=template)
    with pytest.raises(UserError, match=f"The chat template in {folder} does not render"):
        check_tokenizer(load_tokenizer(folder), TINY, folder)


@pytest.mark.parametrize("name", ["tokenizer_config.json", "generation_config.json", "config.json"])
@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "[]", "null", ""])
def test_names_a_file_that_is_no_json_object(folder, name, text):
    (folder / name).write_text(text)
    with pytest.raises(UserError, match=f"{folder}/{name}"):
        load_tokenizer(folder)


def test_refuses_a_larger_vocabulary(folder):
    with pytest.raises(UserError, match="token ids up to 4, .* has 4 entries"):
        check_tokenizer(load_tokenizer(folder), dataclasses.replace(TINY, vocab_size=4), folder)


def test_refuses_what_cannot_chat_or_stop(folder):
    write(folder, eos_token="</s>")
    with pytest.raises(UserError, match="no chat template"):
        check_tokenizer(load_tokenizer(folder), TINY, folder)
    write(folder, chat_template=TEMPLATE)
    with pytest.raises(UserError, match="end token"):
        check_tokenizer(load_tokenizer(folder), TINY, folder)


def test_refuses_folders_without_a_tokenizer(tmp_path):
    with pytest.raises(UserError, match="There is no folder"):
        load_tokenizer(tmp_path / "absent")
    with pytest.raises(UserError, match="holds no tokenizer that transformers can load"):
        load_tokenizer(tmp_path)
    write(tmp_path)
    for text in ("{", "[" * 100_000):
        (tmp_path / "tokenizer.json").write_text(text)
        with pytest.raises(UserError, match="holds no tokenizer that transformers can load"):
            load_tokenizer(tmp_path)


def test_refuses_what_breaks_the_library(folder):
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    tokenizer["model"]["merges"] = [["</s>", "b"]]  # Rust panics, which is no Exception
    whole = path.read_text()
    path.write_text(json.dumps(tokenizer))
    with pytest.raises(UserError, match="holds no tokenizer that transformers can load"):
        load_tokenizer(folder)
    path.write_text(whole)
    write(folder, eos_token="</s>", chat_template=TEMPLATE, model_max_length="long")
    with pytest.raises(UserError, match="holds no tokenizer that transformers can load"):
        load_tokenizer(folder)


def test_smollm2_tokenizer(smollm2):
    tokenizer = load_tokenizer(smollm2)
    check_tokenizer(tokenizer, PRESETS["smollm2-135m"], smollm2)
    assert stop_tokens(smollm2, tokenizer) == (2,)
    # Digits stand alone and leave the white space before them whole.
    assert tokenizer.tokenize("x  2023 é") == ["x", "ĠĠ", "2", "0", "2", "3", "ĠÃ©"]
    text = "Caroline's dog, 2021-05-03:\n\t日本 🙂  end"
    assert tokenizer.decode(tokenizer(text).input_ids) == text
