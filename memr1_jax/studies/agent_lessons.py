"""Lessons of the nano agents, written on the host: prompts as the agents' own, and right responses.

The rollout makes prompts on the device, a compiled batch at a time. Here many thousands of short
ones are wanted, so texts are tokenised once each and joined as `templates.fill` would; memories are
retrieved from embeddings as `memory.retrieval` would.

Axis letters: N lessons, T tokens of prompt and response together.
"""

import functools
import random
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from memr1_jax.agents.agent_pair import AgentPair
from memr1_jax.agents.demonstrations import MOST_MEMORIES
from memr1_jax.agents.extractor import FactExtractor, write_facts
from memr1_jax.agents.targets import Written, compact_response, distilled_answer
from memr1_jax.agents.templates import Template
from memr1_jax.data.encode import embed_rows
from memr1_jax.data.everyday import asked_of, passing_question
from memr1_jax.data.tuples import banks_before, turn_of
from memr1_jax.data.types import Conversation, Fact
from memr1_jax.text.events import Event
from memr1_jax.text.plain import plain_encoder

_SMALL_TALK = 0.15  # share of the turns without facts that are demonstrated
_QUESTION = 0.1  # share of these that are questions
_JOINED = 0.12  # share of the turns with facts that tell two
_ALONE = 0.65  # share of the questions that are asked where only one speaker is known
_FEWER = 0.6  # share of the lessons with memories in which a part of these is left out

_UNSPACED = 0.5  # share of the memories that begin without the space before a capital letter


class Lesson(NamedTuple):
    """A prompt and what should follow it, as tokens; the instruction is part of the prompt."""

    prompt: list[int]
    response: list[int]


class LessonWriter:
    """Writes lessons of all three agents from dialogues."""

    def __init__(self, pair: AgentPair, extractor: FactExtractor, tokenizer):
        """Takes the agents, whose prompts and sizes the lessons have."""
        self._pair, self._extractor = pair, extractor
        self._encode = plain_encoder(tokenizer)
        self._stop = extractor.stop_tokens[0]
        self._space = self._encode(" ")[0]
        self._inline = functools.lru_cache(maxsize=200_000)(pair.encoder.tokenize)

    def lessons(self, dialogues: Sequence[Conversation], seed: int) -> dict[str, list[Lesson]]:
        """Writes the lessons of each agent: "extract", "manager" and "answer"."""
        rng = random.Random(seed)
        near = self._neighbours(dialogues)
        found: dict[str, list[Lesson]] = {"extract": [], "manager": [], "answer": []}
        for dialogue in dialogues:
            found["extract"] += self._extractions(rng, dialogue)
            found["manager"] += self._operations(rng, dialogue, near)
            found["answer"] += self._answers(rng, dialogue, near)
        return found

    def _lesson(
        self, template: Template, slots: dict, response: str, room: tuple[int, int]
    ) -> Iterator[Lesson]:
        """Yields the lesson, or nothing where it is too long."""
        prompt = filled(template, slots)
        tokens = [*self._encode(response), self._stop]
        if len(prompt) <= len(template.instruction) + room[0] and len(tokens) <= room[1]:
            yield Lesson(prompt, tokens)

    def _extractions(self, rng: random.Random, dialogue: Conversation) -> Iterator[Lesson]:
        noted: dict[str, list[str]] = {}
        for fact in dialogue.facts:
            noted.setdefault(fact.sources[-1], []).append(fact.text)
        turns = [turn for session in dialogue.sessions for turn in session.turns]
        telling = [turn for turn in turns if turn.dia_id in noted]
        for turn in turns:
            text, facts = turn.text, noted.get(turn.dia_id, [])
            if not facts:
                if rng.random() > _SMALL_TALK:
                    continue
                if rng.random() < _QUESTION:
                    text = passing_question(rng, rng.choice(dialogue.speakers))
            elif rng.random() < _JOINED:
                other = rng.choice(telling)
                if other is not turn and other.speaker == turn.speaker:
                    text, facts = f"{text} {other.text}", facts + noted[other.dia_id]
            extractor = self._extractor
            width = extractor.turn_width
            slots = {
                "speaker": self._inline(turn.speaker)[:width],
                "turn": self._inline(text)[:width],
            }
            room = extractor.prompt_length, extractor.response_length
            yield from self._lesson(extractor.template, slots, write_facts(facts), room)

    def _memory(self, rng: random.Random, text: str) -> list[int]:
        """Tokenises a memory: as the data give it, or as the manager writes it, after a quote."""
        tokens = self._inline(text)[: self._pair.encoder.sizes.memory_width]
        return tokens[1:] if tokens[0] == self._space and rng.random() < _UNSPACED else tokens

    def _operations(
        self, rng: random.Random, dialogue: Conversation, near: "_Near"
    ) -> Iterator[Lesson]:
        manager = self._pair.manager
        width = self._pair.encoder.sizes.memory_width
        for operation in dialogue.operations:
            fact = dialogue.facts[operation.fact]
            bank = banks_before(dialogue, turn_of(dialogue, fact))[
                dialogue.speakers.index(fact.speaker)
            ]
            event, place, old = operation.event, -1, None
            if event.names_memory:
                old = dialogue.facts[operation.replaces]
            if rng.random() < _FEWER and event != Event.NONE:
                keep = rng.random()
                bank = [held for held in bank if held == old or rng.random() < keep]
            shown = near.best(fact.text, bank, min(manager.neighbours, manager.shown))
            if old is not None:
                if old in shown:
                    place = shown.index(old)
                else:
                    event = Event.ADD if event.writes else Event.NONE
            text = (operation.text or fact.text) if event.writes else ""
            slots = {
                "memories": [self._memory(rng, memory.text) for memory in shown],
                "facts": [self._inline(fact.text)[:width]],
            }
            response = compact_response([Written(event, place, text)])
            room = manager.prompt_length, manager.response_length
            yield from self._lesson(manager.template, slots, response, room)

    def _answers(
        self, rng: random.Random, dialogue: Conversation, near: "_Near"
    ) -> Iterator[Lesson]:
        agent = self._pair.answerer
        whole = banks_before(dialogue, len(dialogue.turns))
        for question in dialogue.questions:
            evidence = {dialogue.positions[turn] for turn in question.evidence}

            def holds(fact: Fact, evidence=evidence) -> bool:
                return turn_of(dialogue, fact) in evidence

            banks, names, text = list(whole), list(dialogue.speakers), question.question
            owner = next((i for i in (0, 1) if any(map(holds, banks[i]))), 0)
            if rng.random() < _ALONE:
                banks, names = [banks[owner], ()], [names[owner], ""]
                if rng.random() < 0.5:
                    text = asked_of(rng, text, names[0])
            if rng.random() < _FEWER:
                keep = rng.random()
                banks = [
                    [fact for fact in bank if holds(fact) or rng.random() < keep] for bank in banks
                ]
            shown = [near.best(question.question, bank, agent.memories) for bank in banks]
            ranked = sorted(
                (
                    (near.score(question.question, fact), i, fact)
                    for i in (0, 1)
                    for fact in shown[i]
                ),
                key=lambda item: -item[0],
            )
            chosen = [(i, "", fact.text) for _, i, fact in ranked if holds(fact)][:MOST_MEMORIES]
            if not chosen:
                continue
            slots: dict = {"question": self._inline(text)}
            for place in (0, 1):
                slots[f"speaker_{place + 1}"] = self._inline(names[place])
                slots[f"memories_{place + 1}"] = [
                    self._memory(rng, fact.text) for fact in shown[place]
                ]
            response = distilled_answer(agent.template.head.selection, chosen, question.answer)
            room = agent.prompt_length, agent.response_length
            yield from self._lesson(agent.template, slots, response, room)

    def _neighbours(self, dialogues: Sequence[Conversation]) -> "_Near":
        encoder = self._pair.encoder
        return _Near(
            lambda texts: embed_rows(
                encoder.embedder, *encoder.rows(texts, encoder.sizes.question_width)
            ),
            [fact.text for dialogue in dialogues for fact in dialogue.facts]
            + [asked.question for dialogue in dialogues for asked in dialogue.questions],
        )


class _Near:
    """Finds the memories nearest to a text; texts that were not announced are embedded alone."""

    def __init__(self, embed: Callable[[Sequence[str]], np.ndarray], texts: Sequence[str]):
        texts = list(dict.fromkeys(texts))
        self._embed = embed
        self._key = dict(zip(texts, embed(texts), strict=True)) if texts else {}

    def score(self, text: str, fact: Fact) -> float:
        return float(self._vector(text) @ self._vector(fact.text))

    def best(self, text: str, bank: Sequence[Fact], count: int) -> list[Fact]:
        """Returns at most `count` facts of a bank, the nearest first."""
        scores = [self.score(text, fact) for fact in bank]
        order = sorted(range(len(bank)), key=lambda place: -scores[place])
        return [bank[place] for place in order[:count]]

    def _vector(self, text: str) -> np.ndarray:
        if text not in self._key:
            self._key[text] = self._embed([text])[0]
        return self._key[text]


def filled(template: Template, slots: dict[str, list[int] | list[list[int]]]) -> list[int]:
    """Returns the prompt's tokens with the instruction: `templates.fill` on the host."""
    entries, empty = dict(template.entries), dict(template.empty)
    tokens = list(template.instruction)
    for part in template.parts:
        if not isinstance(part, str):
            tokens += part
        elif part not in entries:
            tokens += slots[part]
        else:
            for place, text in enumerate(slots[part]):
                fields = {"text": text, "id": template.numbers[place]}
                for piece in entries[part]:
                    tokens += fields[piece] if isinstance(piece, str) else piece
            if not slots[part]:
                tokens += empty.get(part, ())
    return tokens
