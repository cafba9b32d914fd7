"""The two agents at work: reads what is said into memory banks, and answers questions from them.

Requests of several conversations are worked through together, by the compiled programs of training
and evaluation: the same prompts, retrieval and grammar.

Axis letters: B streams or questions in a batch, M slots of a bank, F facts of a turn.
"""

import dataclasses
import functools
import hashlib
import re
from collections.abc import Iterable, Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from memr1_jax.agents.demonstrations import memories_shown
from memr1_jax.agents.extractor import FactExtractor, TurnText, make_extract, read_facts
from memr1_jax.agents.ingest import make_ingest_turn
from memr1_jax.data.batches import AnswerData, Scene
from memr1_jax.data.encode import embed_rows, encode_queries, facts_row
from memr1_jax.data.types import Question
from memr1_jax.errors import UserError
from memr1_jax.evals.answering import make_answer_questions
from memr1_jax.inference.batching import bucket, grown, padded, parts
from memr1_jax.inference.memories import Memories, Memory, decode
from memr1_jax.memory.bank import MemoryBank, empty_bank
from memr1_jax.memory.embedder import embedding_width
from memr1_jax.models.hf.folders import folder_digest
from memr1_jax.text.answer_span import extract_answer
from memr1_jax.text.events import Event
from memr1_jax.text.plain import one_line
from memr1_jax.training.config import AgentConfig
from memr1_jax.training.loading import Models
from memr1_jax.training.workbench import Workbench

Said: TypeAlias = tuple[str, str] | tuple[str, str, str]  # speaker, text and, where known, time

_SENTENCE = re.compile(r"(?<=[.!?。！？])\s+")
_MOST_EMBEDDED = 256  # rows of one compiled batch
_NAME_WIDTH, _TIME_WIDTH, _FEWEST_TIMES = 16, 32, 16  # tokens of a name and of a time; time stamps


@dataclasses.dataclass(frozen=True)
class Change:
    """What became of one memory: ADD, UPDATE or DELETE, with its text before and after."""

    event: Event
    slot: int
    before: str
    after: str


@dataclasses.dataclass(frozen=True)
class Decision:
    """What the manager was told at one turn, what it was asked and wrote, and what changed.

    `turn` is the place of the turn in the request, `speaker` whose bank it is. `readable` is False
    where nothing could be read of the output: the manager's, or the extractor's, of which there
    are then no facts.
    """

    turn: int
    speaker: str
    facts: tuple[str, ...]
    prompt: str
    output: str
    readable: bool
    changes: tuple[Change, ...]


@dataclasses.dataclass(frozen=True)
class Remembered:
    """The banks after a request, and every decision on the way, in the order of the turns."""

    memories: Memories
    decisions: tuple[Decision, ...]


@dataclasses.dataclass(frozen=True)
class Answered:
    """An answer, the memories that were shown for it, best first, and those that it picked."""

    answer: str
    picked: tuple[Memory, ...]
    shown: tuple[Memory, ...]
    response: str
    prompt: str


@dataclasses.dataclass
class _Stream:
    """One speaker's bank and what it is told: `(turn, time, facts)`, in order."""

    speaker: str
    bank: MemoryBank
    first_turn: int
    told: list[tuple[int, int, tuple[str, ...]]] = dataclasses.field(default_factory=list)
    decisions: list[Decision] = dataclasses.field(default_factory=list)


class Agents:
    """A Memory Manager and an Answer Agent, ready to remember and to answer.

    `facts` is what the manager is told of a turn: "turns" as they stand, "sentences" of them, or
    what the model itself has "extracted".
    """

    def __init__(
        self,
        options: AgentConfig,
        models: Models,
        bench: Workbench,
        facts: str = "turns",
        extractor: FactExtractor | None = None,
    ):
        """Compiles nothing yet."""
        self.options, self.facts = options, facts
        self.tokenizer = models.manager.tokenizer
        self._models, self._bench, self._extractor = models, bench, extractor
        self._ingest_turn = make_ingest_turn(bench.manager, models.manager.decoder)
        self._answer = make_answer_questions(bench.answerer, models.answerer.decoder)
        if extractor is not None:
            self._extract = make_extract(extractor, models.manager.decoder)

    def remember(self, turns: Iterable[Said], memories: Memories | None = None) -> Memories:
        """Reads turns into memory and returns the banks afterwards.

        Args:
          turns: `(speaker, text)` or `(speaker, text, time)`, of at most two speakers.
          memories: what was remembered before; it is left as it is.

        Raises:
          UserError: there are more than two speakers, or a turn is not of this form.
        """
        return self.remember_all([(turns, memories)])[0].memories

    def answer(self, question: str, memories: Memories) -> str:
        """Answers a question from what was remembered."""
        return self.answer_all([(question, memories)])[0].answer

    def remember_all(
        self, requests: Sequence[tuple[Iterable[Said], Memories | None]]
    ) -> list[Remembered]:
        """Works through the turns of several conversations together; see `remember`."""
        said = [[_said(turn) for turn in turns] for turns, _ in requests]
        starts = [
            _prepared(self.empty() if memories is None else memories, turns)
            for (_, memories), turns in zip(requests, said, strict=True)
        ]
        noted = iter(self._noted([turn for turns in said for turn in turns]))
        pairs = []
        for start, turns in zip(starts, said, strict=True):
            pair = [
                _Stream(speaker, bank, start.turns)
                for speaker, bank in zip(start.speakers, start.banks, strict=True)
            ]
            for place, (speaker, _, time) in enumerate(turns):
                stream = pair[start.speakers.index(speaker)]
                facts, output = next(noted)
                if facts is None:
                    stream.decisions.append(Decision(place, speaker, (), "", output, False, ()))
                    continue
                for index in range(0, len(facts), self.options.facts_per_turn):
                    part = tuple(facts[index : index + self.options.facts_per_turn])
                    stream.told.append((place, start.times.index(time), part))
            pairs.append(pair)
        for part in parts([stream for pair in pairs for stream in pair if stream.told]):
            self._manage(part)
        return [
            _remembered(start, pair, len(turns))
            for start, pair, turns in zip(starts, pairs, said, strict=True)
        ]

    def answer_all(self, requests: Sequence[tuple[str, Memories]]) -> list[Answered]:
        """Answers questions, each from the memories that it comes with."""
        return [answer for part in parts(requests) for answer in self._answers(part)]

    def empty(self) -> Memories:
        """Returns memories that hold nothing yet."""
        encoder = self._bench.encoder
        bank = empty_bank(
            encoder.sizes.bank_capacity,
            encoder.sizes.memory_width,
            embedding_width(encoder.embedder),
        )
        bank = jax.tree.map(np.asarray, bank)
        return Memories(("", ""), (bank, bank), (), 0, self.tokenizer)

    def tokens(self, text: str) -> list[int]:
        """Returns the tokens of a text as a memory holds it, cut at the width of one."""
        encoder = self._bench.encoder
        return encoder.cut(text, encoder.sizes.memory_width)

    def vectors(self, rows: Sequence[Sequence[int]]) -> np.ndarray:
        """Embeds memories given as tokens: float32 `[n, E]`, compared by inner product."""
        encoder = self._bench.encoder
        tokens = np.zeros((len(rows), encoder.sizes.memory_width), np.int32)
        for place, row in enumerate(rows):
            tokens[place, : len(row)] = row
        lengths = np.array([len(row) for row in rows], np.int32)
        batch = min(bucket(len(rows)), _MOST_EMBEDDED)
        return embed_rows(encoder.embedder, tokens, lengths, batch)

    def query(self, text: str) -> np.ndarray:
        """Embeds a question: float32 `[E]`."""
        encoder = self._bench.encoder
        rows = encoder.rows([text], encoder.sizes.question_width)
        return embed_rows(encoder.embedder, *rows, 1)[0]

    @functools.cached_property
    def digests(self) -> dict[str, str]:
        """Words for models, prompts, tokenizer and embedder, other ones for other versions."""
        leaves = jax.tree.leaves(self._bench.encoder.embedder)
        embedder = b"".join(np.asarray(leaf).tobytes() for leaf in leaves)
        tokenizer = self.tokenizer.backend_tokenizer.to_str().encode()
        return {
            "manager": folder_digest(self._models.manager.folder),
            "answerer": folder_digest(self._models.answerer.folder),
            "manager_prompt": self._bench.manager.template.digest,
            "answer_prompt": self._bench.answerer.template.digest,
            "tokenizer": hashlib.sha256(tokenizer).hexdigest()[:32],
            "embedder": hashlib.sha256(embedder).hexdigest()[:32],
        }

    def _noted(self, said: Sequence[Said]) -> list[tuple[list[str] | None, str]]:
        """Returns the facts of each turn, None where none could be read, and what was written."""
        if self.facts == "sentences":
            return [
                ([f"{speaker}: {part}" for part in _SENTENCE.split(one_line(text)) if part], "")
                for speaker, text, _ in said
            ]
        if self.facts != "extracted":
            return [
                ([f"{speaker}: {one_line(text)}"] if one_line(text) else [], "")
                for speaker, text, _ in said
            ]
        found = []
        for part in parts(said):
            encoder, width = self._bench.encoder, self._extractor.turn_width
            columns = zip(
                *((speaker, time, one_line(text)) for speaker, text, time in part), strict=True
            )
            rows = TurnText(*(encoder.rows(column, width) for column in columns))
            rows = padded([jax.tree.map(lambda x, i=i: x[i], rows) for i in range(len(part))])
            active = np.arange(len(rows.turn[1])) < len(part)
            samples = jax.device_get(self._extract(self._models.manager.params, rows, active))
            for tokens, length in list(zip(samples.tokens, samples.length, strict=True))[
                : len(part)
            ]:
                output = self.tokenizer.decode(tokens[:length], skip_special_tokens=True)
                found.append((read_facts(output), output))
        return found

    def _manage(self, streams: Sequence[_Stream]) -> None:
        """Tells each stream its facts turn by turn, all together, and notes the decisions."""
        needed = max(
            int(s.bank.alive.sum()) + sum(len(facts) for *_, facts in s.told) for s in streams
        )
        capacity = bucket(needed, max(len(s.bank.alive) for s in streams))
        for stream in streams:
            stream.bank = grown(stream.bank, capacity)
        banks = jax.tree.map(jnp.asarray, padded([stream.bank for stream in streams]))
        before = jax.device_get(banks)
        nothing = facts_row(self._bench.encoder, (), 0, 0)
        for index in range(max(len(stream.told) for stream in streams)):
            active = np.array([index < len(stream.told) for stream in streams])
            rows = [
                facts_row(
                    self._bench.encoder,
                    stream.told[index][2],
                    stream.told[index][1],
                    stream.first_turn + stream.told[index][0],
                )
                if index < len(stream.told)
                else nothing
                for stream in streams
            ]
            active = np.pad(active, (0, bucket(len(streams)) - len(streams)))
            banks, turn = self._ingest_turn(
                self._models.manager.params, self._bench.tools, banks, padded(rows), active
            )
            after, turn = jax.device_get((banks, turn))
            for row in np.flatnonzero(active):
                self._decided(streams[row], index, row, before, after, turn)
            before = after
        for row, stream in enumerate(streams):
            stream.bank = jax.tree.map(lambda x, row=row: x[row].copy(), before)

    def _decided(self, stream, index, row, before, after, turn) -> None:
        place, _, facts = stream.told[index]
        prompt, samples = turn.prompt, turn.samples
        instruction = self._bench.manager.template.instruction
        asked = [*instruction, *prompt.tokens[row, : prompt.length[row]].tolist()]
        stream.decisions.append(
            Decision(
                turn=place,
                speaker=stream.speaker,
                facts=facts,
                prompt=self.tokenizer.decode(asked),
                output=self.tokenizer.decode(
                    samples.tokens[row, : samples.length[row]], skip_special_tokens=True
                ),
                readable=not turn.report.invalid[row],
                changes=_changes(
                    self.tokenizer, *(jax.tree.map(lambda x: x[row], b) for b in (before, after))
                ),
            )
        )

    def _answers(self, requests: Sequence[tuple[str, Memories]]) -> list[Answered]:
        capacity = bucket(max(len(b.alive) for _, m in requests for b in m.banks))
        times = bucket(max(len(m.times) for _, m in requests), _FEWEST_TIMES)
        rows = [
            (
                tuple(grown(bank, capacity) for bank in memories.banks),
                self._scene(memories, times),
                jax.tree.map(
                    lambda x: x[0],
                    encode_queries(self._bench.encoder, [Question(one_line(text), "", 0, (), 0)]),
                ),
            )
            for text, memories in requests
        ]
        banks, scene, query = padded(rows)
        index = np.arange(bucket(len(rows)), dtype=np.int32)
        data = jax.tree.map(jnp.asarray, AnswerData(banks, scene, query, index))
        rollout = self._answer(
            self._models.answerer.params, self._bench.tools, data, index, index < len(rows)
        )
        shown = memories_shown(self._bench.answerer, self._bench.tools, data, index)
        prompt, samples, shown = jax.device_get((rollout.prompt, rollout.samples, shown))
        return [
            self._answered(
                memories,
                prompt.tokens[row, : prompt.length[row]].tolist(),
                samples.tokens[row, 0, : samples.length[row, 0]],
                [part[row] for part in shown],
            )
            for row, (_, memories) in enumerate(requests)
        ]

    def _answered(self, memories: Memories, prompt, tokens, shown) -> Answered:
        response = self.tokenizer.decode(tokens, skip_special_tokens=True)
        answer, _ = extract_answer(response)
        slots, owners, count = shown
        best = tuple(
            memories.at(int(owner), int(slot))
            for owner, slot in zip(owners[:count], slots[:count], strict=True)
        )
        return Answered(
            answer=answer,
            picked=tuple(memory for memory in best if memory.text in response),
            shown=best,
            response=response,
            prompt=self.tokenizer.decode([*self._bench.answerer.template.instruction, *prompt]),
        )

    def _scene(self, memories: Memories, count: int) -> Scene:
        """Names and times as token rows of fixed widths."""
        encoder = self._bench.encoder
        times = [*memories.times, *[""] * (count - len(memories.times))]
        return Scene(
            *encoder.rows(memories.speakers, _NAME_WIDTH), *encoder.rows(times, _TIME_WIDTH)
        )


def _said(turn: Said) -> tuple[str, str, str]:
    """Checks a turn; its time is empty where it has none."""
    if (
        isinstance(turn, str)
        or len(turn) not in (2, 3)
        or not all(isinstance(x, str) for x in turn)
    ):
        raise UserError(
            f"A turn is (speaker, text) or (speaker, text, time), all of them text, not {turn!r}."
        )
    speaker, text, time = (*turn, "")[:3]
    if not speaker.strip():
        raise UserError(f"The turn {turn!r} does not say who speaks.")
    return one_line(speaker), text, one_line(time)


def _prepared(memories: Memories, said: Sequence[Said]) -> Memories:
    """Makes room for the names and times of some turns."""
    names = [name for name in memories.speakers if name]
    names = list(dict.fromkeys([*names, *(speaker for speaker, _, _ in said)]))
    if len(names) > 2:
        raise UserError(
            f"These turns have {len(names)} speakers ({', '.join(names)}), and a conversation has"
            " two. Keep memories of your own for each pair."
        )
    times = tuple(dict.fromkeys([*memories.times, *(time for _, _, time in said)]))
    first, second = (*names, "", "")[:2]
    return dataclasses.replace(memories, speakers=(first, second), times=times)


def _remembered(start: Memories, pair: Sequence[_Stream], turns: int) -> Remembered:
    capacity = max(len(stream.bank.alive) for stream in pair)
    first, second = (grown(stream.bank, capacity) for stream in pair)
    decisions = sorted(
        (decision for stream in pair for decision in stream.decisions), key=lambda d: d.turn
    )
    memories = dataclasses.replace(start, banks=(first, second), turns=start.turns + turns)
    return Remembered(memories, tuple(decisions))


def _changes(tokenizer, before: MemoryBank, after: MemoryBank) -> tuple[Change, ...]:
    """Compares two banks `[M, ...]` slot by slot."""
    text = functools.partial(decode, tokenizer)
    changes = []
    for slot in range(len(after.alive)):
        was, now = bool(before.alive[slot]), bool(after.alive[slot])
        same = was and now and text(before, slot) == text(after, slot)
        if same or not (was or now):
            continue
        event = Event.UPDATE if was and now else Event.ADD if now else Event.DELETE
        old, new = text(before, slot) if was else "", text(after, slot) if now else ""
        changes.append(Change(event, slot, old, new))
    return tuple(changes)
