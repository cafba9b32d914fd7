"""The table of rules: every weight has its place, and what does not divide stays whole."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AbstractMesh
from jax.sharding import PartitionSpec as P

from memr1_jax.models.decoder import init_params
from memr1_jax.models.decoder_config import PRESETS
from memr1_jax.models.lora import TARGETS, LoRA, abstract_adapters
from memr1_jax.parallel.activations import gather_weights, split, split_tokens, spread
from memr1_jax.parallel.mesh import AXES
from memr1_jax.parallel.rules import RULES, fitted, partition_spec


def mesh_of(data, fsdp, tensor):
    return AbstractMesh((data, fsdp, tensor), AXES)


def specs(name, mesh):
    config = PRESETS[name]
    params = jax.eval_shape(lambda key: init_params(config, key), jax.random.key(0))
    leaves = jax.tree_util.tree_leaves_with_path(params)
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves]
    return {
        name: (leaf.shape, partition_spec(mesh, name, leaf.shape))
        for name, (_, leaf) in zip(names, leaves, strict=True)
    }


def test_the_specs_of_llama():
    found = {name: spec for name, (_, spec) in specs("llama-3.1-8b", mesh_of(2, 4, 2)).items()}
    both = ("tensor", "fsdp")
    attention = {name: P(None, "fsdp", "tensor", None) for name in ("query", "key", "value")} | {
        "output": P(None, "tensor", None, "fsdp")
    }
    assert found == {
        "embed/embedding": P(both, None),
        "head/embedding": P(both, None),
        "final_norm/scale": P(None),
        "layers/attention_norm/scale": P(None, None),
        "layers/mlp_norm/scale": P(None, None),
        "layers/mlp/gate/kernel": P(None, "fsdp", "tensor"),
        "layers/mlp/up/kernel": P(None, "fsdp", "tensor"),
        "layers/mlp/down/kernel": P(None, "tensor", "fsdp"),
        **{f"layers/attention/{name}/kernel": spec for name, spec in attention.items()},
    }


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_matrix_is_split_over_fsdp(name):
    for path, (shape, spec) in specs(name, mesh_of(1, 4, 1)).items():
        used = jax.tree.leaves(tuple(spec))
        vector = path.endswith(("scale", "bias"))
        assert ("fsdp" in used) != vector, (path, shape, spec)


def test_key_heads_that_do_not_divide_are_replicated():
    found = specs("qwen2.5-3b", mesh_of(1, 2, 8))  # 16 query heads, 2 key heads
    assert found["layers/attention/query/kernel"][1] == P(None, "fsdp", "tensor", None)
    assert found["layers/attention/key/kernel"][1] == P(None, "fsdp", None, None)
    assert found["layers/attention/query/bias"][1] == P(None, "tensor", None)
    assert found["layers/attention/key/bias"][1] == P(None, None, None)


def test_moments_and_single_layers_follow_the_same_rule():
    mesh = mesh_of(1, 2, 2)
    rule = ("fsdp", "tensor")
    assert partition_spec(mesh, "opt_state/1/0/mu/layers/mlp/up/kernel", (3, 8, 8)) == P(
        None, *rule
    )
    assert partition_spec(mesh, "mlp/up/kernel", (8, 8)) == P(*rule)
    assert partition_spec(mesh, "mlp/up/kernel", (8, 8), without=("fsdp",)) == P(None, "tensor")
    assert partition_spec(mesh, "opt_state/1/0/count", ()) == P()
    assert partition_spec(mesh, "opt_state/mu/up/kernel", (1,)) == P()  # a factored moment


def test_adapters_lie_where_their_kernels_lie():
    config, mesh = PRESETS["llama-3.1-8b"], mesh_of(2, 4, 2)
    adapters = abstract_adapters(config, LoRA(rank=16, alpha=32.0))["layers"]
    seen = set()
    for part, targets in adapters.items():
        for target, leaves in targets.items():
            name = f"layers/{part}/{target}"
            a, b = leaves["lora_a"].shape, leaves["lora_b"].shape
            kernel = partition_spec(mesh, f"{name}/kernel", a[:-1] + b[2:])
            inputs, outputs = kernel[1 : len(a) - 1], kernel[len(a) - 1 :]
            assert partition_spec(mesh, f"{name}/lora_a", a) == P(None, *inputs, None)
            assert partition_spec(mesh, f"opt_state/mu/{name}/lora_b", b) == P(None, None, *outputs)
            seen.add(target)
    assert seen == set(TARGETS)


def test_a_spec_that_uses_an_axis_twice_is_refused():
    mesh = mesh_of(1, 2, 2)
    for axes in (("fsdp", "fsdp"), (("tensor", "fsdp"), "tensor")):
        with pytest.raises(ValueError, match="uses an axis of the mesh twice"):
            fitted(mesh, axes, (8, 8))
    for _, rule in RULES:
        fitted(mesh, rule, (8,) * len(rule))


def test_without_a_mesh_nothing_happens():
    x = jnp.ones((4, 4, 4))
    weights = {"up": {"kernel": x}}

    def plain(x, weights):
        return split(x, heads=1), spread(x), split_tokens(x), gather_weights(weights, jnp.bfloat16)

    assert plain(x, weights)[3] is weights
    assert jax.make_jaxpr(plain)(x, weights).eqns == []
