"""Remembers chats that other programs have exported, in the order in which they took place."""

import collections
import contextlib
import io
import os
from typing import Any

from memr1_jax.data.chats.exported_chat import Said
from memr1_jax.data.own_dialogues import load_chats
from memr1_jax.run.progress import Progress, progress_bar
from memr1_jax.service.memory import Memory
from memr1_jax.service.messages import read_messages
from memr1_jax.service.queries import scope_of
from memr1_jax.service.records import Kind
from memr1_jax.service.scope import Scope

BATCH = 16  # messages that are added in one call


def progress(total: int, done: int = 0) -> contextlib.AbstractContextManager[Progress]:
    """Shows on standard error how many messages are done, if there are many."""
    from rich.console import Console

    console = Console(stderr=True) if total > BATCH else Console(file=io.StringIO())
    return progress_bar(total, "messages", start=done, console=console)


def import_chats(
    memory: Memory, path: str | os.PathLike, *, infer: bool = True, **ids: Any
) -> dict[str, int]:
    """Remembers the chats of a file, except for messages that were remembered before.

    A call that was interrupted is thus resumed by another one, and a later export of the same chat
    adds what is new in it.

    Args:
      memory: where to.
      path: the file, see `load_chats`.
      infer: as in `Memory.add`.
      **ids: whose memory it is.

    Returns:
      The number of `chats` and `messages` in the file, how many were there `before`, and how many
      events of each kind the others made.

    Raises:
      UserError: the file cannot be read, or no id was given.
    """
    scope = Scope.of(**ids)
    chats = sorted(load_chats(path), key=lambda chat: chat.messages[0].time)
    known = _Known(memory, scope)
    new = [[said for said in chat.messages if not known.has(said)] for chat in chats]
    total, left = sum(len(chat.messages) for chat in chats), sum(map(len, new))
    counts = {"chats": len(chats), "messages": total, "before": total - left}
    events: collections.Counter[str] = collections.Counter()
    done = total - left
    with progress(total, done) as told:
        for said in new:
            for start in range(0, len(said), BATCH):
                part = said[start : start + BATCH]
                reply = memory.add([_message(one) for one in part], infer=infer, **ids)
                events.update(result["event"] for result in reply["results"])
                done += len(part)
                told.update(done)
    return counts | {kind.value: events[kind] for kind in Kind if events[kind]}


class _Known:
    """Holds the messages of a scope; each is found once."""

    def __init__(self, memory: Memory, scope: Scope):
        self._times: dict[tuple[str, str], list[str]] = {}
        for row in memory.store.messages(scope):
            if scope_of(row) == scope:
                self._times.setdefault((row.speaker, row.content), []).append(row.event_time)

    def has(self, said: Said) -> bool:
        """Tells whether a message is there; one without a time matches any time."""
        (message,) = read_messages(_message(said))
        times = self._times.get((message.speaker, message.content), [])
        time = message.event_time if said.time else times[0] if times else ""
        if time not in times:
            return False
        times.remove(time)
        return True


def _message(said: Said) -> dict[str, Any]:
    more = {"timestamp": said.time} if said.time else {}
    return {"role": said.role, "name": said.speaker, "content": said.text, **more}
