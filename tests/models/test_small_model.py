"""The small model: a folder that loads, and a tokenizer for the texts that it was trained on."""

import jax
import numpy as np
import pytest

from memr1_jax.models.decoder_config import DecoderConfig
from memr1_jax.models.hf.hf_weights import load_params
from memr1_jax.models.hf.tokenizer import check_tokenizer, load_tokenizer, stop_tokens
from memr1_jax.models.small_model import write_small_model

TEXTS = [f" Ada lives in {town}." for town in ("Oakford", "Elmford", "Ashford")] * 3
SHAPE = DecoderConfig(
    vocab_size=300,
    num_layers=1,
    model_width=16,
    num_heads=2,
    num_kv_heads=1,
    head_size=8,
    mlp_width=256,
    max_positions=2048,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_small_model(tmp_path_factory.mktemp("small") / "model", TEXTS, SHAPE)


def test_the_folder_holds_a_model_of_that_shape(folder):
    params, config = load_params(folder)
    assert (config.vocab_size, config.model_width, config.num_layers) == (300, 16, 1)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == SHAPE.num_parameters
    tokenizer = load_tokenizer(folder)
    check_tokenizer(tokenizer, config, folder)
    assert tokenizer.vocab_size <= 300
    assert stop_tokens(folder, tokenizer) == (tokenizer.convert_tokens_to_ids("<|im_end|>"),)


def test_the_tokenizer_keeps_every_text_and_knows_its_own(folder):
    tokenizer = load_tokenizer(folder)

    def encode(text):
        return tokenizer.encode(text, add_special_tokens=False)

    for text in (TEXTS[0], "Ωmega {} \n\t«ü» 🙂"):
        assert tokenizer.decode(encode(text), clean_up_tokenization_spaces=False) == text
    assert len(encode(TEXTS[0])) < len(TEXTS[0]) / 2
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )
    assert chat == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert encode(chat).count(tokenizer.convert_tokens_to_ids("<|im_start|>")) == 2


def test_the_seed_decides_the_weights(folder, tmp_path):
    first = load_params(folder)[0]["embed"]["embedding"]
    again = write_small_model(tmp_path / "again", TEXTS, SHAPE)
    other = write_small_model(tmp_path / "other", TEXTS, SHAPE, seed=1)
    np.testing.assert_array_equal(load_params(again)[0]["embed"]["embedding"], first)
    assert not np.array_equal(load_params(other)[0]["embed"]["embedding"], first)
    assert (again / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()
