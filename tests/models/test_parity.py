"""The decoder against transformers: stored results, live where torch is, and a real model."""

from functools import partial
from pathlib import Path

import golden_models
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from memr1_jax.models.decoder import Block, Context, Decoder
from memr1_jax.models.hf.hf_weights import export_params, load_params
from memr1_jax.models.sampler import Sampling, generate

GOLDEN = Path(__file__).parent / "golden"
NAMES = list(golden_models.CONFIGS)
WINDOWED = [name for name, config in golden_models.CONFIGS.items() if config.get("sliding_window")]
# What they compute is covered by the others.
_MORE = ("qwen3_window", "mistral", "mistral_window", "gemma3")
QUICK = [pytest.param(name, marks=[pytest.mark.slow] * (name in _MORE)) for name in NAMES]
TOLERANCE = 2e-4


def block(ids, length=None):
    return Block(jnp.asarray(ids), jnp.int32(len(ids) if length is None else length))


@partial(jax.jit, static_argnums=0)
def near_logits(decoder, params, ids):
    """Logits `[T, V]` of one sequence `[T]`."""

    def run(module, blocks):
        return module.logits(module(blocks)[0])

    return decoder.apply({"params": params}, (block(ids),), method=run)


@partial(jax.jit, static_argnums=0)
def far_logits(decoder, params, above, ids, start):
    """Logits `[T, V]` of a sequence `[T]` whose positions begin at `start`, below `above`."""
    prefill = partial(decoder.apply, {"params": params}, method=Decoder.prefill)
    _, (context,) = prefill((block(above),))
    # A context whose length exceeds its keys leaves a gap in the positions.
    past = (Context(context.key, context.value, start),)
    lengths = jnp.arange(len(ids)) + 1
    rows = Block(jnp.broadcast_to(ids, (len(ids), len(ids))), lengths)
    hidden, _ = prefill((rows,), past)
    return decoder.apply({"params": params}, hidden, method=Decoder.logits)


@partial(jax.jit, static_argnums=(0, 3))
def greedy(decoder, params, ids, count):
    """Returns the `count` likeliest tokens after `ids` `[T]`, one after another."""
    samples = generate(
        decoder,
        params,
        (block(ids),),
        jax.random.key(0),
        Sampling.create(temperature=0.0),
        group=1,
        max_tokens=count,
        stop_tokens=(),
    )
    return samples.tokens[0]


def compare(expected, params, config):
    compare_near(expected, params, config)
    compare_far(expected, params, config)


def compare_near(expected, params, config):
    decoder = Decoder(config)
    ids = expected["near_ids"]
    near = near_logits(decoder, params, ids)[jnp.asarray(golden_models.KEPT)]
    np.testing.assert_allclose(near, expected["near_logits"], atol=TOLERANCE, rtol=0)
    tokens = greedy(decoder, params, ids[: golden_models.PROMPT], golden_models.GREEDY)
    np.testing.assert_array_equal(tokens, expected["greedy"])


def compare_far(expected, params, config):
    far = len(expected["far_ids"]) - golden_models.FAR
    above, below = expected["far_ids"][:far], expected["far_ids"][far:]
    start = jnp.int32(golden_models.FAR_START)
    actual = far_logits(Decoder(config), params, above, below, start)
    np.testing.assert_allclose(actual, expected["far_logits"], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", QUICK)
def test_equals_stored_results(name, tmp_path):
    expected = np.load(GOLDEN / f"{name}.npz")
    for key, value in golden_models.inputs(name).items():
        np.testing.assert_allclose(value, expected[key], rtol=1e-9, err_msg="run make_golden.py")
    loaded = load_params(golden_models.write_folder(tmp_path, name))
    compare_near(expected, *loaded)
    if name not in WINDOWED:
        compare_far(expected, *loaded)


@pytest.mark.slow
@pytest.mark.parametrize("name", WINDOWED)
def test_windows_equal_stored_results_beyond_position_4096(name, tmp_path):
    loaded = load_params(golden_models.write_folder(tmp_path, name))
    compare_far(np.load(GOLDEN / f"{name}.npz"), *loaded)


@pytest.mark.parametrize("name", NAMES)
def test_equals_transformers(name, tmp_path):
    pytest.importorskip("torch", reason="torch computes the reference")
    expected = golden_models.reference(name)
    compare(expected, *load_params(golden_models.write_folder(tmp_path, name)))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_gradients_equal_those_of_transformers(name, tmp_path):
    torch = pytest.importorskip("torch", reason="torch computes the reference")
    from transformers import AutoModelForCausalLM

    params, config = load_params(golden_models.write_folder(tmp_path, name))
    ids = golden_models.inputs(name)["near_ids"]

    def loss(params):
        likely = jax.nn.log_softmax(near_logits(Decoder(config), params, ids)[:-1])
        return -jnp.take_along_axis(likely, ids[1:, None], axis=1).mean()

    gradients = jax.device_get(jax.grad(loss)(jax.device_put(params)))
    # Written as a model, gradients have the names and layouts of published weights.
    ours = load_file(export_params(tmp_path / "gradients", gradients, config) / "model.safetensors")
    folder = export_params(tmp_path / "model", params, config)
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    batch = torch.from_numpy(ids)[None]
    model(batch, labels=batch).loss.backward()
    theirs = {key: weight.grad.numpy() for key, weight in model.named_parameters()}
    assert ours.keys() == theirs.keys() and max(abs(g).max() for g in theirs.values()) > 0.1
    for key, gradient in theirs.items():
        np.testing.assert_allclose(ours[key], gradient, atol=1e-5, rtol=0, err_msg=key)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["smollm2", "gemma3"])
def test_a_real_model_equals_transformers(name, request):
    torch = pytest.importorskip("torch", reason="torch computes the reference")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = request.getfixturevalue(name)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    chat = [{"role": "user", "content": "Melanie moved to Lisbon in 2021. Where does she live?"}]
    text = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    ids = np.array(tokenizer(text, add_special_tokens=False).input_ids)
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.generation_config.eos_token_id = None  # both run to the end
    with torch.no_grad():
        batch = torch.from_numpy(ids)[None]
        expected = model(batch).logits[0].numpy()
        tokens = model.generate(batch, do_sample=False, max_new_tokens=32)
    params, config = load_params(folder)
    params, decoder = jax.device_put(params), Decoder(config)
    actual = near_logits(decoder, params, ids)
    # Logits reach 30 here; float32 sums of two libraries differ by some 1e-5 of that.
    np.testing.assert_allclose(actual, expected, atol=1e-3, rtol=0)
    np.testing.assert_array_equal(actual.argmax(-1), expected.argmax(-1))
    np.testing.assert_array_equal(greedy(decoder, params, ids, 32), tokens[0, len(ids) :].numpy())
