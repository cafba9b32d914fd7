"""Demonstrations for the fact extractor: raw turns, and the facts that the data note for them.

Axis letters: B turns, W tokens of a turn, R response length.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import struct

from memr1_jax.agents.demonstrations import Demonstrations, written_demonstrations
from memr1_jax.agents.extractor import FactExtractor, TurnText, turn_rows, write_facts
from memr1_jax.data.encode import Encoder
from memr1_jax.data.types import Conversation
from memr1_jax.errors import UserError
from memr1_jax.run.streams import run_draw

SILENT = 0.2  # share of the turns without a noted fact that are demonstrated


@struct.dataclass
class ExtractorBatch:
    """Holds raw turns `[B, W]`; `valid` `[B]` is False for padding."""

    turns: TurnText
    valid: jax.Array


@struct.dataclass
class ExtractorData:
    """Holds raw turns `[rows, W]` of `conversation` `[rows]`."""

    turns: TurnText
    conversation: jax.Array

    @property
    def rows(self) -> int:
        """Number of turns."""
        return self.conversation.shape[0]

    def select(self, rows: jax.Array, valid: jax.Array) -> ExtractorBatch:
        """Returns the batch of turns `rows` `[B]`; those outside `valid` `[B]` are padding."""
        return ExtractorBatch(jax.tree.map(lambda x: x[rows], self.turns), valid)


def extractor_demonstrations(
    extractor: FactExtractor,
    encoder: Encoder,
    tokenizer,
    conversations: Sequence[Conversation],
    *,
    silent: float = SILENT,
    seed: int = 0,
) -> tuple[Demonstrations, dict[str, int]]:
    """Writes what is to be extracted from every turn with a noted fact, and from some others.

    Args:
      extractor: the agent that learns.
      encoder: as for the agents' other data.
      tokenizer: the model's, of `transformers`.
      conversations: dialogues that note facts; a fact belongs to the last of its turns.
      silent: share of the turns without a fact that are demonstrated, as NONE.
      seed: of the choice among these.

    Returns:
      Demonstrations, and how many were `too_long`.

    Raises:
      UserError: no fact is noted, or no response fits.
    """
    shown, targets, places = [], [], []
    for place, conversation in enumerate(conversations):
        noted: dict[str, list[str]] = {}
        for fact in conversation.facts:
            noted.setdefault(fact.sources[-1], []).append(fact.text)
        for session in conversation.sessions:
            for turn in session.turns:
                draw = run_draw(seed, "silent", conversation.id, turn.dia_id)
                if turn.dia_id in noted or draw < silent:
                    shown.append((turn.speaker, session.time_of(turn), turn.content))
                    targets.append(write_facts(noted.get(turn.dia_id, ())))
                    places.append(place)
    if not any(conversation.facts for conversation in conversations):
        raise UserError(
            "These dialogues note no facts, so there is nothing to demonstrate to the fact"
            " extractor. Use --data=synthetic or --data=locomo."
        )
    turns = jax.device_put(turn_rows(encoder, shown, extractor.turn_width))
    data = ExtractorData(turns, jnp.array(places, jnp.int32))
    return written_demonstrations(extractor, "facts", tokenizer, data, targets, {})
