"""Episodes: stretches of a dialogue that a Memory Manager works through turn by turn.

Axis letters: T turns of an episode, n questions of a turn, N questions at the end.
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import jax
import numpy as np

from memr1_jax.data.batches import EpisodeData, EpisodeTurns
from memr1_jax.data.encode import (
    Encoder,
    bank_keys,
    encode_bank,
    encode_facts,
    encode_queries,
    encode_scenes,
    fact_streams,
    left_out,
    stack,
)
from memr1_jax.data.tuples import Banks, banks_before, spread
from memr1_jax.data.types import Conversation, Fact, Question
from memr1_jax.errors import UserError

STARTS = ("empty", "facts")


@dataclasses.dataclass(frozen=True)
class EpisodeTurn:
    """The facts of a turn about speaker 0 or 1, and the questions that it bears on.

    `turn` is the position in dialogue order.
    """

    speaker: int
    session: int
    turn: int
    facts: tuple[Fact, ...]
    questions: tuple[Question, ...]


@dataclasses.dataclass(frozen=True)
class Episode:
    """Turns in dialogue order, the banks before them, and what can be answered after them.

    `due` gives for each question the turn of the episode that tells the last fact it needs;
    questions are in that order.
    """

    conversation: str
    banks: Banks
    turns: tuple[EpisodeTurn, ...]
    questions: tuple[Question, ...]
    due: tuple[int, ...]


def episodes(
    conversation: Conversation,
    turns: int,
    facts_per_turn: int,
    start: Literal["empty", "facts"] = "empty",
    link: Literal["last", "any"] = "last",
) -> list[Episode]:
    """Cuts a dialogue into episodes of at most `turns` turns that bring facts; 0: of all turns.

    Both speakers' streams are taken together, and each turn edits its speaker's bank. Generated
    dialogues know what is true at their end, so their last turns are the only episode. A question
    belongs to an episode that brings a fact from each of its evidence turns; where the banks start
    with facts, those may tell a part of it, but not all. Episodes without any question are left
    out, as nothing would reward them.

    Args:
      conversation: the dialogue.
      turns: T; a turn with more facts than the manager handles at once counts several times.
      facts_per_turn: facts that the manager handles at once.
      start: whether banks are empty before an episode, or hold what a memory should hold there.
      link: whether a question belongs to the last turn that bears on it, or to each.
    """
    if start not in STARTS:
        raise ValueError(f"start is one of {STARTS}, not {start!r}")
    stream = [
        (turn, speaker, session, facts)
        for speaker, items in enumerate(fact_streams(conversation, facts_per_turn))
        for turn, session, facts in items
    ]
    stream.sort(key=lambda item: item[:2])
    turns = turns or max(1, len(stream))
    cuts = range(0, len(stream), turns)
    if conversation.operations:
        cuts = [max(0, len(stream) - turns)]
    made = [_episode(conversation, stream[cut : cut + turns], start, link) for cut in cuts]
    return [episode for episode in made if episode.questions]


def _episode(conversation, stream, start, link):
    """Makes one episode from items `(turn, speaker, session, facts)`."""
    told: dict[str, int] = {}  # evidence turn: the last turn of the episode with a fact from it
    for index, (_, _, _, facts) in enumerate(stream):
        told |= {source: index for fact in facts for source in fact.sources}
    banks, known = ((), ()), set()
    if start == "facts" and stream:
        banks = banks_before(conversation, stream[0][0])
        known = {source for bank in banks for fact in bank for source in fact.sources}
    due, linked = {}, {}
    for place, question in enumerate(conversation.questions):
        places = [told[turn] for turn in question.evidence if turn in told]
        if places and all(turn in told or turn in known for turn in question.evidence):
            due[place] = max(places)
            for index in {max(places)} if link == "last" else set(places):
                linked.setdefault(index, []).append(question)
    order = sorted(due, key=due.get)
    return Episode(
        conversation=conversation.id,
        banks=banks,
        turns=tuple(
            EpisodeTurn(speaker, session, turn, facts, tuple(linked.get(index, ())))
            for index, (turn, speaker, session, facts) in enumerate(stream)
        ),
        questions=tuple(conversation.questions[place] for place in order),
        due=tuple(due[place] for place in order),
    )


def encode_episodes(
    encoder: Encoder,
    conversations: Sequence[Conversation],
    made: Sequence[Episode],
    turns: int,
    questions: int,
) -> EpisodeData:
    """Encodes episodes of the given conversations as resident arrays.

    Args:
      encoder: turns texts into tokens; its sizes fix those of banks and turns.
      conversations: the dialogues.
      made: their episodes.
      turns: T; 0: those of the longest episode.
      questions: N, evenly spread over the episode where there are more; 0: as many as there are.

    Raises:
      UserError: there are no episodes.
    """
    if not made:
        raise UserError(
            "There is no episode to train the Memory Manager on: no question of the training"
            " conversations can be answered from the facts of one episode. Raise --episode_turns,"
            " or check --data_path."
        )
    turns = turns or max(len(episode.turns) for episode in made)
    end = [[episode.questions[i] for i in chosen] for episode, chosen in _ends(made, questions)]
    due = [[episode.due[i] for i in chosen] for episode, chosen in _ends(made, questions)]
    questions = questions or max(map(len, end))
    place = {c.id: index for index, c in enumerate(conversations)}
    dialogues = [conversations[place[episode.conversation]] for episode in made]
    padded = [_padded(episode.turns, turns) for episode in made]
    flat = [turn for row in padded for turn in row]
    facts = [
        encode_facts(encoder, dialogue, turn.facts, turn.turn)
        for dialogue, row in zip(dialogues, padded, strict=True)
        for turn in row
    ]
    keys = bank_keys(encoder, [episode.banks for episode in made])
    distinct = dict.fromkeys(
        (episode.conversation, question) for episode in made for question in episode.questions
    )
    numbers = {asked: number for number, asked in enumerate(distinct)}
    encoded = encode_queries(
        encoder,
        [question for _, question in numbers],
        [conversations[place[identity]] for identity, _ in numbers],
    )

    def pick(rows, width):
        """Picks queries `[rows, width]`, filled up with any, and a mask of the real ones.

        Rows are a conversation's id and questions.
        """
        kept = [[numbers[name, question] for question in row[:width]] for name, row in rows]
        picked = np.array([row + [0] * (width - len(row)) for row in kept])
        asked = np.array([[i < len(row) for i in range(width)] for row in kept])
        return jax.tree.map(lambda x: x[picked], encoded), asked

    def bank(speaker):
        pairs = zip(dialogues, made, strict=True)
        return stack([encode_bank(encoder, c, e.banks[speaker], keys) for c, e in pairs])

    of_turn = [
        (episode.conversation, turn.questions)
        for episode, row in zip(made, padded, strict=True)
        for turn in row
    ]
    queries, asked = pick(of_turn, encoder.sizes.questions)
    of_turns = EpisodeTurns(
        present=np.array([i < len(episode.turns) for episode in made for i in range(turns)]),
        speaker=np.array([turn.speaker for turn in flat], np.int32),
        facts=stack(facts),
        queries=queries,
        asked=asked,
    )
    of_end = [(episode.conversation, row) for episode, row in zip(made, end, strict=True)]
    queries, asked = pick(of_end, questions)
    return EpisodeData(
        banks=(bank(0), bank(1)),
        turns=jax.tree.map(lambda x: x.reshape(len(made), turns, *x.shape[1:]), of_turns),
        queries=queries,
        asked=asked,
        due=np.array([row + [0] * (questions - len(row)) for row in due], np.int32),
        scene=encode_scenes(encoder, conversations),
        conversation=np.array([place[episode.conversation] for episode in made], np.int32),
    )


def left_out_of_episodes(
    encoder: Encoder,
    conversations: Sequence[Conversation],
    made: Sequence[Episode],
    questions: int,
) -> dict[str, int]:
    """Counts what is left out of episodes of these conversations, by the option to keep it."""
    turns = [turn for episode in made for turn in episode.turns]
    beyond = sum(len(episode.questions) - len(chosen) for episode, chosen in _ends(made, questions))
    asked = {(e.conversation, question.index) for e in made for question in e.questions}
    return left_out(encoder, turns, [episode.banks for episode in made]) | {
        f"questions beyond --final_questions={questions}": beyond,
        "questions that the facts of no episode answer": sum(
            (c.id, question.index) not in asked for c in conversations for question in c.questions
        ),
    }


def _ends(made, questions):
    """Pairs each episode with the places of the questions asked at its end."""
    return [(episode, spread(len(episode.questions), questions)) for episode in made]


def _padded(turns, count):
    """Pads turns at the end with turns that bring nothing."""
    return turns + (dataclasses.replace(turns[0], facts=(), questions=()),) * (count - len(turns))
