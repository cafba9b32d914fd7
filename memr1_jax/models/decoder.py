"""The decoder: one forward pass over a chain of token blocks, for the families of `families.py`.

    instruction [T0]  ->  prompt [B, P]  ->  response [B, G, R]

A block's tokens see their own block (causally) and every block above it, under one joint softmax.
The instruction is computed once a batch, the prompt once a group, and only responses G times, in
the rollout and in training alike, with exactly the gradients of the repeated form.

Blocks are right padded. Lengths tell what is padding, never token ids, and a token's
position is the summed length of the blocks above plus its index.

Axis letters: B prompts, G samples a prompt, T length, S key length, N query heads, K key/value
heads, H head size, D model width, F feed-forward width, V vocabulary, L layers, R response length.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from memr1_jax.models.bits import as_bits, as_values, narrow_on_cpu
from memr1_jax.models.decoder_config import DecoderConfig
from memr1_jax.models.geometry import kind_of_layer, make_geometry
from memr1_jax.models.layers import Layer, make_norm, resting
from memr1_jax.models.product import row_scores
from memr1_jax.parallel.activations import gather_weights, split

REMAT_POLICIES = {
    "dots": jax.checkpoint_policies.save_from_both_policies(
        jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
        # Of models/product.py, models/layers.py and models/joint_softmax.py.
        jax.checkpoint_policies.save_only_these_names("product", "adapted", "attended"),
    ),
    "full": jax.checkpoint_policies.nothing_saveable,
}
_MOST_UNROLLED = 8  # layers that are compiled one by one


@struct.dataclass
class Block:
    """Tokens `[*lead, T]`; the first `length` `[*lead]` of each row are real."""

    tokens: jax.Array
    length: jax.Array


@struct.dataclass
class Context:
    """Keys and values of a computed block: `[L, *lead, K, S, H]`, with `length` `[*lead]`."""

    key: jax.Array
    value: jax.Array
    length: jax.Array


def _carried(hidden):
    """Casts hidden states for the carry of a differentiated scan, which stacks what it carries.

    On CPUs in float32, for the reason of `models/bits.py`; bits would have no gradient.
    """
    return tuple(x.astype(jnp.float32) if narrow_on_cpu(x) else x for x in hidden)


class Table(nn.Module):
    """A `[V, D]` table: token embedding, or the output head of an untied model."""

    shape: tuple[int, int]

    @nn.compact
    def __call__(self):
        """Returns the table itself."""
        return self.param("embedding", nn.initializers.normal(0.02), self.shape)


class Decoder(nn.Module):
    """The whole language model; parameters are float32, arithmetic is in `dtype`.

    `remat` names what the backward pass keeps of each layer: "dots" (results of the projections),
    "full" (nothing) or "none" (everything). `kernel` is one of `attention_kernels.KERNELS`.
    """

    config: DecoderConfig
    dtype: Any = jnp.float32
    remat: str = "dots"
    kernel: str = "xla"

    def setup(self):
        """Declares the parameters; those of the layers are stacked."""
        config = self.config
        shape = (config.vocab_size, config.model_width)
        self.embed = Table(shape)
        if not config.tie_embeddings:
            self.head = Table(shape)
        if self.has_variable("params", "layers"):
            # Read, not declared: adapters come on top of what the initialiser makes.
            self.layers = self.get_variable("params", "layers")
        else:
            self.layers = self.param("layers", self._init_layers)
        self.final_norm = make_norm(config, config.model_width, self.dtype)

    def _init_layers(self, key):
        """Makes the parameters of all layers, stacked on a leading L axis."""
        x = jnp.zeros((1, self.config.model_width), self.dtype)
        block = Block(jnp.zeros(1, jnp.int32), jnp.ones((), jnp.int32))
        geometry = make_geometry(self.config, (block,), ()).of(None)
        init = functools.partial(self._layer().init, hidden=(x,), past=(), geometry=geometry)
        return jax.vmap(lambda key: init(key)["params"])(
            jax.random.split(key, self.config.num_layers)
        )

    def _layer(self):
        return Layer(self.config, self.dtype, self.kernel, parent=None)

    def _apply_layer(self, params, *inputs, **options):
        params = gather_weights(params, self.dtype)
        return self._layer().apply({"params": params}, *inputs, **options)

    def __call__(self, blocks: tuple[Block, ...]) -> tuple[jax.Array, ...]:
        """Returns final hidden states `[*lead, T, D]` of every block of a chain; for training."""
        geometry = make_geometry(self.config, blocks, ())

        def run(hidden, inputs):
            params, kind = inputs
            hidden = tuple(x.astype(self.dtype) for x in hidden)
            return _carried(self._apply_layer(params, hidden, (), geometry.of(kind))[0]), None

        if self.remat != "none":
            run = jax.checkpoint(run, policy=REMAT_POLICIES[self.remat], prevent_cse=False)
        layers = (self.layers, kind_of_layer(self.config))
        # Where everything is kept, a loop over layers would copy all of it into stacked arrays.
        unroll = self.remat == "none" and self.config.num_layers <= _MOST_UNROLLED
        hidden, _ = jax.lax.scan(run, _carried(self._embed(blocks)), layers, unroll=unroll)
        if not self.config.tie_embeddings:
            self.head()
        return tuple(self.final_norm(x) for x in hidden)

    def prefill(
        self, blocks: tuple[Block, ...], past: tuple[Context, ...] = ()
    ) -> tuple[jax.Array, tuple[Context, ...]]:
        """Returns the last real hidden state `[*lead, D]`, and all blocks as contexts.

        `past` holds blocks above that were computed before; they lead the returned contexts.
        """
        hidden, contexts = self._read(blocks, past)
        return self.final_norm(last_state(hidden, blocks[-1].length)), contexts

    def extend(self, block: Block, past: tuple[Context, ...]) -> tuple[jax.Array, Context]:
        """Returns all hidden states `[*lead, T, D]` of a block, and the block as a context."""
        hidden, contexts = self._read((block,), past)
        return self.final_norm(hidden), contexts[-1]

    def _read(self, blocks, past):
        """Returns hidden states of the last block, and all blocks as contexts."""
        geometry = make_geometry(self.config, blocks, past)

        def run(hidden, inputs):
            params, kind, above = as_values(inputs)
            hidden, kept = self._apply_layer(params, hidden, above, geometry.of(kind))
            return hidden, as_bits(kept)

        above = tuple((context.key, context.value) for context in past)
        inputs = as_bits((self.layers, kind_of_layer(self.config), above))
        hidden, kept = jax.lax.scan(run, self._embed(blocks), inputs)
        kept = as_values(kept)
        new = tuple(
            Context(key, value, block.length)
            for (key, value), block in zip(kept, blocks, strict=True)
        )
        return hidden[-1], (*past, *new)

    def decode(
        self,
        tokens: jax.Array,
        past: tuple[Context, ...],
        cache: tuple[jax.Array, jax.Array],
        step: jax.Array,
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        """Returns the hidden state `[*lead, D]` after a token `[*lead]` at `step` of the response.

        `cache` comes from `empty_cache` and is returned with the token's keys and values. Weights,
        `past` and `cache` are stacked over layers, or are what `by_layer` makes of them.
        """
        block = Block(tokens[..., None], jnp.ones(tokens.shape, jnp.int32))
        geometry = make_geometry(self.config, (block,), past, offset=step)

        def run(carry, inputs):
            x, cache = carry
            params, kind, above, index = as_values(inputs)
            return self._apply_layer(
                params, x, above, geometry.of(kind), cache, index, step, method=Layer.decode
            ), None

        above = tuple((context.key, context.value) for context in past)
        kinds, places = kind_of_layer(self.config), jnp.arange(self.config.num_layers)
        x = self._embed((block,))[0]
        if not isinstance(self.layers, tuple):
            inputs = as_bits((self.layers, kinds, above, places))
            (x, cache), _ = jax.lax.scan(run, (x, cache), inputs)
            return self.final_norm(x)[..., 0, :], cache
        caches = []
        for index, params in enumerate(self.layers):
            kind = None if kinds is None else kinds[index]
            own = tuple((key[index], value[index]) for key, value in above)
            (x, new), _ = run((x, cache[index]), (params, kind, own, places[0]))
            caches.append(new)
        return self.final_norm(x)[..., 0, :], tuple(caches)

    def logits(self, hidden: jax.Array) -> jax.Array:
        """Returns float32 logits `[..., V]` of final hidden states `[..., D]`."""
        table = self.embed() if self.config.tie_embeddings else self.head()
        return row_scores(hidden, table.astype(self.dtype))

    def _embed(self, blocks):
        table = gather_weights({"embedding": self.embed()}, self.dtype)["embedding"]
        hidden = (table[block.tokens].astype(self.dtype) for block in blocks)
        if self.config.family.scaled_embeddings:
            scale = jnp.asarray(self.config.model_width**0.5, self.dtype)
            hidden = (x * scale for x in hidden)
        return tuple(resting(x) for x in hidden)


def last_state(hidden: jax.Array, length: jax.Array) -> jax.Array:
    """Picks the last real one `[*lead, D]` of hidden states `[*lead, T, D]`; of none, the first."""
    last = jnp.maximum(length - 1, 0)[..., None, None]
    return jnp.take_along_axis(hidden, last, axis=-2)[..., 0, :]


def empty_cache(config: DecoderConfig, lead: tuple[int, ...], length: int, dtype) -> tuple:
    """Makes zeroed keys and values, each `[L, *lead, K, R, H]`, for `length` decoded tokens."""
    shape = (config.num_layers, *lead, config.num_kv_heads, length, config.head_size)
    key, value = (split(jnp.zeros(shape, dtype), rows=1, heads=-3) for _ in range(2))
    return as_bits((key, value))


def by_layer(
    params: dict, contexts: tuple[Context, ...], cache: tuple[jax.Array, jax.Array]
) -> tuple[dict, tuple[Context, ...], tuple[tuple[jax.Array, jax.Array], ...]]:
    """Takes what `Decoder.decode` reads apart into layers.

    A CPU copies a layer's weights and keys out of stacked arrays before it uses them. A loop that
    decodes would do so for every token.
    """
    layers = range(len(cache[0]))

    def apart(tree):
        return tuple(jax.tree.map(lambda x, layer=layer: x[layer], tree) for layer in layers)

    params = params | {"layers": apart(params["layers"])}
    contexts = tuple(
        context.replace(key=apart(context.key), value=apart(context.value)) for context in contexts
    )
    return params, contexts, tuple(tuple(x[layer : layer + 1] for x in cache) for layer in layers)


def extend_cache(
    cache: tuple[jax.Array, jax.Array], new: Context, written: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Writes keys and values `[L, *lead, K, T, H]` behind the first `written` slots.

    Their number is one of each row, `[*lead]`, or a scalar for all rows.
    """

    def write(cache, new, start):  # of one row, [L, K, R, H]
        return jax.lax.dynamic_update_slice_in_dim(cache, new, start, axis=-2)

    for _ in written.shape:
        write = jax.vmap(write, (1, 1, 0), 1)
    arrays = zip(cache, as_bits((new.key, new.value)), strict=True)
    return tuple(write(array, value, written) for array, value in arrays)


def init_params(config: DecoderConfig, key: jax.Array) -> dict:
    """Makes random float32 parameters, a plain nested dict."""
    block = Block(jnp.zeros(1, jnp.int32), jnp.ones((), jnp.int32))
    return Decoder(config, remat="none").init(key, (block,))["params"]
