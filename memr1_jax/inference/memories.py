"""Memories of agents: both speakers' banks with the names and times that belong to them.

Axis letters: M slots of a bank.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from memr1_jax.memory.bank import MemoryBank
from memr1_jax.run.markdown import text_table


@dataclasses.dataclass(frozen=True)
class Memory:
    """One memory as text; `slot` is its place in its speaker's bank."""

    slot: int
    speaker: str
    text: str
    written: str  # when it was first written, as the turns say it; empty if they do not
    changed: str  # when it was last written

    def __str__(self) -> str:
        """Returns the text after the speaker's name."""
        return f"{self.speaker}: {self.text}"


@dataclasses.dataclass(frozen=True)
class Memories:
    """The memory banks of a conversation, immutable; `print` shows them as a table.

    `speakers` has two names, empty where fewer have spoken; `banks` are their banks with NumPy
    leaves `[M, ...]`, whose times are places in `times`. `turns` counts what was read so far.
    """

    speakers: tuple[str, str]
    banks: tuple[MemoryBank, MemoryBank]
    times: tuple[str, ...]
    turns: int
    tokenizer: Any = dataclasses.field(repr=False)

    def __iter__(self) -> Iterator[Memory]:
        """Goes through the memories, speaker by speaker, slot by slot."""
        for owner, bank in enumerate(self.banks):
            yield from (self.at(owner, int(slot)) for slot in np.flatnonzero(bank.alive))

    def at(self, owner: int, slot: int) -> Memory:
        """Returns the memory in a slot of the first (0) or second (1) speaker's bank."""
        bank = self.banks[owner]
        return Memory(
            slot,
            self.speakers[owner],
            decode(self.tokenizer, bank, slot),
            self.times[bank.created[slot]],
            self.times[bank.updated[slot]],
        )

    def __len__(self) -> int:
        """Counts the memories of both speakers."""
        return sum(int(np.sum(bank.alive)) for bank in self.banks)

    def __str__(self) -> str:
        """Returns a table: slot, speaker, memory, when written and when changed."""
        if not len(self):
            return "(no memories)"
        rows = [
            (str(m.slot), m.speaker, m.text, m.written, m.changed if m.changed != m.written else "")
            for m in self
        ]
        return text_table(("slot", "speaker", "memory", "written", "changed"), rows)


def decode(tokenizer: Any, bank: MemoryBank, slot: int) -> str:
    """Returns the text in a slot of a bank with NumPy leaves."""
    tokens = bank.tokens[slot, : bank.length[slot]].tolist()
    return tokenizer.decode(tokens, clean_up_tokenization_spaces=False).strip()
