"""A stand-in for `Agents`: rules in place of models, so that nothing is compiled."""

import dataclasses
import re
import threading
from types import SimpleNamespace

import numpy as np

from memr1_jax.inference.batching import bucket, grown
from memr1_jax.inference.decisions import Answered, Change, Decision, Remembered
from memr1_jax.inference.memories import Memories
from memr1_jax.memory.bank import MemoryBank
from memr1_jax.text.events import Event

WIDTH, FEATURES = 200, 64


class Tokenizer:
    """A token for each character."""

    def decode(self, tokens, **_):
        return "".join(map(chr, tokens))


class ScriptedAgents:
    """Remembers "KEY is VALUE": adds, updates where the key is known, deletes at "forget KEY".

    "garbled" is a turn whose manager output cannot be read, while `broken` is set;
    "crash" raises an error. `batches` are the sizes of what came together.
    """

    def __init__(self):
        self.options = SimpleNamespace(
            bank_capacity=8, memories=4, embedder="tfidf", features=FEATURES
        )
        self.tokenizer, self.facts = Tokenizer(), "turns"
        self.digests = dict.fromkeys(("manager", "answerer", "tokenizer", "embedder"), "scripted")
        self.broken, self.batches, self.gate = True, [], None

    def tokens(self, text):
        return list(map(ord, text))[:WIDTH]

    def vectors(self, rows):
        return np.stack([self.query("".join(map(chr, row))) for row in rows])

    def query(self, text):
        vector = np.zeros(FEATURES, np.float32)
        for word in re.findall(r"\w+", text.lower()):
            vector[sum(map(ord, word)) % FEATURES] += 1
        return vector / max(1.0, float(np.linalg.norm(vector)))

    def empty(self):
        capacity = self.options.bank_capacity
        counts = np.zeros((5, capacity), np.int32)
        bank = MemoryBank(
            tokens=np.zeros((capacity, WIDTH), np.int32),
            length=counts[0],
            key=np.zeros((capacity, FEATURES), np.float32),
            created=counts[1],
            updated=counts[2],
            source=counts[3],
            alive=np.zeros(capacity, bool),
            refused=np.int32(0),
            unknown=np.int32(0),
            overflowed=np.int32(0),
        )
        return Memories(("", ""), (bank, bank), (), 0, self.tokenizer)

    def remember_all(self, requests):
        assert threading.current_thread().name == "memr1 agents"
        self.batches.append(len(requests))
        if self.gate is not None:
            self.gate.wait(10)
        return [self._remember(list(turns), memories) for turns, memories in requests]

    def _remember(self, turns, memories):
        (speaker,) = {turn[0] for turn in turns}
        owner = memories.speakers.index(speaker)
        bank = memories.banks[owner]
        bank = grown(bank, bucket(int(bank.alive.sum()) + len(turns), len(bank.alive)))
        bank = dataclasses.replace(
            bank, **{f.name: np.array(getattr(bank, f.name)) for f in dataclasses.fields(bank)}
        )
        decisions = []
        for place, (_, text, _) in enumerate(turns):
            if "crash" in text:
                raise RuntimeError("crash")
            readable = not (self.broken and "garbled" in text)
            changes = self._changes(bank, text) if readable else ()
            facts = (f"{speaker}: {text}",)
            decisions.append(
                Decision(place, speaker, facts, f"prompt {text}", "output", readable, changes)
            )
        banks = [*memories.banks]
        banks[owner] = bank
        return Remembered(dataclasses.replace(memories, banks=tuple(banks)), tuple(decisions))

    def _changes(self, bank, text):
        held = {
            self.tokenizer.decode(bank.tokens[slot, : bank.length[slot]]): int(slot)
            for slot in np.flatnonzero(bank.alive)
        }
        match = re.fullmatch(r"(forget )?(\w+)( is .*)?", text)
        if not match:
            return ()
        old = next((t for t in held if t.startswith(match[2] + " is")), None)
        if match[1]:
            if old is None:
                return ()
            bank.alive[held[old]] = False
            return (Change(Event.DELETE, held[old], old, ""),)
        if match[3] is None or old == text:
            return ()
        slot = held[old] if old else int(np.argmin(bank.alive))
        tokens = self.tokens(text)
        bank.tokens[slot] = 0
        bank.tokens[slot, : len(tokens)] = tokens
        bank.length[slot], bank.alive[slot] = len(tokens), True
        return (Change(Event.UPDATE if old else Event.ADD, slot, old or "", text),)

    def answer_all(self, requests):
        assert threading.current_thread().name == "memr1 agents"
        self.batches.append(len(requests))
        found = []
        for question, memories in requests:
            shown = tuple(memories)
            picked = tuple(m for m in shown if m.text.split()[0] in question)
            answer = picked[0].text if picked else "unknown"
            found.append(Answered(answer, picked, shown, answer, f"prompt {question}"))
        return found
