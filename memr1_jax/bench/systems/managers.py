"""Managers decide about new facts: a language model with Memory-R1's operations, or plain rules.

A `Manager` is a generator over the facts that arrive together for one speaker; it returns the bank
after its operations.
"""

import collections
import itertools
import random
from collections.abc import Callable, Sequence
from typing import TypeAlias

from memr1_jax.agents.prompt_files import PromptText, fill_line, fill_text, read_prompt
from memr1_jax.bench.systems.neighbours import nearest_to_any
from memr1_jax.bench.systems.protocol import Call, Memory, Steps, ask
from memr1_jax.bench.systems.text_bank import Bank, Embed, add, delete, update
from memr1_jax.data.types import Fact
from memr1_jax.text.events import Event
from memr1_jax.text.json_reference import scan_operations_reference
from memr1_jax.text.normalize import normalize_text
from memr1_jax.text.plain import one_line

Written: TypeAlias = tuple[Event, int, str]  # an operation: event, id as shown or -1, text
Manager: TypeAlias = Callable[
    [Bank, Sequence[Fact], str, collections.Counter], Steps[Bank]
]  # bank, facts, time, counts

NEIGHBOURS = 5  # similar memories a fact: Memory-R1, after Mem0's code
SHOWN = 20  # memories shown at most
_MOST_OPERATIONS = 64  # of one response; more are counted as dropped


def language_model_manager(
    embed: Embed,
    prompt: str = "compact",
    *,
    model: str = "base",
    schema: str = "",
    max_tokens: int = 2048,
    neighbours: int = NEIGHBOURS,
    shown: int = SHOWN,
    room: int | None = None,
    count: Callable[[str], int] = len,
    salvage: bool = False,
) -> Manager:
    """Returns the Memory Manager: one call has the facts and similar memories, numbered from 0.

    Prompts are those of the agent that is trained, letter for letter. Output that cannot be read
    changes nothing and is counted.

    Args:
      embed: of texts.
      prompt: the manager's prompt file, see `read_prompt`.
      model: the weights, see `Call`.
      schema: "compact" or "full" for decoding held to a grammar, else empty.
      max_tokens: of a response.
      neighbours: memories retrieved for each fact.
      shown: memories shown at most, the best of all.
      room: the tokens that the list of memories may take; the least similar go, and are counted.
      count: tells the tokens of a text.
      salvage: whether what was whole of a broken response counts.
    """
    template = read_prompt(prompt, "manager")

    def manage(bank, facts, time, counts):
        ids = nearest_to_any(bank, [fact.text for fact in facts], neighbours, shown, embed)
        lines = _memory_lines(template, [bank.items[i].text for i in ids])
        left = room if room is not None else sum(map(count, lines))
        fitting = 0
        for line in lines:
            left -= count(line)
            if left < 0:
                break
            fitting += 1
        counts["neighbours_dropped"] += len(ids) - fitting
        ids = ids[:fitting]
        messages = manager_messages(
            template, [bank.items[i].text for i in ids], [fact.text for fact in facts]
        )
        call = Call("manage", messages, max_tokens, model, schema, len(ids) if schema else 0)
        reply = yield from ask(call)
        scan = scan_operations_reference(reply.text, _MOST_OPERATIONS, salvage)
        outcome = "read" if scan.strict else "recovered" if scan.valid else "failed"
        counts[f"manage_{outcome}"] += 1
        counts["manage_cut"] += not reply.stopped
        counts["salvaged"] += scan.salvaged
        counts["skipped"] += scan.skipped
        counts["dropped"] += scan.dropped
        counts["none"] += scan.none
        return apply_written(bank, scan.operations, ids, facts, time, embed, counts)

    return manage


def manager_messages(
    template: PromptText, memories: Sequence[str], facts: Sequence[str]
) -> tuple[tuple[str, str], ...]:
    """Returns the messages `(role, text)` that ask the manager about facts."""
    *fixed, (role, text) = template.messages
    shown = "".join(_memory_lines(template, memories)) or template.empty["memories"]
    new = "".join(fill_line(template.entries["facts"], {"text": f" {fact}"}) for fact in facts)
    return (*fixed, (role, fill_text(text, {"memories": shown, "facts": new})))


def _memory_lines(template: PromptText, memories: Sequence[str]) -> list[str]:
    # A text has one space in front, as in the prompts of the rollout.
    return [
        fill_line(template.entries["memories"], {"id": str(place), "text": f" {memory}"})
        for place, memory in enumerate(memories)
    ]


def apply_written(
    bank: Bank,
    operations: Sequence[Written],
    ids: Sequence[int],
    facts: Sequence[Fact],
    time: str,
    embed: Embed,
    counts: collections.Counter,
) -> Bank:
    """Applies operations in order; `ids` are the memories that their numbers stand for.

    The sources of an ADD or UPDATE are the turns of all facts, since a response does not say which
    it means. Operations are counted as written; a number that was not shown, or a memory that
    is gone, is counted and changes nothing.
    """
    sources = tuple(dict.fromkeys(source for fact in facts for source in fact.sources))
    for event, place, text in operations:
        counts[event.key] += 1
        memory = Memory(one_line(text), time, facts[0].speaker, sources)
        if event == Event.ADD:
            bank = add(bank, [memory], embed)
        elif event.names_memory:
            if not 0 <= place < len(ids):
                counts["unknown_ids"] += 1
            elif ids[place] not in bank.items:
                counts["gone_ids"] += 1
            elif event == Event.UPDATE:
                bank = update(bank, ids[place], memory, embed)
            else:
                bank = delete(bank, ids[place])
    return bank


def add_only(embed: Embed) -> Manager:
    """Stores every fact but those whose text the bank holds already (as Mem0 2.0).

    A repeated fact adds its turns to the memory that says the same.
    """

    def manage(bank, facts, time, counts):
        for fact in facts:
            same = [i for i, memory in bank.items.items() if memory.text == fact.text]
            if same:
                counts["duplicates"] += 1
                items = dict(bank.items)
                items[same[0]] = with_sources(items[same[0]], fact.sources)
                bank = Bank(items, bank.keys, bank.next_id)
            else:
                counts["add"] += 1
                memory = Memory(fact.text, time, fact.speaker, fact.sources)
                bank = add(bank, [memory], embed)
        return bank
        yield  # makes it a generator

    return manage


def newest_wins(embed: Embed) -> Manager:
    """Lets a new fact replace the memory that begins with the same words; asks no model.

    Sentences name their subject first and the value last, so two facts about one person are
    taken to differ in the value alone if they share more than half of their words, from the first
    on. A fact that resembles no memory is stored.
    """

    def manage(bank, facts, time, counts):
        for fact in facts:
            like = {i: _shared_beginning(memory, fact) for i, memory in bank.items.items()}
            best = max(like, key=lambda i: (like[i], i), default=None)
            memory = Memory(fact.text, time, fact.speaker, fact.sources)
            if best is None or like[best] <= 0.5:
                counts["add"] += 1
                bank = add(bank, [memory], embed)
            else:
                counts["none" if bank.items[best].text == fact.text else "update"] += 1
                bank = update(bank, best, memory, embed)
        return bank
        yield  # makes it a generator

    return manage


def _shared_beginning(memory: Memory, fact: Fact) -> float:
    """Returns the share of words, of the longer text, that both begin with.

    The speaker's name that stands before a turn is no part of what was said.
    """
    name = f"{one_line(fact.speaker)}: "
    first, second = (
        normalize_text(text.removeprefix(name)).split() for text in (memory.text, fact.text)
    )
    pairs = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False))
    return sum(1 for _ in pairs) / max(len(first), len(second), 1)


def noop_only(bank: Bank, facts: Sequence[Fact], time: str, counts) -> Steps[Bank]:
    """Stores nothing."""
    counts["none"] += len(facts)
    return bank
    yield  # makes it a generator


def random_operations(
    embed: Embed, seed: int = 0, *, neighbours: int = NEIGHBOURS, shown: int = SHOWN
) -> Manager:
    """Draws one of the operations that are legal for each fact, each as likely as the others.

    Without similar memories ADD and NONE are legal. The draws depend only on the seed and
    the facts.
    """

    def manage(bank, facts, time, counts):
        ids = nearest_to_any(bank, [fact.text for fact in facts], neighbours, shown, embed)
        operations = []
        for fact in facts:
            draw = random.Random(repr((seed, fact)))
            event = draw.choice(list(Event) if ids else [Event.NONE, Event.ADD])
            place = draw.randrange(len(ids)) if event.names_memory else -1
            text = fact.text if event.writes else ""
            operations.append((event, place, text))
        return apply_written(bank, operations, ids, facts, time, embed, counts)
        yield  # makes it a generator

    return manage


def with_sources(memory: Memory, sources: Sequence[str]) -> Memory:
    """Adds further source turns to a memory."""
    union = tuple(dict.fromkeys((*memory.sources, *sources)))
    return Memory(memory.text, memory.time, memory.owner, union)
