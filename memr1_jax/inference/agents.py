"""Reads what is said into memory banks with both agents, and answers questions from them.

Requests of several conversations are worked through together, by the compiled programs of training
and evaluation: the same prompts, retrieval and grammar.

Axis letters: B streams or questions in a batch, M slots of a bank, F facts of a turn.
"""

import dataclasses
import functools
import hashlib
import re
from collections.abc import Callable, Iterable, Sequence

import jax
import numpy as np

from memr1_jax.agents.agent_config import AgentConfig
from memr1_jax.agents.agent_pair import AgentPair, Models
from memr1_jax.agents.demonstrations import memories_shown
from memr1_jax.agents.extractor import make_extract, read_facts, turn_rows
from memr1_jax.agents.ingest import make_ingest_turn
from memr1_jax.agents.told_facts import Extraction
from memr1_jax.arrays import on_host
from memr1_jax.data.batches import AnswerBatch, AnswerData, Scene
from memr1_jax.data.encode import embed_rows, encode_queries, facts_row
from memr1_jax.data.types import Question
from memr1_jax.errors import UserError
from memr1_jax.evals.answering import make_answer_questions
from memr1_jax.inference.batching import SIZES, bucket, grown, padded, parts, rows_of
from memr1_jax.inference.decisions import Answered, Decision, Remembered, changes_between
from memr1_jax.inference.memories import Memories
from memr1_jax.inference.turns import Said, Turn, read_turn, with_room
from memr1_jax.memory.bank import MemoryBank, empty_bank
from memr1_jax.memory.embedder import embedding_width
from memr1_jax.models.hf.folders import folder_digest
from memr1_jax.text.answer_span import extract_answer
from memr1_jax.text.plain import one_line

_SENTENCE = re.compile(r"(?<=[.!?。！？])\s+")
_MOST_EMBEDDED = 256  # rows of one compiled batch
_NAME_WIDTH, _TIME_WIDTH, _FEWEST_TIMES = 16, 32, 16  # tokens of a name and of a time; time stamps


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
    what a model has "extracted".
    """

    def __init__(
        self,
        options: AgentConfig,
        models: Models,
        pair: AgentPair,
        facts: str = "turns",
        extraction: Extraction | None = None,
    ):
        """Compiles nothing yet."""
        self.options, self.facts = options, facts
        self.tokenizer = models.manager.tokenizer
        self.models, self.pair, self._extraction = models, pair, extraction
        self._ingest_turn = make_ingest_turn(pair.manager, models.manager.decoder)
        self._answer = make_answer_questions(pair.answerer, models.answerer.decoder)
        if extraction is not None:
            self._extract = make_extract(extraction.extractor, extraction.model.decoder)

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
        said = [[read_turn(turn) for turn in turns] for turns, _ in requests]
        for _, memories in requests:
            if memories is not None:
                self._check(memories)
        starts = [
            with_room(self.empty() if memories is None else memories, turns)
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
        for streams in parts([stream for pair in pairs for stream in pair if stream.told]):
            self._manage(streams)
        return [
            _remembered(start, pair, len(turns))
            for start, pair, turns in zip(starts, pairs, said, strict=True)
        ]

    def answer_all(self, requests: Sequence[tuple[str, Memories]]) -> list[Answered]:
        """Answers questions, each from the memories that it comes with.

        Raises:
          UserError: a question is no text, or the memories are of agents with other sizes.
        """
        for question, memories in requests:
            if not (isinstance(question, str) and question.strip()):
                raise UserError(f"A question is a text, not {question!r}.")
            self._check(memories)
        return [answer for part in parts(requests) for answer in self._answers(part)]

    def warm_up(self, stopped: Callable[[], bool] = lambda: False) -> None:
        """Compiles what first requests need, for one and for many, so that none waits for it.

        Args:
          stopped: asked between programs; the rest is left out once it is true.
        """
        turn, fact = ("user", "Hello.", ""), ("user: Hello.",)
        memories = with_room(self.empty(), [turn])
        for size in SIZES:
            stream = _Stream("user", memories.banks[0], 0, [(0, 0, fact)])
            for compiled in (
                functools.partial(self._noted, [turn] * size),
                functools.partial(self._manage, [stream] * size),
                functools.partial(self._answers, [("Hello?", memories)] * size),
            ):
                if stopped():
                    return
                compiled()

    def empty(self) -> Memories:
        """Returns memories that hold nothing yet."""
        encoder = self.pair.encoder
        bank = empty_bank(
            encoder.sizes.bank_capacity,
            encoder.sizes.memory_width,
            embedding_width(encoder.embedder),
        )
        bank = jax.tree.map(np.asarray, bank)
        return Memories(("", ""), (bank, bank), (), 0, self.tokenizer)

    def _check(self, memories: Memories) -> None:
        """Refuses memories that these agents cannot read."""
        encoder = self.pair.encoder
        widths = encoder.sizes.memory_width, embedding_width(encoder.embedder)
        same = memories.tokenizer is self.tokenizer or (
            memories.tokenizer.get_vocab() == self.tokenizer.get_vocab()
        )
        found = {(bank.tokens.shape[-1], bank.key.shape[-1]) for bank in memories.banks}
        if not same or found != {widths}:
            raise UserError(
                "These memories were made by other agents, of another tokenizer or other sizes."
                " Load those agents, or tell these the turns again."
            )

    def tokens(self, text: str) -> list[int]:
        """Returns the tokens of a text as a memory holds it, cut at the width of one."""
        encoder = self.pair.encoder
        return encoder.cut(text, encoder.sizes.memory_width)

    def vectors(self, rows: Sequence[Sequence[int]]) -> np.ndarray:
        """Embeds memories given as tokens: float32 `[n, E]`, compared by inner product."""
        encoder = self.pair.encoder
        tokens = np.zeros((len(rows), encoder.sizes.memory_width), np.int32)
        for place, row in enumerate(rows):
            tokens[place, : len(row)] = row
        lengths = np.array([len(row) for row in rows], np.int32)
        batch = min(bucket(len(rows)), _MOST_EMBEDDED)
        return embed_rows(encoder.embedder, tokens, lengths, batch)

    def query(self, text: str) -> np.ndarray:
        """Embeds a question: float32 `[E]`."""
        encoder = self.pair.encoder
        rows = encoder.rows([text], encoder.sizes.question_width)
        return embed_rows(encoder.embedder, *rows, 1)[0]

    @functools.cached_property
    def digests(self) -> dict[str, str]:
        """Words for models, prompts, tokenizer and embedder, other ones for other versions."""
        leaves = jax.tree.leaves(self.pair.encoder.embedder)
        embedder = b"".join(np.asarray(leaf).tobytes() for leaf in leaves)
        tokenizer = self.tokenizer.backend_tokenizer.to_str().encode()
        return {
            "manager": folder_digest(self.models.manager.folder),
            "answerer": folder_digest(self.models.answerer.folder),
            "manager_prompt": self.pair.manager.template.digest,
            "answer_prompt": self.pair.answerer.template.digest,
            "tokenizer": hashlib.sha256(tokenizer).hexdigest()[:32],
            "embedder": hashlib.sha256(embedder).hexdigest()[:32],
        }

    def _noted(self, said: Sequence[Turn]) -> list[tuple[list[str] | None, str]]:
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
        assert self._extraction is not None  # as `load` promises for extracted facts
        model, encoder = self._extraction.model, self._extraction.encoder
        width = self._extraction.extractor.turn_width
        found = []
        for part in parts(said):
            rows = turn_rows(encoder, [(who, time, text) for who, text, time in part], width)
            rows = padded([jax.tree.map(lambda x, i=i: x[i], rows) for i in range(len(part))])
            active = np.arange(len(rows.turn[1])) < len(part)
            samples = jax.device_get(self._extract(model.params, rows, active))
            for tokens, length in list(zip(samples.tokens, samples.length, strict=True))[
                : len(part)
            ]:
                output = model.tokenizer.decode(tokens[:length], skip_special_tokens=True)
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
        banks = jax.device_put(padded([stream.bank for stream in streams]))
        before = jax.device_get(banks)
        nothing = facts_row(self.pair.encoder, (), 0, 0)
        for index in range(max(len(stream.told) for stream in streams)):
            active = np.array([index < len(stream.told) for stream in streams])
            rows = [
                facts_row(
                    self.pair.encoder,
                    stream.told[index][2],
                    stream.told[index][1],
                    stream.first_turn + stream.told[index][0],
                )
                if index < len(stream.told)
                else nothing
                for stream in streams
            ]
            active = np.pad(active, (0, rows_of(len(streams)) - len(streams)))
            banks, turn = self._ingest_turn(
                self.models.manager.params, self.pair.tools, banks, padded(rows), active
            )
            after, turn = jax.device_get((banks, turn))
            for row in map(int, np.flatnonzero(active)):
                self._decided(streams[row], index, row, before, after, turn)
            before = after
        for row, stream in enumerate(streams):
            stream.bank = jax.tree.map(lambda x, row=row: x[row].copy(), before)

    def _decided(self, stream, index, row, before, after, turn) -> None:
        place, _, facts = stream.told[index]
        prompt, samples = turn.prompt, turn.samples
        instruction = self.pair.manager.template.instruction
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
                changes=changes_between(
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
                    encode_queries(self.pair.encoder, [Question(one_line(text), "", 0, (), 0)]),
                ),
            )
            for text, memories in requests
        ]
        banks, scene, query = padded(rows)
        index = np.arange(rows_of(len(rows)), dtype=np.int32)
        data = jax.device_put(on_host(AnswerData, banks, scene, query, index))
        rollout = self._answer(
            self.models.answerer.params, self.pair.tools, data, index, index < len(rows)
        )
        batch = on_host(AnswerBatch, banks, scene, query, index < len(rows))  # every row, in order
        shown = memories_shown(self.pair.answerer, self.pair.tools, batch)
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
            prompt=self.tokenizer.decode([*self.pair.answerer.template.instruction, *prompt]),
        )

    def _scene(self, memories: Memories, count: int) -> Scene:
        """Names and times as token rows of fixed widths."""
        encoder = self.pair.encoder
        times = [*memories.times, *[""] * (count - len(memories.times))]
        return on_host(
            Scene, *encoder.rows(memories.speakers, _NAME_WIDTH), *encoder.rows(times, _TIME_WIDTH)
        )


def _remembered(start: Memories, pair: Sequence[_Stream], turns: int) -> Remembered:
    capacity = max(len(stream.bank.alive) for stream in pair)
    first, second = (grown(stream.bank, capacity) for stream in pair)
    decisions = sorted(
        (decision for stream in pair for decision in stream.decisions), key=lambda d: d.turn
    )
    memories = dataclasses.replace(start, banks=(first, second), turns=start.turns + turns)
    return Remembered(memories, tuple(decisions))
