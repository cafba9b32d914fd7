"""Replies that several systems share, so that the same facts are not extracted again and again."""

import collections
import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Sequence

from memr1_jax.evals.systems.protocol import Call, Reply, Steps


class ReplyCache:
    """Replies by model and prompt, in memory and, with a path, in a file of JSON lines.

    A last line that was broken off when a process was killed is overwritten by the next one.

    Args:
      identity: what the weights are, for example a digest: other weights have other replies.
      path: the file, which is made where it does not exist.
    """

    def __init__(self, identity: str, path: str | os.PathLike | None = None):
        """Reads the file; see the class."""
        self._identity = identity
        self._path = None if path is None else pathlib.Path(path)
        self._replies: dict[str, Reply] = {}
        if self._path is not None and self._path.exists():
            self._read(self._path)

    def _read(self, path: pathlib.Path) -> None:
        whole = 0
        with open(path, "rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break
                record = json.loads(line)
                self._replies[record.pop("key")] = Reply(**record)
                whole += len(line)
        if whole < path.stat().st_size:
            os.truncate(path, whole)

    def _key(self, call: Call) -> str:
        what = [self._identity, call.model, call.messages, call.max_tokens, call.schema, call.ids]
        return hashlib.sha256(json.dumps(what).encode()).hexdigest()

    def find(self, call: Call) -> Reply | None:
        """The reply to an equal call, if there was one."""
        return self._replies.get(self._key(call))

    def keep(self, call: Call, reply: Reply) -> None:
        """Remembers a reply and appends it to the file."""
        key = self._key(call)
        if key in self._replies:
            return
        self._replies[key] = reply
        if self._path is not None:
            line = json.dumps({"key": key, **dataclasses.asdict(reply)})
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(line + "\n")

    def __len__(self) -> int:
        """How many replies there are."""
        return len(self._replies)


def cached_replies(
    calls: Sequence[Call], cache: ReplyCache | None, counts: collections.Counter
) -> Steps[list[Reply]]:
    """Makes those calls that the cache does not know, together, and gives all replies in order.

    What was found is counted: calls, and tokens as if they had been made, since they belong to the
    cost of a system.
    """
    known = {}
    for place, call in enumerate(calls):
        reply = cache.find(call) if cache is not None else None
        if reply is not None:
            known[place] = reply
            counts[f"{call.stage}_cached"] += 1
            counts[f"{call.stage}_cached_prompt_tokens"] += reply.prompt_tokens
            counts[f"{call.stage}_cached_tokens"] += reply.tokens
    missing = [place for place in range(len(calls)) if place not in known]
    if missing:
        replies = yield [calls[place] for place in missing]
        for place, reply in zip(missing, replies, strict=True):
            known[place] = reply
            if cache is not None:
                cache.keep(calls[place], reply)
    return [known[place] for place in range(len(calls))]
