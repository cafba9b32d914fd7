"""From dialogues to banks, stream by stream."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_model import bank_of, facts_of, make_tiny, stack, texts_of

from memr1_jax.agents.ingest import add_everything, ingest, make_ingest_turn
from memr1_jax.data.encode import fact_streams

MEMORIES = ["Ana has a dog named Rex.", "Ana lives in Lyon."]


@pytest.fixture(scope="module")
def tiny():
    """Returns two conversations, so four streams; two end early."""
    made = make_tiny(synthetic_train=2)
    first, second = made.conversations
    half = first.sessions[0].number
    facts = tuple(fact for fact in first.facts if fact.session == half)
    return dataclasses.replace(
        made, conversations=[dataclasses.replace(first, facts=facts, operations=()), second]
    )


def test_without_a_manager_a_bank_is_the_list_of_facts(tiny):
    lengths = [
        len(stream)
        for c in tiny.conversations
        for stream in fact_streams(c, tiny.pair.encoder.sizes.facts)
    ]
    assert len(set(lengths)) > 1 and min(lengths) > 0
    told = []
    ingestion = ingest(
        add_everything,
        None,
        tiny.pair.tools,
        tiny.pair.encoder,
        tiny.conversations,
        lambda done, total, turn: told.append((done, total, turn)),
    )
    assert told == [(i + 1, max(lengths), None) for i in range(max(lengths))]
    sizes = tiny.pair.encoder.sizes
    for row, conversation in enumerate(tiny.conversations):
        for speaker, name in enumerate(conversation.speakers):
            bank = jax.tree.map(lambda x, row=row: x[row], ingestion.banks[speaker])
            wanted = [
                tiny.decode(tiny.pair.encoder.tokenize(fact.text)[: sizes.memory_width])
                for fact in conversation.facts
                if fact.speaker == name
            ]
            assert list(texts_of(tiny, bank).values()) == wanted
            count = len(wanted)
            sessions = [f.session for f in conversation.facts if f.speaker == name]
            assert [conversation.sessions[t].number for t in bank.created[:count]] == sessions
    assert ingestion.counts["turns"] == sum(lengths)
    assert ingestion.counts["refused"] == 0


def test_facts_that_say_nothing_are_no_memories(tiny):
    conversation = tiny.conversations[1]
    first = conversation.facts[0]
    blank = dataclasses.replace(first, text=" \u3000")
    changed = dataclasses.replace(conversation, facts=(blank, *conversation.facts, blank))
    whole, without = (
        ingest(add_everything, None, tiny.pair.tools, tiny.pair.encoder, [c])
        for c in (changed, conversation)
    )
    assert (whole.counts["facts_skipped"], without.counts["facts_skipped"]) == (2, 0)
    jax.tree.map(np.testing.assert_array_equal, whole.banks, without.banks)


def test_a_manager_edits_the_streams_that_go_on_and_no_other(tiny):
    turn = make_ingest_turn(tiny.pair.manager, tiny.model.decoder)
    programs = turn._cache_size()
    reports, actives = [], []

    def watched(params, tools, banks, facts, active):
        before = jax.device_get(banks)
        after, record = turn(params, tools, banks, facts, active)
        reports.append(jax.device_get(record.report))
        actives.append(active)
        jax.tree.map(
            lambda a, b: np.testing.assert_array_equal(np.asarray(a)[~active], b[~active]),
            jax.device_get(after),
            before,
        )
        assert (np.asarray(record.samples.length)[~active] == 0).all()
        return after, record

    ingestion = ingest(
        watched, tiny.model.params, tiny.pair.tools, tiny.pair.encoder, tiny.conversations
    )
    assert any(not active.all() for active in actives)
    counts = ingestion.counts
    for field in ("add", "update", "delete", "none", "invalid", "unknown", "refused"):
        total = sum(
            float((getattr(report, field) * active).sum())
            for report, active in zip(reports, actives, strict=True)
        )
        assert counts[field] == total, field
    assert counts["invalid"] == counts["skipped"] == counts["unknown"] == 0
    assert counts["turns"] == sum(active.sum() for active in actives)
    alive = sum(int(bank.alive.sum()) for bank in ingestion.banks)
    assert alive >= counts["add"] - counts["refused"] - counts["delete"]
    assert turn._cache_size() <= programs + 1

    # An idle stream keeps its bank even if there are facts for it.
    streams = len(actives[0])
    banks = stack([bank_of(tiny, MEMORIES)] * streams)
    facts = stack([facts_of(tiny, ["Ana moved to Oslo."])] * streams)
    active = np.arange(streams) == 0
    after, _ = turn(
        tiny.model.params, tiny.pair.tools, jax.tree.map(jnp.copy, banks), facts, active
    )
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[1:], b[1:]), banks, after)
