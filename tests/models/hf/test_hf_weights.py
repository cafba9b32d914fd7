"""Parameters from and to safetensors."""

import dataclasses
import json
import struct

import golden_models
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from small_decoder import FAMILY_CONFIGS

from memr1_jax.errors import UserError
from memr1_jax.models.decoder import Block, Decoder, init_params
from memr1_jax.models.decoder_config import DecoderConfig
from memr1_jax.models.families import FAMILIES
from memr1_jax.models.hf.headers import read_header
from memr1_jax.models.hf.hf_weights import export_params, load_params

TINY = DecoderConfig(
    vocab_size=40,
    num_layers=3,
    model_width=16,
    num_heads=4,
    num_kv_heads=2,
    head_size=8,
    mlp_width=24,
)
VARIANTS = {
    "tied": TINY,
    "untied": dataclasses.replace(TINY, tie_embeddings=False),
    "biased": dataclasses.replace(TINY, family=FAMILIES["qwen2"]),
}
VARIANTS |= {
    name: dataclasses.replace(config, num_layers=3, layer_kinds=(config.layer_kinds * 2)[:3])
    for name, config in FAMILY_CONFIGS.items()
    if name not in ("llama", "qwen2")
}


def random_params(config, dtype=np.float32):
    random = np.random.default_rng(0)
    tree = jax.eval_shape(lambda key: init_params(config, key), jax.random.key(0))
    return jax.tree.map(lambda leaf: random.standard_normal(leaf.shape).astype(dtype), tree)


def assert_same(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


@pytest.mark.parametrize("shard_bytes", [10**9, 5000])
@pytest.mark.parametrize("variant", VARIANTS)
def test_round_trip_is_exact(variant, shard_bytes, tmp_path):
    config = VARIANTS[variant]
    params = random_params(config)
    export_params(tmp_path / "model", params, config, max_shard_bytes=shard_bytes)
    loaded, read = load_params(tmp_path / "model")
    assert read == config
    assert_same(loaded, params)
    files = sorted(tmp_path.glob("model/*.safetensors"))
    assert (len(files) == 1) == (shard_bytes > 5000)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_shards_keep_to_their_limit_and_to_the_index(tmp_path):
    export_params(tmp_path / "model", random_params(TINY), TINY, max_shard_bytes=5000)
    index = json.loads((tmp_path / "model/model.safetensors.index.json").read_text())
    total = 0
    for path in tmp_path.glob("model/*.safetensors"):
        tensors = load_file(path)
        size = sum(tensor.nbytes for tensor in tensors.values())
        assert size <= 5000
        assert all(index["weight_map"][name] == path.name for name in tensors)
        total += size
    assert total == index["metadata"]["total_size"] == 4 * TINY.num_parameters


def test_kernels_are_transposed_and_split_into_heads(tmp_path):
    golden_models.write_folder(tmp_path, "llama_scaled")
    weights = golden_models.state_dict("llama_scaled")
    params, config = load_params(tmp_path)
    query = weights["model.layers.1.self_attn.q_proj.weight"]  # [N * H, D]
    output = weights["model.layers.1.self_attn.o_proj.weight"]  # [D, N * H]
    attention = params["layers"]["attention"]
    size = config.head_size
    np.testing.assert_array_equal(attention["query"]["kernel"][1, :, 2, 5], query[2 * size + 5])
    np.testing.assert_array_equal(attention["output"]["kernel"][1, 2, 5], output[:, 2 * size + 5])
    np.testing.assert_array_equal(params["head"]["embedding"], weights["lm_head.weight"])


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16])
def test_reads_half_precision(dtype, tmp_path):
    golden_models.write_folder(tmp_path, "llama_tied")
    weights = golden_models.state_dict("llama_tied")
    halves = {name: weight.astype(dtype) for name, weight in weights.items()}
    save_file(halves, tmp_path / "model.safetensors")
    params, _ = load_params(tmp_path)
    kernel = params["layers"]["mlp"]["up"]["kernel"]
    assert kernel.dtype == np.float32
    expected = halves["model.layers.0.mlp.up_proj.weight"].astype(np.float32).T
    np.testing.assert_array_equal(kernel[0], expected)
    assert load_params(tmp_path, dtype=jnp.bfloat16)[0]["embed"]["embedding"].dtype == jnp.bfloat16


def test_bfloat16_export_rounds_once(tmp_path):
    params = random_params(TINY)
    export_params(tmp_path / "model", params, TINY, dtype="bfloat16")
    assert json.loads((tmp_path / "model/config.json").read_text())["torch_dtype"] == "bfloat16"
    expected = jax.tree.map(lambda x: x.astype(jnp.bfloat16).astype(np.float32), params)
    assert_same(load_params(tmp_path / "model")[0], expected)


def test_exports_arrays_on_a_device(tmp_path):
    params = random_params(TINY)
    export_params(tmp_path / "model", jax.device_put(params), TINY)
    assert_same(load_params(tmp_path / "model")[0], params)


def test_a_stored_copy_of_a_tied_head_is_ignored(tmp_path):
    golden_models.write_folder(tmp_path, "llama_tied")
    weights = golden_models.state_dict("llama_tied")
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    save_file(weights, tmp_path / "model.safetensors")
    assert "head" not in load_params(tmp_path)[0]


def test_another_head_than_the_tied_one_is_used(tmp_path):
    """As transformers 5 does: `PreTrainedModel.tie_weights` ties two tables that are equal only."""
    golden_models.write_folder(tmp_path, "llama_tied")
    weights = golden_models.state_dict("llama_tied")
    head = weights["model.embed_tokens.weight"].copy()
    head[-1, -1] += 1.0
    save_file(weights | {"lm_head.weight": head}, tmp_path / "model.safetensors")
    with pytest.warns(UserWarning, match="ties lm_head .* the files hold another"):
        params, config = load_params(tmp_path)
    assert not config.tie_embeddings
    np.testing.assert_array_equal(params["head"]["embedding"], head)
    embedding = weights["model.embed_tokens.weight"]
    np.testing.assert_array_equal(params["embed"]["embedding"], embedding)
    # Logits are those of an untied configuration.
    block = Block(np.arange(5), np.int32(5))
    logits = Decoder(config).apply({"params": params}, method=lambda m: m.logits(m((block,))[0]))
    hidden = Decoder(config).apply({"params": params}, (block,))[0]
    np.testing.assert_allclose(logits, hidden @ head.T, rtol=1e-4, atol=1e-4)
    export_params(tmp_path / "export", params, config)
    again, untied = load_params(tmp_path / "export")
    assert untied == config
    assert_same(again, params)


def test_a_tied_head_alone_is_the_embedding_too(tmp_path):
    golden_models.write_folder(tmp_path, "llama_tied")
    weights = golden_models.state_dict("llama_tied")
    expected = load_params(tmp_path)
    weights["lm_head.weight"] = weights.pop("model.embed_tokens.weight")
    save_file(weights, tmp_path / "model.safetensors")
    params, config = load_params(tmp_path)
    assert config == expected[1]
    assert_same(params, expected[0])


@pytest.mark.parametrize("variant", VARIANTS)
def test_transformers_loads_the_export(variant, tmp_path):
    torch = pytest.importorskip("torch", reason="torch loads the export")
    from transformers import AutoModelForCausalLM

    config = VARIANTS[variant]
    params = random_params(config)
    export_params(tmp_path / "model", params, config, max_shard_bytes=5000)
    model, report = AutoModelForCausalLM.from_pretrained(
        tmp_path / "model", output_loading_info=True
    )
    assert not any(report.values()), report
    assert model.dtype == torch.float32
    down = model.model.layers[2].mlp.down_proj.weight.detach().numpy()
    np.testing.assert_array_equal(down.T, params["layers"]["mlp"]["down"]["kernel"][2])


def test_copies_tokenizer_and_generation_files(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "tokenizer.json").write_text("{}")
    (source / "chat_template.jinja").write_text("{{ messages }}")
    (source / "generation_config.json").write_text('{"eos_token_id": [2, 3], "top_p": 0.9}')
    (source / "pytorch_model.bin").write_bytes(b"never read")
    export_params(tmp_path / "model", random_params(TINY), TINY, tokenizer_folder=source)
    names = {path.name for path in (tmp_path / "model").iterdir()}
    assert names == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "chat_template.jinja",
        "generation_config.json",
    }
    assert json.loads((tmp_path / "model/config.json").read_text())["eos_token_id"] == [2, 3]
    export_params(tmp_path / "model", random_params(TINY), TINY, generation_config={"top_k": 5})
    assert json.loads((tmp_path / "model/generation_config.json").read_text()) == {"top_k": 5}
    assert not (tmp_path / "model/tokenizer.json").exists()


def test_links_that_leave_the_folder_are_not_copied(tmp_path):
    secret, source = tmp_path / "secret", tmp_path / "source"
    secret.write_text('{"token": "hunter2"}')
    source.mkdir()
    (source / "real.json").write_text('{"inside": 1}')
    (source / "tokenizer.json").symlink_to("real.json")
    for name in ("tokenizer_config.json", "generation_config.json", "vocab.json"):
        (source / name).symlink_to("../secret")
    with pytest.warns(UserWarning, match="is a link to a file outside") as warned:
        export_params(tmp_path / "model", random_params(TINY), TINY, tokenizer_folder=source)
    assert len(warned) == 3
    files = sorted((tmp_path / "model").iterdir())
    assert [path.name for path in files] == ["config.json", "model.safetensors", "tokenizer.json"]
    assert not any(path.is_symlink() or b"hunter2" in path.read_bytes() for path in files)


def test_links_of_the_cache_of_the_hub_are_followed(tmp_path):
    blobs, source = tmp_path / "repo/blobs", tmp_path / "repo/snapshots/0123"
    source.mkdir(parents=True)
    blobs.mkdir()
    (blobs / "4567").write_text('{"a": 1}')
    (source / "tokenizer.json").symlink_to("../../blobs/4567")
    export_params(tmp_path / "model", random_params(TINY), TINY, tokenizer_folder=source)
    assert json.loads((tmp_path / "model/tokenizer.json").read_text()) == {"a": 1}


def test_a_failed_export_leaves_the_old_folder(tmp_path):
    resource = pytest.importorskip("resource")
    params = random_params(TINY)
    export_params(tmp_path / "model", params, TINY)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        for room in (10_000, 100):  # ends among the weights, and before them
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
            with pytest.raises(UserError, match="/model could not be written .*Make room"):
                export_params(tmp_path / "model", jax.tree.map(np.zeros_like, params), TINY)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert_same(load_params(tmp_path / "model")[0], params)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_export_does_not_replace_other_folders(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="not a model folder"):
        export_params(tmp_path, random_params(TINY), TINY)
    assert (tmp_path / "thesis.txt").exists()


def test_export_refuses_other_trees_and_types(tmp_path):
    params = random_params(TINY)
    with pytest.raises(ValueError, match="do not fit"):
        export_params(tmp_path / "model", params | {"value": np.zeros(3)}, TINY)
    with pytest.raises(UserError, match="float16"):
        export_params(tmp_path / "model", params, TINY, dtype="float16")


@pytest.mark.parametrize("prefix", ["language_model.model.", "model.language_model."])
def test_reads_the_language_model_of_one_that_sees(prefix, tmp_path):
    golden_models.write_folder(tmp_path, "gemma3")
    expected, config = load_params(tmp_path)
    text = json.loads((tmp_path / "config.json").read_text())
    whole = {"model_type": "gemma3", "text_config": text, "vision_config": {}}
    (tmp_path / "config.json").write_text(json.dumps(whole))
    weights = golden_models.state_dict("gemma3")
    weights = {name.replace("model.", prefix, 1): weight for name, weight in weights.items()}
    weights["vision_tower.patch.weight"] = np.zeros((3, 3), np.float32)
    save_file(weights, tmp_path / "model.safetensors")
    params, read = load_params(tmp_path)
    assert read == config
    assert_same(params, expected)


def break_folder(folder, how):
    weights = folder / "model.safetensors"
    tensors = load_file(weights)
    name = "model.layers.1.mlp.up_proj.weight"
    match how:
        case "missing":
            del tensors[name]
        case "unexpected":
            tensors["model.layers.0.self_attn.q_norm.weight"] = np.zeros(8, np.float32)
        case "shape":
            tensors[name] = np.ascontiguousarray(tensors[name].T)
        case "type":
            tensors[name] = tensors[name].astype(np.int8)
    save_file(tensors, weights)
    if how == "truncated":
        with weights.open("r+b") as file:
            file.truncate(weights.stat().st_size - 100)
    if how == "none":
        weights.unlink()
    if how == "json":
        (folder / "config.json").write_text("{")


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("missing", r"lacks tensor model\.layers\.1\.mlp\.up_proj\.weight\."),
        ("unexpected", r"model\.safetensors holds tensor model\.layers\.0\.self_attn\.q_norm"),
        ("shape", r"layers\.1\.mlp\.up_proj\.weight has shape \[64, 96\] where .* \[96, 64\]"),
        ("type", r"layers\.1\.mlp\.up_proj\.weight is stored as I8"),
        ("truncated", r"model\.safetensors is not a whole safetensors file"),
        ("none", r"has neither model\.safetensors nor"),
        ("json", r"config\.json: this is not valid JSON"),
    ],
)
def test_broken_folders(how, sentence, tmp_path):
    break_folder(golden_models.write_folder(tmp_path, "llama_tied"), how)
    with pytest.raises(UserError, match=sentence):
        load_params(tmp_path)


def test_missing_shard(tmp_path):
    export_params(tmp_path / "model", random_params(TINY), TINY, max_shard_bytes=5000)
    shard = sorted(tmp_path.glob("model/*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(UserError, match=f"{shard.name}, which is missing"):
        load_params(tmp_path / "model")


@pytest.fixture
def shards(tmp_path):
    return export_params(tmp_path / "model", random_params(TINY), TINY, max_shard_bytes=5000)


@pytest.mark.parametrize(
    ("index", "sentence"),
    [
        ("[" * 100_000, "nested too deeply"),
        ("[]", "must hold one JSON object, not a list"),
        ("{}", "must map names of tensors to files"),
        ('{"weight_map": ["a"]}', "must map names of tensors to files"),
        ('{"weight_map": {"a": null}}', "gives None as the file of tensor a"),
        ('{"weight_map": {"a": 3}}', "gives 3 as the file of tensor a"),
        ('{"weight_map": {"a": ["x"]}}', "as the file of tensor a"),
        ('{"weight_map": {"a": ""}}', "as the file of tensor a"),
        ('{"weight_map": {"a": ".."}}', "as the file of tensor a"),
        ('{"weight_map": {"a": "/etc/passwd"}}', "as the file of tensor a.*same folder"),
        ('{"weight_map": {"a": "../model.safetensors"}}', "as the file of tensor a.*same folder"),
        ('{"weight_map": {"a": "unknown.safetensors"}}', "unknown.safetensors, which is missing"),
        ('{"weight_map": {"a": "config.json"}}', "config.json is not a whole safetensors file"),
    ],
)
def test_an_index_that_is_none(shards, index, sentence):
    (shards / "model.safetensors.index.json").write_text(index)
    with pytest.raises(UserError, match=sentence):
        load_params(shards)


def test_an_index_must_say_where_tensors_are(shards):
    path = shards / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    names = sorted(index["weight_map"])
    index["weight_map"][names[0]] = index["weight_map"][names[-1]]
    path.write_text(json.dumps(index))
    with pytest.raises(UserError, match=f"holds tensor {names[0]}, but it does not"):
        load_params(shards)
    first, second = sorted(shards.glob("*.safetensors"))[:2]
    save_file(load_file(first) | load_file(second), second)
    with pytest.raises(UserError, match=f"Both .*{first.name} and {second.name} hold tensor"):
        load_params(shards)


def write_header(path, header, data=bytes(16), length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def entry(**changes):
    return {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | changes


@pytest.mark.parametrize(
    "wrong",
    [
        entry(data_offsets=[8, 160], shape=[38]),
        entry(data_offsets=[4, 12]),
        entry(data_offsets=[12, 20]),
        entry(data_offsets=[16, 8]),
        entry(data_offsets=[-8, 0]),
        entry(data_offsets=[8]),
        entry(data_offsets=[8, 16], shape=[3]),
        entry(data_offsets=[8, 16], shape=[2**63, 2**63]),
        entry(data_offsets=[8, 16], shape=[-2]),
        entry(data_offsets=[8, 16], shape="2"),
        entry(data_offsets=[8, 16], dtype="F12"),
        entry(data_offsets=[8, 16], dtype=4),
        entry(data_offsets=[8, 16], dtype="F" + "9" * 5000),
        3,
        {},
    ],
    ids=lambda wrong: str(wrong)[:60],
)
def test_headers_that_lie_about_a_tensor(tmp_path, wrong):
    path = write_header(tmp_path / "x.safetensors", {"right": entry(), "wrong": wrong})
    with pytest.raises(UserError, match=r"x\.safetensors is not a whole .*; tensor wrong\)"):
        read_header(path)


@pytest.mark.parametrize(
    "arguments",
    [
        ({"a": entry()}, bytes(8), 10**12),
        ({"a": entry()}, bytes(8), 2**64 - 1),
        ({"a": entry()}, bytes(20)),
        (b"[" * 100_000,),
        (b'{"a":' * 100_000,),
        (b"[]",),
        (b"null",),
        (b'{"\xff": 1}',),
        (b"", b"", 0),
    ],
    ids=lambda arguments: str(arguments)[:20],
)
def test_headers_that_are_none(tmp_path, arguments):
    path = write_header(tmp_path / "x.safetensors", *arguments)
    with pytest.raises(UserError, match=r"x\.safetensors is not a whole safetensors file"):
        read_header(path)
