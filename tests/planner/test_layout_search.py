"""Proposed layouts, and what a step takes on them by count and by estimate."""

import dataclasses

import jax
import pytest
from tiny_model import options

from memr1_jax.errors import UserError
from memr1_jax.models.decoder import Decoder
from memr1_jax.models.decoder_config import PRESETS
from memr1_jax.options import with_options
from memr1_jax.planner import estimates, layout_search
from memr1_jax.planner.abstract import abstract_step
from memr1_jax.planner.chips import CHIPS, GIB, gpu_named
from memr1_jax.planner.estimates import Estimate, argument_bytes, layout_mesh, step_work
from memr1_jax.planner.layout_search import (
    DoesNotFit,
    Fit,
    estimate_step,
    layouts,
    propose,
)
from memr1_jax.planner.roofline import Layout, Work

V5E = CHIPS["TPU v5 lite"]


@pytest.fixture(scope="module")
def answer():
    return abstract_step(options(), "answer")


@pytest.fixture(scope="module")
def manager():
    return abstract_step(options(), "manager")


def test_layouts_divide_devices_batch_and_heads():
    found = list(layouts(options(batch=8, micro_batches=4), 16, num_heads=4))
    assert Layout(1, 4, 4, 2) in found  # two prompts a device: no more than two parts
    assert Layout(8, 1, 2, 1) in found
    assert all(layout.data * layout.shards == 16 for layout in found)
    assert {layout.tensor for layout in found} == {2, 4}  # 16 rows are more than 8 prompts
    assert not list(layouts(options(batch=6), 4, num_heads=3))


def test_arguments_of_one_device_are_all_bytes(answer):
    whole = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(answer.arguments))
    assert argument_bytes(answer, layout_mesh(Layout(), jax.devices()[:1])) == whole


def test_phases_follow_the_options(answer, manager):
    base = options()
    in_loss = with_options(base, kl_placement="loss")
    assert list(step_work(answer, in_loss, Layout())) == [
        *("prefill", "decode", "reference", "update")
    ]
    assert list(step_work(answer, base, Layout())) == [  # the penalty needs the old policy too
        *("prefill", "decode", "reference", "old log-probabilities", "update")
    ]
    ppo = with_options(base, algorithm="ppo", mini_batches=2, kl_weight=0.0)
    work = step_work(answer, ppo, Layout())
    assert list(work) == ["prefill", "decode", "values", "old log-probabilities", "update"]
    plain = step_work(answer, base, Layout())["update"]
    assert work["update"].flops == 2 * plain.flops
    work = step_work(manager, base, Layout())
    # Each of 2 x 2 samples is asked two questions.
    asked = estimates.asked_chain(manager, base).lengths
    assert (asked.prompts, asked.group, asked.response) == (8, 1, base.answer_response_length)
    assert work["answer decode"].flops > step_work(answer, base, Layout())["decode"].flops


def test_equal_prompts_of_the_answer_agent_take_no_time(manager):
    work = step_work(manager, options(), Layout())
    fit = Fit(Layout(), None, work, V5E)
    for name, part in fit.with_distinct(0.25).work.items():
        share = 0.25 if name.startswith("answer") else 1
        assert part == Work(share * work[name].flops, share * work[name].bytes)


def test_more_devices_need_less_of_each(answer, monkeypatch):
    monkeypatch.setattr(estimates, "argument_bytes", lambda made, mesh: 0)
    monkeypatch.setattr(estimates, "layout_mesh", lambda layout, devices: None)
    large = dataclasses.replace(answer.policy, decoder=Decoder(PRESETS["llama-3.1-8b"]))
    made = dataclasses.replace(answer, policy=large)

    def memory(layout, **changes):
        return estimates.estimate(made, options(batch=16, **changes), [], layout)

    one, fsdp, tensor = (memory(layout) for layout in (Layout(), Layout(1, 8), Layout(1, 1, 8)))
    assert one.memory > fsdp.memory > 0
    assert one.memory > tensor.memory > 0
    # Weights of two bytes for rollout, reference, old policy, forward and backward; gradients back.
    assert fsdp.sent == 7 / 8 * PRESETS["llama-3.1-8b"].num_parameters * 2 * (5 + 1)
    assert one.sent == 0 < tensor.sent
    assert memory(Layout(), lora_rank=8).memory < one.memory


def test_proposals_send_the_least_first_and_leave_out_what_is_too_large(answer, monkeypatch):
    figures = {  # by data, fsdp and tensor: memory and bytes sent
        (4, 1, 1): (40, 1),
        (2, 2, 1): (12, 2),
        (1, 4, 1): (8, 3),
        (2, 1, 2): (15, 4),
        (1, 2, 2): (9, 5),
        (1, 1, 4): (7, 6),
    }

    def estimated(made, options, devices, layout):
        memory, sent = figures[tuple(layout.axes.values())]
        return Estimate(layout, GIB, memory * GIB, sent)

    monkeypatch.setattr(layout_search, "estimate", estimated)
    given = options(batch=8)
    found = propose(answer, given, [None] * 4, V5E)
    # Three attempts in the order of communication, and the smallest of all.
    assert [tuple(item.layout.axes.values()) for item in found] == [
        (2, 2, 1),
        (1, 4, 1),
        (2, 1, 2),
        (1, 1, 4),
    ]
    with pytest.raises(DoesNotFit, match="needs about 7.0 GiB a chip") as caught:
        propose(answer, given, [None] * 4, dataclasses.replace(V5E, usable=2 * GIB))
    assert caught.value.least.layout == Layout(tensor=4)
    with pytest.raises(UserError, match="--batch=2 cannot be divided"):
        propose(answer, options(), [None] * 16, V5E)


def test_a_step_is_estimated_for_one_gpu(answer):
    h200 = gpu_named("h200")
    asked = with_options(options(), dtype="float32")  # as `answer` has it on a CPU
    devices = jax.devices("cpu")[:1]
    fit = estimate_step(asked, "answer", devices, h200)
    work = step_work(answer, asked, fit.layout).values()
    assert sum(fit.seconds().values()) == sum(part.seconds(h200, 1) for part in work)
    assert fit.report.arguments == argument_bytes(answer, layout_mesh(Layout(), devices))
    assert "estimated peak memory" in str(fit) and "at least" in str(fit)
    with pytest.raises(DoesNotFit, match="onto 1 x h200"):
        estimate_step(asked, "answer", devices, dataclasses.replace(h200, usable=2**10))
    assert gpu_named("h2000") is None
