"""Checks what the Memory Manager is shown, and what its words do to a bank."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_model import bank_of, facts_of, make_tiny, row_of, stack, texts_of

from memr1_jax.agents.manager import apply_response, manager_prompt
from memr1_jax.agents.rollout import manager_constraint
from memr1_jax.models.decoder import Block
from memr1_jax.models.sampler import Sampling, generate

MEMORIES = [
    "Ana has a dog named Rex.",
    "Ana lives in Lyon.",
    "Ana plays the flute.",
    "Ana works as a nurse.",
    "Ana likes green tea.",
]
FACTS = ["The dog Rex is ill.", "Ana moved from Lyon to Oslo."]
WIDTH = 96  # tokens of a response
GROUP = 12  # samples of each bank


@pytest.fixture(scope="module")
def shown(tiny):
    """Returns a bank whose slot 2 is dead, the facts, and the prompt for them."""
    bank = bank_of(tiny, MEMORIES)
    bank = bank.replace(alive=bank.alive.at[2].set(False))
    facts = facts_of(tiny, FACTS)
    return bank, facts, manager_prompt(tiny.pair.manager, tiny.pair.tools, bank, facts)


def _numbered(tiny, prompt):
    """Returns the memory lines of the last message, by id, and the facts."""
    text = tiny.decode(prompt.tokens[: prompt.length])
    listed, _, rest = text.rpartition("Memories:\n")[2].partition("New facts:\n")
    facts = rest.partition("Operations:")[0].splitlines()
    return dict(line.split(": ", 1) for line in listed.splitlines()), facts


def test_ids_count_from_zero_and_lead_back_to_slots(tiny, shown):
    bank, _, prompt = shown
    memories, facts = _numbered(tiny, prompt)
    assert facts == [f"- {fact}" for fact in FACTS]
    assert list(memories) == [str(number) for number in range(int(prompt.shown))]
    texts = texts_of(tiny, bank)
    assert [f" {text}" for text in memories.values()] == [
        texts[int(slot)] for slot in prompt.slots[: prompt.shown]
    ]


def test_neighbours_of_all_facts_are_merged_best_first(tiny, shown):
    bank, _, prompt = shown
    queries = tiny.pair.encoder.keys(FACTS)
    scores = np.where(bank.alive, queries @ np.asarray(bank.key).T, -np.inf)
    # Slots with equal scores come in their order.
    nearest = [np.argsort(-row, kind="stable")[: tiny.pair.manager.neighbours] for row in scores]
    best = {
        m: max(row[m] for row, near in zip(scores, nearest, strict=True) if m in near)
        for m in np.unique(nearest)
    }
    expected = sorted(best, key=lambda m: (-best[m], m))[: tiny.pair.manager.shown]
    assert {0, 1} <= set(expected[:2]) and 2 not in expected
    assert list(prompt.slots[: prompt.shown]) == expected


def test_the_least_similar_go_first_when_space_is_short(tiny, shown):
    bank, facts, whole = shown
    memories, lines = _numbered(tiny, whole)
    for spared in range(1, 3):
        last = list(memories.items())[-spared:]
        cost = sum(len(tiny.encode(f"{number}: {text}\n")) for number, text in last)
        manager = dataclasses.replace(tiny.pair.manager, prompt_length=int(whole.length) - cost)
        prompt = manager_prompt(manager, tiny.pair.tools, bank, facts)
        assert int(prompt.dropped) == spared and not prompt.overflow
        kept = dict(list(memories.items())[:-spared])
        assert _numbered(tiny, prompt) == (kept, lines)
        assert int(prompt.shown) == len(kept) == int(whole.shown) - spared


def test_an_empty_bank_says_so(tiny):
    prompt = manager_prompt(
        tiny.pair.manager, tiny.pair.tools, bank_of(tiny, []), facts_of(tiny, FACTS[:1])
    )
    text = tiny.decode(prompt.tokens[: prompt.length])
    nothing = tiny.decode(dict(tiny.pair.manager.template.empty)["memories"])
    assert nothing and text.startswith(f"{nothing}New facts:\n- {FACTS[0]}\nOperations:")
    assert int(prompt.shown) == 0


def _reader(tiny):
    """Returns the manager, which reads up to four operations of a response."""
    return dataclasses.replace(tiny.pair.manager, operations=4)


@functools.cache
def _apply():
    def apply(manager, *arguments):
        over_responses = jax.vmap(
            lambda tools, bank, prompt, facts, tokens, length: apply_response(
                manager, tools, bank, prompt, facts, tokens, length
            ),
            (None, None, None, None, 0, 0),
        )
        return over_responses(*arguments)

    return jax.jit(apply, static_argnums=0)


def _entry(event, number=None, text=None):
    entry = {"op": event, "id": number, "text": text}
    return json.dumps({key: value for key, value in entry.items() if value is not None})


def _full(*entries):
    names = ("id", "text", "event")
    entries = [dict(zip(names, entry, strict=True)) for entry in entries]
    return json.dumps({"memory": entries})


# Response, slots and texts that change (None: gone), and what is counted. Id 0 is slot 0, the dog;
# id 1 is slot 1, the town; the lowest dead slot is 2.
NOTHING: dict = {}
CASES = {
    "update": (
        _entry("UPDATE", 1, "Ana lives in Oslo."),
        {1: " Ana lives in Oslo."},
        {"update": 1},
    ),
    "delete": (_entry("DELETE", 0), {0: None}, {"delete": 1}),
    "add": (_entry("ADD", None, "Rex is ill."), {2: " Rex is ill."}, {"add": 1}),
    "add to the place that a delete frees": (
        _entry("DELETE", 0) + "\n" + _entry("ADD", None, "Rex is ill."),
        {0: " Rex is ill."},
        {"delete": 1, "add": 1},
    ),
    "none": (_entry("NONE"), NOTHING, {"none": 1}),
    "id that was not shown": (
        _entry("UPDATE", 9, "Ana sings."),
        NOTHING,
        {"update": 1, "unknown": 1},
    ),
    "deleted twice": (
        _entry("DELETE", 0) + "\n" + _entry("DELETE", 0),
        {0: None},
        {"delete": 2, "gone": 1},
    ),
    "an id names what was shown, not what an add put in its place": (
        _entry("DELETE", 0) + _entry("ADD", None, "Rex is ill.") + _entry("DELETE", 0),
        {0: " Rex is ill."},
        {"delete": 2, "add": 1, "gone": 1},
    ),
    "nor does an update overwrite it": (
        _entry("DELETE", 0) + _entry("ADD", None, "Rex is ill.") + _entry("UPDATE", 0, "No."),
        {0: " Rex is ill."},
        {"delete": 1, "add": 1, "update": 1, "gone": 1},
    ),
    "full schema, an id names what was shown": (
        _full(("0", "x", "DELETE"), ("9", "Rex is ill.", "ADD"), ("0", "No.", "UPDATE")),
        {0: " Rex is ill."},
        {"delete": 1, "add": 1, "update": 1, "gone": 1},
    ),
    "no text": (_entry("ADD"), NOTHING, {"skipped": 1}),
    "blank text": (_entry("ADD", None, " \t\u3000"), NOTHING, {"skipped": 1}),
    "prose in braces": (
        "Using {ids} as shown:\n" + _entry("ADD", None, "Rex is ill."),
        {2: " Rex is ill."},
        {"add": 1},
    ),
    "reasoning": (
        f"<think>{_entry('DELETE', 1)}? No.</think>\n" + _entry("ADD", None, "Rex is ill."),
        {2: " Rex is ill."},
        {"add": 1},
    ),
    "one object is broken": (
        _entry("ADD", None, "Rex is ill.") + '\n{"op": "DELETE", "id": [1]}\n' + _entry("NONE"),
        {2: " Rex is ill."},
        {"add": 1, "salvaged": 1},
    ),
    "no id": (_entry("DELETE"), NOTHING, {"skipped": 1}),
    "prose": ("I would add this fact.", NOTHING, {"invalid": 1}),
    "cut off": ('{"op": "ADD", "text": "Rex is', NOTHING, {"invalid": 1}),
    "full schema": (
        _full(
            ("0", "Rex is ill.", "UPDATE"),
            ("1", "Ana lives in Lyon.", "NONE"),
            ("4", "Ana left Lyon.", "ADD"),
        ),
        {0: " Rex is ill.", 2: " Ana left Lyon."},
        {"update": 1, "none": 1, "add": 1},
    ),
    "full schema, delete": (_full(("1", "Ana lives in Lyon.", "DELETE")), {1: None}, {"delete": 1}),
    "full schema, cut off": (
        _full(("1", "Ana lives in Lyon.", "DELETE"))[:-2],
        NOTHING,
        {"invalid": 1},
    ),
    "empty": ("", NOTHING, {"invalid": 1}),
}


@pytest.fixture(scope="module")
def outcomes(tiny, shown):
    """Returns bank and report of every case, from one compiled program."""
    bank, facts, prompt = shown
    assert list(prompt.slots[:2]) in ([0, 1], [1, 0])
    prompt = prompt.replace(slots=prompt.slots.at[:2].set(jnp.array([0, 1])))
    rows = [row_of(tiny, response, WIDTH) for response, *_ in CASES.values()]
    tokens, length = (jnp.array(part) for part in zip(*rows, strict=True))
    banks, reports = _apply()(_reader(tiny), tiny.pair.tools, bank, prompt, facts, tokens, length)
    return {
        name: jax.tree.map(lambda x, row=row: x[row], (banks, reports))
        for row, name in enumerate(CASES)
    }


@pytest.mark.parametrize("name", CASES)
def test_a_response_edits_the_right_slots_and_is_counted(tiny, shown, outcomes, name):
    before, facts, _ = shown
    _, changes, counts = CASES[name]
    after, report = outcomes[name]
    expected = texts_of(tiny, before) | changes
    # A word without a spelling of its own after a space keeps the form that it was written in.
    found = {m: text.strip() for m, text in texts_of(tiny, after).items()}
    assert found == {m: text.strip() for m, text in expected.items() if text is not None}
    found = {field.name: float(getattr(report, field.name)) for field in dataclasses.fields(report)}
    assert found == dict.fromkeys(found, 0.0) | counts
    for slot, text in changes.items():
        if text is not None:
            assert (int(after.updated[slot]), int(after.source[slot])) == (1, 7)
            key = tiny.pair.encoder.keys([text])[0]
            np.testing.assert_allclose(after.key[slot], key, atol=1e-6)
    if not changes:
        jax.tree.map(np.testing.assert_array_equal, before.tokens, after.tokens)
        np.testing.assert_array_equal(before.alive, after.alive)


def test_what_was_whole_of_a_broken_response_is_kept_on_request(tiny, shown):
    before, facts, prompt = shown
    prompt = prompt.replace(slots=prompt.slots.at[:2].set(jnp.array([0, 1])))
    cut_off = _full(("9", "Rex is ill.", "ADD"), ("1", "Ana lives in Oslo.", "UPDATE"))[:-30]
    rows = [row_of(tiny, cut_off, WIDTH)] * len(CASES)
    tokens, length = (jnp.array(part) for part in zip(*rows, strict=True))
    manager = dataclasses.replace(_reader(tiny), salvage=True)
    banks, reports = _apply()(manager, tiny.pair.tools, before, prompt, facts, tokens, length)
    after, report = jax.tree.map(lambda x: x[0], (banks, reports))
    assert (float(report.add), float(report.salvaged), float(report.invalid)) == (1, 1, 0)
    found = {m: text.strip() for m, text in texts_of(tiny, after).items()}
    kept = {m: text.strip() for m, text in texts_of(tiny, before).items()}
    assert found == kept | {2: "Rex is ill."}


def test_an_add_to_a_full_bank_is_refused_and_counted(tiny, shown):
    _, facts, _ = shown
    full = bank_of(tiny, [f"Ana owns {number} maps." for number in range(16)])
    prompt = manager_prompt(tiny.pair.manager, tiny.pair.tools, full, facts)
    rows = [row_of(tiny, _entry("ADD", None, "Ana sings."), WIDTH)] * len(CASES)
    tokens, length = (jnp.array(part) for part in zip(*rows, strict=True))
    banks, reports = _apply()(_reader(tiny), tiny.pair.tools, full, prompt, facts, tokens, length)
    after, report = jax.tree.map(lambda x: x[0], (banks, reports))
    assert float(report.refused) == float(report.add) == 1
    assert texts_of(tiny, after) == texts_of(tiny, full)


@pytest.mark.parametrize("schema", ["compact", pytest.param("full", marks=pytest.mark.slow)])
def test_with_a_grammar_every_sample_is_readable(schema):
    changes = {"manager_prompt": "full", "max_prompt_length": 3000} if schema == "full" else {}
    tiny = make_tiny(manager_response_length=64, **changes)
    manager, tools = tiny.pair.manager, tiny.pair.tools
    banks = stack([bank_of(tiny, MEMORIES[:count]) for count in (0, 1, 3, 5)])
    facts = stack([facts_of(tiny, FACTS)] * 4)

    @jax.jit
    def run(params, tools, banks, facts, key):
        prompts = jax.vmap(lambda bank, facts: manager_prompt(manager, tools, bank, facts))(
            banks, facts
        )
        samples = generate(
            tiny.model.decoder,
            params,
            (manager.template.instruction_block, Block(prompts.tokens, prompts.length)),
            key,
            Sampling.create(temperature=1.0),
            group=GROUP,
            max_tokens=manager.response_length,
            stop_tokens=manager.stop_tokens,
            constraint=manager_constraint(tools, prompts.shown, (4, GROUP)),
        )

        def act(bank, prompt, facts, tokens, length):
            return apply_response(manager, tools, bank, prompt, facts, tokens, length)[1]

        reports = jax.vmap(jax.vmap(act, (None, None, None, 0, 0)))(
            banks, prompts, facts, samples.tokens, samples.length
        )
        return samples, reports

    samples, reports = run(tiny.model.params, tools, banks, facts, jax.random.key(3))
    assert samples.stopped.all()
    for count in ("invalid", "skipped", "unknown"):
        bad = np.argwhere(np.asarray(getattr(reports, count)) > 0)
        shown = [tiny.decode(samples.tokens[b, g, : samples.length[b, g]]) for b, g in bad[:3]]
        assert not len(bad), (count, len(bad), shown)
    # The samples are not all alike: every kind of operation was drawn.
    for count in ("add", "update", "delete", "none"):
        assert getattr(reports, count).sum() > 0, count
