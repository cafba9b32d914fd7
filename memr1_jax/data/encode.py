"""Encodes dialogues and tuples as arrays.

Axis letters: C conversations, F facts of a turn, W tokens of a text, M slots of a bank, E retrieval
width, n questions of a turn, U turns of evidence, S dates, A words of a gold answer.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from memr1_jax.data.batches import AnswerData, Facts, ManagerData, Query, Scene
from memr1_jax.data.tuples import (
    Banks,
    ManagerTuple,
    banks_before,
    evidence_places,
    outdated_places,
    turn_of,
)
from memr1_jax.data.types import Conversation, Fact, Question
from memr1_jax.errors import UserError
from memr1_jax.memory.bank import MemoryBank, bank_from_facts
from memr1_jax.memory.embedder import Embedder, embed
from memr1_jax.text.byte_table import cut_to_width
from memr1_jax.text.normalize import words_of_text
from memr1_jax.text.plain import one_line, plain_encoder


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Fixed sizes of the arrays; what does not fit is cut and counted, never silently wrong."""

    memory_width: int = 48  # W of memories and facts, tokens
    bank_capacity: int = 128  # M
    facts: int = 4  # F
    questions: int = 4  # n
    question_width: int = 48  # W of questions, tokens
    gold_words: int = 48  # A
    gold_width: int = 48  # W of gold answers, tokens
    retained: int = 0  # questions of a turn besides n, see `data/pressure.py`
    evidence: int = 0  # U, turns of evidence of a question; 0: they are not kept


@dataclasses.dataclass(frozen=True)
class Encoder:
    """Turns texts into token rows.

    `tokenize` maps a text to token ids, with one space in front: the form that a text has after a
    colon or a dash in running text. The text is folded to one line, and none of the ids is a
    control token. `begins` `[V]` tells which tokens begin a character, so that a cut text ends with
    a whole one; None stands for all.
    """

    tokenize: Callable[[str], list[int]]
    embedder: Embedder
    sizes: Sizes
    begins: np.ndarray | None = None

    def cut(self, text: str, width: int) -> list[int]:
        """Returns the tokens of a text, at most `width` of them."""
        return cut_to_width(self.tokenize(text), width, self.begins)

    def rows(self, texts: Sequence[str], width: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns token rows `[len(texts), width]`, cut at the width, and their lengths."""
        tokens = np.zeros((len(texts), width), np.int32)
        length = np.zeros(len(texts), np.int32)
        for row, text in enumerate(texts):
            ids = self.cut(text, width)
            tokens[row, : len(ids)] = ids
            length[row] = len(ids)
        return tokens, length

    def keys(self, texts: Sequence[str]) -> np.ndarray:
        """Embeds texts of memory width as `[len(texts), E]`."""
        return embed_rows(self.embedder, *self.rows(texts, self.sizes.memory_width))


def create_encoder(
    tokenizer, embedder: Embedder, sizes: Sizes, begins: np.ndarray | None = None
) -> Encoder:
    """Makes an encoder over a `transformers` tokenizer; `begins` as in `Encoder`."""
    encode = plain_encoder(tokenizer)

    def tokenize(text):
        return encode(" " + one_line(text))

    return Encoder(tokenize, embedder, sizes, begins)


def encode_scenes(encoder: Encoder, conversations: Sequence[Conversation]) -> Scene:
    """Encodes names and dates of all conversations `[C, ...]`, padded to the longest."""
    names = [name for conversation in conversations for name in conversation.speakers]
    name_tokens, name_length = encoder.rows(names, _widest(encoder, names))
    times = [c.dates for c in conversations]
    width = _widest(encoder, [time for row in times for time in row])
    dates = max(map(len, times))
    padded = [time for row in times for time in (*row, *[""] * (dates - len(row)))]
    time_tokens, time_length = encoder.rows(padded, width)
    count = len(conversations)
    return Scene(
        names=name_tokens.reshape(count, 2, -1),
        name_length=name_length.reshape(count, 2),
        times=time_tokens.reshape(count, dates, width),
        time_length=time_length.reshape(count, dates),
    )


def encode_queries(
    encoder: Encoder,
    questions: Sequence[Question],
    conversations: Sequence[Conversation] | None = None,
) -> Query:
    """Encodes questions and gold answers `[rows, ...]`, with the evidence if the sizes ask for it.

    `conversations` are those of the questions, one each; None where evidence is not known.
    """
    sizes = encoder.sizes
    tokens, length = encoder.rows([q.question for q in questions], sizes.question_width)
    words = [words_of_text(q.answer, sizes.gold_words) for q in questions]
    gold = encoder.rows([q.answer for q in questions], sizes.gold_width)
    turns: list[np.ndarray] = []
    if sizes.evidence and conversations is not None:
        for places_of in (evidence_places, outdated_places):
            turns.append(np.full((len(questions), sizes.evidence), -1, np.int32))
            for row, pair in enumerate(zip(conversations, questions, strict=True)):
                places = places_of(*pair)[: sizes.evidence]
                turns[-1][row, : len(places)] = places
    return Query(tokens, length, stack(words), *gold, *turns)


def encode_bank(
    encoder: Encoder, conversation: Conversation, facts: Sequence[Fact], keys: dict[str, np.ndarray]
) -> MemoryBank:
    """Encodes a bank that holds `facts`; `keys` maps their texts to embeddings."""
    sizes = encoder.sizes
    turns = [turn_of(conversation, fact) for fact in facts]
    width = next(iter(keys.values())).shape[-1]
    return bank_from_facts(
        [encoder.tokenize(fact.text) for fact in facts],
        np.array([keys[fact.text] for fact in facts]).reshape(-1, width),
        [conversation.date_of_turn[turn] for turn in turns],
        turns,
        capacity=sizes.bank_capacity,
        width=sizes.memory_width,
        begins=encoder.begins,
    )


def encode_final_banks(
    encoder: Encoder, conversations: Sequence[Conversation]
) -> tuple[MemoryBank, MemoryBank]:
    """Encodes both speakers' banks `[C, ...]` as they should be at the end; see `facts_before`."""
    held = [banks_before(c, len(c.turns)) for c in conversations]
    keys = bank_keys(encoder, held)
    first, second = zip(
        *(
            [encode_bank(encoder, c, bank, keys) for bank in banks]
            for c, banks in zip(conversations, held, strict=True)
        ),
        strict=True,
    )
    return stack(first), stack(second)


def bank_keys(encoder: Encoder, banks: Sequence[Banks]) -> dict[str, np.ndarray]:
    """Embeds all texts in pairs of banks, by text; the empty text if there are none."""
    texts = sorted({fact.text for pair in banks for bank in pair for fact in bank}) or [""]
    return dict(zip(texts, encoder.keys(texts), strict=True))


def encode_manager_data(
    encoder: Encoder, conversations: Sequence[Conversation], tuples: Sequence[ManagerTuple]
) -> ManagerData:
    """Encodes manager tuples of the given conversations as resident arrays.

    Raises:
      UserError: there are no tuples.
    """
    if not tuples:
        raise UserError(
            "There is no turn to train the Memory Manager on: no question of the training"
            " conversations names a turn with a noted fact as evidence. Check --data_path"
            " and --link."
        )
    sizes, width = encoder.sizes, encoder.sizes.questions + encoder.sizes.retained
    place = {c.id: index for index, c in enumerate(conversations)}
    dialogues = [conversations[place[item.conversation]] for item in tuples]
    keys = bank_keys(encoder, [pair for item in tuples for pair in (item.banks, item.later)])
    banks = [
        _banks_of_turn(encoder, dialogue, item, keys)
        for dialogue, item in zip(dialogues, tuples, strict=True)
    ]
    own, other, late = zip(*banks, strict=True)
    queries = [
        (*item.questions[: sizes.questions], *item.retained[: sizes.retained]) for item in tuples
    ]
    padded = [(*row, *row[:1] * (width - len(row))) for row in queries]
    encoded = encode_queries(
        encoder,
        [question for row in padded for question in row],
        [dialogue for dialogue in dialogues for _ in range(width)],
    )
    facts = [
        encode_facts(encoder, dialogue, item.facts, item.turn)
        for dialogue, item in zip(dialogues, tuples, strict=True)
    ]
    return ManagerData(
        own=stack(own),
        other=stack(other),
        speaker=np.array([t.speaker for t in tuples], np.int32),
        facts=stack(facts),
        queries=jax.tree.map(lambda x: x.reshape(len(tuples), width, *x.shape[1:]), encoded),
        asked=np.array([[i < len(row) for i in range(width)] for row in queries]),
        scene=encode_scenes(encoder, conversations),
        conversation=np.array([place[t.conversation] for t in tuples], np.int32),
        late=np.stack(late) if any(map(np.any, late)) else None,
    )


def _banks_of_turn(
    encoder: Encoder, conversation: Conversation, item: ManagerTuple, keys: dict[str, np.ndarray]
) -> tuple[MemoryBank, MemoryBank, np.ndarray]:
    """Encodes the bank that a turn edits, the other one, and which slots of the first come later.

    Memories that come later lie in the last slots, out of the way of those that are added.
    """
    speaker, encode = item.speaker, functools.partial(encode_bank, encoder, conversation)
    own = encode(item.banks[speaker], keys)
    other = encode((*item.banks[1 - speaker], *item.later[1 - speaker]), keys)
    late = np.zeros(encoder.sizes.bank_capacity, bool)
    if item.later[speaker]:
        come = encode(item.later[speaker], keys)
        late = come.alive[::-1] & ~own.alive
        written = {
            name: np.where(_to(late, held), getattr(come, name)[::-1], held)
            for name in ("tokens", "length", "key", "created", "updated", "source")
            for held in [getattr(own, name)]
        }
        own = own.replace(**written)
    return own, other, late


def _to(mask, array):
    return mask.reshape(-1, *[1] * (array.ndim - 1))


def encode_facts(
    encoder: Encoder, conversation: Conversation, facts: Sequence[Fact], turn: int
) -> Facts:
    """Encodes the new facts `[F, W]` of the turn at a position; those beyond F are left out."""
    time = conversation.date_of_turn[turn]
    return facts_row(encoder, [fact.text for fact in facts], time, turn)


def facts_row(encoder: Encoder, facts: Sequence[str], time: int, turn: int) -> Facts:
    """Encodes facts `[F, W]` with their time stamp's index and their place in the dialogue."""
    sizes = encoder.sizes
    texts = [*facts[: sizes.facts], *[""] * (sizes.facts - len(facts))]
    tokens, length = encoder.rows(texts, sizes.memory_width)
    length = np.where([bool(text.strip()) for text in texts], length, 0).astype(np.int32)
    return Facts(tokens, length, np.int32(time), np.int32(turn))


def encode_answer_data(
    encoder: Encoder,
    conversations: Sequence[Conversation],
    banks: tuple[MemoryBank, MemoryBank],
) -> AnswerData:
    """Encodes all questions; `banks` are the two speakers' `[C, ...]`.

    Raises:
      UserError: there are no questions.
    """
    questions = [question for c in conversations for question in c.questions]
    if not questions:
        raise UserError("The conversations hold no questions. Check --data_path.")
    counts = [len(conversation.questions) for conversation in conversations]
    return AnswerData(
        banks=banks,
        scene=encode_scenes(encoder, conversations),
        query=encode_queries(encoder, questions),
        conversation=np.repeat(np.arange(len(conversations), dtype=np.int32), counts),
    )


def fact_streams(conversation: Conversation, most: int) -> tuple[list, list]:
    """Lists what each speaker gives to remember, in order: `[(turn, session, facts), ...]`.

    A turn with more than `most` facts comes as several items. Turns without a noted fact are left
    out, as are facts that say nothing.
    """
    streams = [], []
    for stream, name in zip(streams, conversation.speakers, strict=True):
        told = (fact for fact in conversation.facts if fact.text.strip())
        own = (fact for fact in told if fact.speaker == name)
        for turn, facts in itertools.groupby(own, key=lambda fact: turn_of(conversation, fact)):
            facts = tuple(facts)
            for start in range(0, len(facts), most):
                stream.append((turn, facts[0].session, facts[start : start + most]))
    return streams


def left_out(encoder: Encoder, turns: Sequence[Any], banks: Sequence[Banks]) -> dict[str, int]:
    """Counts what the fixed sizes leave out of a manager's turns, by the option to keep it.

    Turns are `ManagerTuple`s or turns of episodes, `banks` those before them.
    """
    sizes = encoder.sizes

    def longer(texts, width):
        return sum(len(encoder.tokenize(text)) > width for text in texts)

    held = [bank for pair in banks for bank in pair] + [turn.facts for turn in turns]
    facts = {fact.text for bank in held for fact in bank}
    questions = {question.question for turn in turns for question in turn.questions}
    return {
        f"facts cut at --memory_width={sizes.memory_width}": longer(facts, sizes.memory_width),
        f"questions cut at {sizes.question_width} tokens": longer(questions, sizes.question_width),
        f"facts beyond --facts_per_turn={sizes.facts}": sum(
            max(0, len(turn.facts) - sizes.facts) for turn in turns
        ),
        f"questions beyond --questions_per_turn={sizes.questions}": sum(
            max(0, len(turn.questions) - sizes.questions) for turn in turns
        ),
    }


def _widest(encoder, texts):
    return max((len(encoder.tokenize(text)) for text in texts if text), default=1)


def stack(items: Sequence[Any]) -> Any:
    """Stacks pytrees of NumPy arrays along a new leading axis."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *items)


@jax.jit
def _embed_batch(embedder, tokens, length):
    return jax.vmap(embed, (None, 0, 0))(embedder, tokens, length)


def embed_rows(embedder, tokens, length, batch=256):
    """Embeds token rows `[n, W]` in batches of one shape, so that one compilation is enough."""
    parts = []
    for start in range(0, len(tokens), batch):
        rows = slice(start, start + batch)
        padding = batch - len(tokens[rows])
        part = _embed_batch(
            embedder,
            np.pad(tokens[rows], ((0, padding), (0, 0))),
            np.pad(length[rows], (0, padding)),
        )
        parts.append(np.asarray(part)[: batch - padding])
    return np.concatenate(parts)
