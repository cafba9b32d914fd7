"""Counting a step's seconds by the names of its instructions."""

import subprocess
import sys

import pytest

from memr1_jax.planner.step_profile import part_of, parts_of, tally

LAYER = "while/body/closed_call/checkpoint/{}Decoder._apply_layer/Layer/"
AGAIN = "jit(step)/transpose(jvp(Decoder))/" + LAYER.format("rematted_computation/")
BACK = "jit(step)/transpose(jvp(Decoder))/" + LAYER.format("")
FORTH = "jit(step)/jvp(Decoder)/" + LAYER.format("")


@pytest.mark.parametrize(
    ("name", "part", "phase"),
    [
        (FORTH + "attention.project/query/dot_general", "attention: projections", "forward"),
        (BACK + "Layer._finish/attention/output/dot_general", "attention: projections", "backward"),
        (AGAIN + "Layer._finish/mlp/jit(silu)", "feed-forward network", "computed again"),
        (FORTH + "jxtkmh,jksh->jkxtms/dot_general", "attention: scores", "forward"),
        (BACK + "Layer._finish/mlp_norm/mul", "norms and rotations", "backward"),
        (FORTH + "attention.project/concatenate", "norms and rotations", "forward"),
        (
            "jit(step)/transpose(jvp(Decoder))/while/body/jit(dynamic_index_in_dim)/dynamic_slice",
            "slices of stacked layers",
            "backward",
        ),
        (
            "jit(step)/jvp()/while/body/closed_call/Decoder.logits/...d,vd->...v/dot_general",
            "logits and loss",
            "forward",
        ),
        ("jit(step)/cond/branch_1_fun/mul", "optimizer", "other"),
        ("", "everything else", "other"),
    ],
)
def test_a_name_says_part_and_phase(name, part, phase):
    assert part_of(name) == (part, phase)


TEXT = f"""
%fused (x: f32[8]) -> f32[8] {{
  ROOT %multiply.1 = f32[8]{{0}} multiply(%x, %x)
}}
%unnamed (x: f32[8]) -> f32[8] {{
  ROOT %dot.9 = f32[8]{{0}} dot(%x, %x), metadata={{op_name="{BACK}exp"}}
}}
%batched (x: f32[2,8,8]) -> f32[2,8,8] {{
  ROOT %dot.8 = f32[2,8,8]{{2,1,0}} dot(%x, %x), lhs_batch_dims={{0}}, rhs_batch_dims={{0}}
}}
ENTRY %main (p: f32[8]) -> f32[8] {{
  %while.5 = (s32[], f32[8]{{0}}) while(%t), body=%b, metadata={{op_name="jit(step)/jvp()/while"}}
  %dot.2 = f32[8]{{0}} dot(%p, %p), metadata={{op_name="{FORTH}Layer._finish/mlp/up/dot_general"}}
  %ynn_fusion.7 = f32[8]{{0}} fusion(%p), kind=kCustom, calls=%unnamed, backend_config={{}}
  %ynn_fusion.8 = f32[2,8,8]{{2,1,0}} fusion(%q), kind=kCustom, calls=%batched
  ROOT %fusion.3 = f32[8]{{0}} fusion(%p), calls=%fused, metadata={{op_name="jit(step)/cond/mul"}}
}}
"""


def test_loops_are_not_counted_beside_their_bodies():
    found = parts_of(TEXT)
    assert "while.5" not in found
    assert found["dot.2"] == ("feed-forward network", "forward")
    assert found["ynn_fusion.7"] == ("attention: scores", "backward")
    assert found["ynn_fusion.8"] == ("attention: scores", "other")
    seconds = tally([("dot.2", 1.0), ("fusion.3", 3.0), ("dot.2", 0.5), ("while.5", 9.0)], found)
    assert list(seconds) == ["optimizer", "feed-forward network"]
    assert seconds["feed-forward network"]["forward"] == 1.5


@pytest.mark.slow
def test_the_command_accounts_for_the_step():
    sizes = ["--model=tiny", "--prompt=64", "--response=16", "--group=4", "--repeats=1"]
    command = [sys.executable, "-m", "experiments.bench_step", *sizes, "--profile", "--nodecode"]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "feed-forward network" in found and "optimizer" in found
