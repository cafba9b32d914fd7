"""Compares what a manager kept of whole dialogues with what gold operations would have left.

Only generated dialogues have gold operations. Memories are compared letter by letter with the noted
facts, so a fact in other words counts as missing, and its memory as unlike any fact.
"""

import collections
from collections.abc import Iterable

from memr1_jax.data.tuples import facts_before
from memr1_jax.data.types import Conversation
from memr1_jax.evals.report.replay import DialogueRecord
from memr1_jax.text.events import Event

# What users of memory systems complain about, in the order of the table.
COMPLAINTS = {
    "memories": "memories at the end",
    "missing": "facts that hold and are not in the bank",
    "stale": "memories that no longer hold",
    "duplicates": "memories that say what another one says",
    "unlike": "memories that no fact says",
    "wrong_deletes": "facts that held and were deleted or overwritten",
    "invalid": "outputs that could not be read",
}


def bank_health(
    records: Iterable[DialogueRecord], conversations: Iterable[Conversation]
) -> dict[str, float]:
    """Counts `COMPLAINTS`, summed over dialogues, and "facts", those true at the end.

    Args:
      records: what happened, from `evals.watch.replay`.
      conversations: the dialogues, in the same order, with their gold operations.
    """
    total: collections.Counter = collections.Counter(dict.fromkeys((*COMPLAINTS, "facts"), 0))
    for record, conversation in zip(records, conversations, strict=True):
        for speaker in conversation.speakers:
            total.update(_of_speaker(record, conversation, speaker))
    return dict(total)


def _of_speaker(record, conversation, speaker) -> dict[str, int]:
    facts = conversation.facts
    own = [o for o in conversation.operations if facts[o.fact].speaker == speaker]
    noted = {facts[o.fact].text.strip() for o in own}
    repeats = {facts[o.fact].text.strip() for o in own if o.event == Event.NONE}

    def held(position: int) -> set[str]:
        known = facts_before(conversation, position)
        return {fact.text.strip() for fact in known if fact.speaker == speaker}

    bank: dict[int, str] = {}
    counts: collections.Counter = collections.Counter()
    for turn in record.turns:
        if turn.speaker != speaker:
            continue
        counts["invalid"] += not turn.valid
        after = held(conversation.positions[turn.turn] + 1)
        for change in turn.changes:
            if change.kind != "added":
                counts["wrong_deletes"] += change.before in after
                bank.pop(change.slot)
            if change.kind != "removed":
                bank[change.slot] = change.after
    live, texts = held(len(conversation.turns)), collections.Counter(bank.values())
    told_twice = {text for text in texts if text in repeats and text not in live}
    return counts + collections.Counter(
        facts=len(live),
        memories=len(bank),
        missing=len(live - set(texts)),
        stale=sum(n for t, n in texts.items() if t in noted - live - told_twice),
        duplicates=sum(n - 1 for n in texts.values()) + len(told_twice),
        unlike=sum(n for t, n in texts.items() if t not in noted),
    )
