"""Demonstrations say what the gold says, under the ids and from the memories that are shown."""

import copy
import dataclasses
import functools
import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_model import make_tiny, texts_of

from memr1_jax.agents import demonstrations
from memr1_jax.agents.demonstrations import (
    MOST_MEMORIES,
    answer_demonstrations,
    manager_demonstrations,
)
from memr1_jax.agents.ingest import add_everything, ingest
from memr1_jax.agents.manager import apply_response
from memr1_jax.agents.prompt_files import read_prompt
from memr1_jax.agents.rollout import answer_prompts, manager_prompts
from memr1_jax.agents.targets import Written, compact_response, distilled_answer, full_response
from memr1_jax.data.encode import encode_final_banks
from memr1_jax.data.tuples import banks_before, turn_of
from memr1_jax.errors import UserError
from memr1_jax.evals.metrics import exact_match
from memr1_jax.text.answer_span import AnswerRule, extract_answer
from memr1_jax.text.events import Event
from memr1_jax.text.grammar import advance, allowed
from memr1_jax.text.json_reference import scan_operations_reference

SIZES = {
    "synthetic_train": 2,
    "synthetic_sessions": 5,
    "synthetic_facts": 5,
    "memory_width": 32,
    "bank_capacity": 32,
    "memories": 8,
    "neighbours": 32,
    "memories_shown": 32,
    "facts_per_turn": 1,
    "answer_response_length": 128,
}
COMPACT = {"max_prompt_length": 1536, "manager_response_length": 64, "constrained": True}
FULL = {
    "manager_prompt": "full",
    "answer_prompt": "full",
    "constrained": False,
    "max_prompt_length": 3072,
    "manager_response_length": 640,
}


def _tiny(changes=COMPACT):
    return make_tiny(**SIZES | changes)


def _lessons(changes=COMPACT, manager=None, **options):
    tiny = _tiny(changes)
    return manager_demonstrations(
        manager or tiny.pair.manager,
        tiny.pair.tools,
        tiny.pair.encoder,
        tiny.model.tokenizer,
        tiny.conversations,
        **options,
    )


@functools.cache
def _banks():
    tiny = _tiny()
    return ingest(add_everything, None, tiny.pair.tools, tiny.pair.encoder, tiny.conversations)


_prompts = jax.jit(answer_prompts, static_argnums=0)


@functools.cache
def _answers(prompt="answer_compact", verbose=0.0, seed=0, **sizes):
    tiny = _tiny(FULL if "full" in prompt else COMPACT)
    agent = tiny.pair.answerer
    template = dataclasses.replace(agent.template, head=read_prompt(prompt).head)
    agent = dataclasses.replace(agent, template=template, **sizes)
    tools, encoder, tokenizer = tiny.pair.tools, tiny.pair.encoder, tiny.model.tokenizer
    demonstrations, counts = answer_demonstrations(
        *(agent, tools, encoder, tokenizer, tiny.conversations, _banks().banks),
        verbose=verbose,
        seed=seed,
    )
    rows = jnp.arange(demonstrations.data.rows)
    shown = _prompts(agent, tools, demonstrations.data.select(rows, rows >= 0))
    pairs = zip(*jax.device_get((shown.tokens, shown.length)), strict=True)
    return demonstrations, counts, [tiny.decode(tokens[:length]) for tokens, length in pairs]


def _responses(tiny, demonstrations):
    """Returns the texts, without the end token that each must close with."""
    tokens, length = np.asarray(demonstrations.tokens), np.asarray(demonstrations.length)
    stop = tiny.model.tokenizer.eos_token_id
    assert (tokens[np.arange(len(length)), length - 1] == stop).all()
    assert (tokens[np.arange(tokens.shape[1]) >= length[:, None]] == 0).all()
    return [tiny.decode(row[: n - 1]) for row, n in zip(tokens, length, strict=True)]


def _gold(tiny):
    """Returns every gold operation with its conversation, in the order of the demonstrations."""
    return [(c, operation) for c in tiny.conversations for operation in c.operations]


def _edited(tiny, demonstrations):
    """Returns the texts of each row's bank after its demonstration."""
    manager, tools = tiny.pair.manager, tiny.pair.tools

    @jax.jit
    def apply(tools, demonstrations):
        rows = jnp.arange(demonstrations.rows)
        batch, response = demonstrations.select(rows, rows >= 0)
        prompts = manager_prompts(manager, tools, batch)
        act = functools.partial(apply_response, manager, tools)
        return jax.vmap(act)(
            batch.own, prompts, batch.facts, response.tokens[:, 0], response.length[:, 0]
        )

    banks, report = jax.device_get(apply(tools, demonstrations))
    for fault in ("invalid", "skipped", "unknown", "gone", "refused", "dropped", "cut", "unread"):
        assert not getattr(report, fault).any(), fault
    return [
        sorted(texts_of(tiny, jax.tree.map(lambda x, row=row: x[row], banks)).values())
        for row in range(demonstrations.rows)
    ]


@pytest.mark.parametrize("changes", [COMPACT, FULL], ids=["compact", "full"])
def test_applied_to_the_bank_they_leave_what_the_gold_operations_leave(changes):
    tiny = _tiny(changes)
    demonstrations, counts = _lessons(changes)
    gold = _gold(tiny)
    assert {operation.event for _, operation in gold} == set(Event)
    assert demonstrations.rows == len(gold) and not any(counts.values())
    assert not np.any(demonstrations.data.asked)
    for (conversation, operation), found in zip(gold, _edited(tiny, demonstrations), strict=True):
        fact = conversation.facts[operation.fact]
        after = banks_before(conversation, turn_of(conversation, fact) + 1)
        own = after[conversation.speakers.index(fact.speaker)]
        assert found == sorted(f" {kept.text}" for kept in own)


def test_other_dialogues_compile_nothing_more():
    """Batches have one shape, whatever the number of rows that they are picked from."""
    tiny, sizes, rows = _tiny(), [], []
    parts = tiny.pair.tools, tiny.pair.encoder, tiny.model.tokenizer
    once = tiny.conversations
    for dialogues in (once, [*once, dataclasses.replace(once[0], id="again")]):
        manager, _ = manager_demonstrations(tiny.pair.manager, *parts, dialogues)
        banks = encode_final_banks(tiny.pair.encoder, dialogues)
        answers, _ = answer_demonstrations(tiny.pair.answerer, *parts, dialogues, banks)
        programs = demonstrations._slots_shown, demonstrations.memories_shown
        sizes.append([program._cache_size() for program in programs])
        rows.append((manager.rows, answers.rows))
    assert sizes[0] == sizes[1]
    assert rows[0][0] < rows[1][0] and rows[0][1] < rows[1][1]


def test_they_read_back_as_the_gold_operations():
    tiny = _tiny()
    demonstrations, _ = _lessons()
    rows = zip(_gold(tiny), _responses(tiny, demonstrations), strict=True)
    for (_, operation), response in rows:
        scan = scan_operations_reference(response, max_operations=4)
        assert scan.valid and scan.strict and not scan.skipped
        assert scan.none == (operation.event == Event.NONE)
        assert [(event, text) for event, _, text in scan.operations] == (
            [(operation.event, operation.text)] if operation.event != Event.NONE else []
        )


def test_the_grammar_would_have_allowed_every_token():
    tiny = _tiny()
    demonstrations, _ = _lessons()
    manager, tools = tiny.pair.manager, tiny.pair.tools

    @jax.jit
    def legal(tools, demonstrations):
        rows = jnp.arange(demonstrations.rows)
        batch, response = demonstrations.select(rows, rows >= 0)
        shown = manager_prompts(manager, tools, batch).shown
        tokens, size = response.tokens[:, 0], manager.response_length

        def read(state, step):
            place, token = step
            may = allowed(tools.grammar, state, jnp.full_like(state, size - place), shown)
            return advance(tools.grammar, state, token, shown), may[rows, token]

        first = jnp.broadcast_to(jnp.int32(tools.grammar.start), rows.shape)
        _, found = jax.lax.scan(read, first, (jnp.arange(size), tokens.T))
        return found.T | (jnp.arange(size) >= response.length)

    assert np.asarray(legal(tools, demonstrations)).all()


def test_a_memory_that_is_not_shown_is_not_named():
    tiny = _tiny()
    manager = dataclasses.replace(tiny.pair.manager, neighbours=1, shown=1)
    demonstrations, counts = _lessons(manager=manager)
    gold = [operation.event for _, operation in _gold(tiny)]
    scans = [scan_operations_reference(text, 4) for text in _responses(tiny, demonstrations)]
    assert all(place <= 0 for scan in scans for _, place, _ in scan.operations)
    taught = [scan.operations[0][0] if scan.operations else Event.NONE for scan in scans]
    pairs = list(zip(gold, taught, strict=True))
    assert all(
        new == old or (old, new) in {(Event.UPDATE, Event.ADD), (Event.DELETE, Event.NONE)}
        for old, new in pairs
    )
    assert counts["update_not_shown"] == pairs.count((Event.UPDATE, Event.ADD)) > 0
    assert counts["delete_not_shown"] == pairs.count((Event.DELETE, Event.NONE)) > 0
    assert pairs.count((Event.UPDATE, Event.UPDATE)) > 0


def test_operations_can_be_taught_wrong():
    tiny = _tiny()
    gold = [operation.event for _, operation in _gold(tiny)]

    def events(**options):
        demonstrations, counts = _lessons(**options)
        scans = [scan_operations_reference(text, 4) for text in _responses(tiny, demonstrations)]
        taught = [scan.operations[0][0] if scan.operations else Event.NONE for scan in scans]
        assert counts["corrupted"] == sum(a != b for a, b in zip(gold, taught, strict=True))
        return taught

    wrong = events(corrupt=1.0)
    assert wrong == [Event.NONE if event == Event.ADD else Event.ADD for event in gold]
    some = events(corrupt=0.5)
    assert gold != some != wrong and some == events(corrupt=0.5) != events(corrupt=0.5, seed=1)
    assert all(new in pair for new, *pair in zip(some, gold, wrong, strict=True))
    # More noise adds to the wrong ones and changes no other.
    more = events(corrupt=0.7)
    assert all(b == w for a, b, w in zip(some, more, wrong, strict=True) if a == w)


def test_what_does_not_fit_is_left_out_and_counted():
    tiny = _tiny()
    whole, _ = _lessons()
    limit = int(np.median(whole.length))
    manager = dataclasses.replace(tiny.pair.manager, response_length=limit)
    fitting, counts = _lessons(manager=manager)
    kept = np.flatnonzero(np.asarray(whole.length) <= limit)
    np.testing.assert_array_equal(fitting.row, kept)
    np.testing.assert_array_equal(fitting.tokens, np.asarray(whole.tokens)[kept, :limit])
    assert counts["too_long"] == whole.rows - fitting.rows > 0
    batch, response = fitting.select(jnp.array([1, 0]), jnp.array([True, False]))
    np.testing.assert_array_equal(batch.facts.tokens, whole.data.facts.tokens[kept[[1, 0]]])
    np.testing.assert_array_equal(response.tokens[:, 0], fitting.tokens[np.array([1, 0])])
    np.testing.assert_array_equal(batch.valid, [True, False])
    with pytest.raises(UserError, match="--manager_response_length=2 "):
        _lessons(manager=dataclasses.replace(manager, response_length=2))


def test_dialogues_without_gold_operations_are_refused():
    tiny = _tiny()
    plain = [dataclasses.replace(c, operations=()) for c in tiny.conversations]
    with pytest.raises(UserError, match="--data=synthetic"):
        pair, tokenizer = tiny.pair, tiny.model.tokenizer
        manager_demonstrations(pair.manager, pair.tools, pair.encoder, tokenizer, plain)


@pytest.mark.parametrize(
    "prompt",
    [
        *("compact", "compact_base", "full"),
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("full_base", "full_qwen")),
    ],
)
def test_the_answer_read_from_a_demonstration_is_the_gold(prompt):
    demonstrations, _, _ = _answers(f"answer_{prompt}")
    tiny = _tiny()
    questions = [question for c in tiny.conversations for question in c.questions]
    for row, response in zip(demonstrations.row, _responses(tiny, demonstrations), strict=True):
        question = questions[int(row)]
        answer, rule = extract_answer(response)
        assert rule == AnswerRule.BOLD_LABEL and answer == question.answer
        assert exact_match(answer, question.answer) == 1.0
        assert prompt.endswith("base") == (response == f"**Answer:** {question.answer}")


def test_answers_rest_on_shown_evidence():
    demonstrations, counts, prompts = _answers(memories=2)
    tiny = _tiny()
    asked = [(c, question) for c in tiny.conversations for question in c.questions]
    responses = dict(
        zip(demonstrations.row.tolist(), _responses(tiny, demonstrations), strict=True)
    )
    assert counts["evidence_not_shown"] == len(asked) - len(responses) > 0
    assert counts["too_long"] == 0
    several = 0
    for row, (conversation, question) in enumerate(asked):
        evidence = [f.text for f in conversation.facts if f.sources[-1] in question.evidence]
        listed = [text for text in evidence if f": {text}\n" in prompts[row]]
        if row not in responses:
            assert not listed
            continue
        quoted = responses[row].partition("**Answer:**")[0]
        found = [text for text in listed if text in quoted]
        assert found and len(quoted) == sum(len(text) + 1 for text in found)
        assert len(found) == min(len(listed), MOST_MEMORIES)
        several += len(found) > 1
    assert several


def test_answers_can_be_taught_too_long():
    tiny = _tiny()
    golds = [question.answer for c in tiny.conversations for question in c.questions]

    def told(**flaws):
        demonstrations, counts, _ = _answers(**flaws)
        rows = zip(demonstrations.row.tolist(), _responses(tiny, demonstrations), strict=True)
        parts = {row: response.split(" **Answer:** ") for row, response in rows}
        long = {row for row, (_, answer) in parts.items() if answer != golds[row]}
        assert all(parts[row][0].startswith(parts[row][1]) for row in long)  # the best memory
        assert counts["verbose"] == len(long)
        return long, set(parts)

    none, rows = told()
    assert not none and told(verbose=1.0)[0] == rows
    some, _ = told(verbose=0.5)
    assert set() < some < rows and some < told(verbose=0.8)[0]
    assert some == told(verbose=0.5)[0] != told(verbose=0.5, seed=1)[0]


def test_the_layouts_of_the_prompts():
    memories = [(1, "9:10 am on 4 May, 2023", "Ann has a cat."), (0, "noon", "Tom paints.")]
    assert distilled_answer("line", memories, "a cat") == (
        "Ann has a cat. Tom paints. **Answer:** a cat"
    )
    assert distilled_answer("lists", memories, "a cat") == (
        "Selected memories of the first person:\n- noon: Tom paints.\n"
        "Selected memories of the second person:\n- 9:10 am on 4 May, 2023: Ann has a cat.\n"
        "**Answer:** a cat"
    )
    operations = [
        Written(Event.UPDATE, 0, 'Tom paints "landscapes".'),
        Written(Event.DELETE, 1, ""),
        Written(Event.NONE, -1, ""),
        Written(Event.ADD, -1, "Tom läuft."),
    ]
    assert compact_response(operations) == (
        '{"op": "UPDATE", "id": 0, "text": "Tom paints \\"landscapes\\"."}\n'
        '{"op": "DELETE", "id": 1}\n{"op": "NONE"}\n{"op": "ADD", "text": "Tom läuft."}'
    )
    before = ["Tom paints.", "Tom has a cat.", "Tom is tall."]
    written = full_response(operations, before, old_memory=True)
    assert json.loads(written)["memory"] == [
        {
            "id": "0",
            "text": 'Tom paints "landscapes".',
            "event": "UPDATE",
            "old_memory": "Tom paints.",
        },
        {"id": "1", "text": "Tom has a cat.", "event": "DELETE"},
        {"id": "2", "text": "Tom is tall.", "event": "NONE"},
        {"id": "3", "text": "Tom läuft.", "event": "ADD"},
    ]
    assert "old_memory" not in full_response(operations, before, old_memory=False)


def test_a_demonstration_ends_where_the_chat_template_ends_a_turn(tiny):
    tokenizer = copy.deepcopy(tiny.model.tokenizer)
    start, end = tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}<|im_start|>{% endfor %}"
    for stops, last in [((start, end), start), ((end,), end), ((5,), 5)]:
        agent = types.SimpleNamespace(stop_tokens=stops, response_length=8)
        made, _ = demonstrations.written_demonstrations(
            agent, "answer", tokenizer, None, ["yes"], {}
        )
        assert made.tokens[0, made.length[0] - 1] == last
