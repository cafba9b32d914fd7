"""Talks with a memory in the terminal: `memr1 chat -u NAME`.

Each line is remembered, and its effect shown; a question is answered as well.
"""

import argparse
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from memr1_jax.errors import UserError
from memr1_jax.service.arguments import add_ids, add_places, ids_of, open_memory, parser, run
from memr1_jax.service.memory import Memory
from memr1_jax.service.scope import Scope

_HELP = (
    "/undo takes the last line back, /why shows what the manager saw and wrote, /list shows all"
    " memories, /as-of DATE looks at an earlier day (/as-of alone: today), /quit ends."
)


class Chat:
    """A conversation: `reply` takes a line and returns the lines to show."""

    def __init__(self, memory: Memory, **ids: Any):
        """Begins with what is remembered under the ids."""
        self._memory, self._ids = memory, ids
        self._calls: list[dict[str, Any]] = []
        self._as_of: str | None = None
        self._commands: dict[str, Callable[[str], Iterable[str]]] = {
            "/undo": self._undo,
            "/why": self._why,
            "/list": self._list,
            "/as-of": self._look_back,
            "/help": lambda _: [_HELP],
        }

    def reply(self, line: str) -> list[str]:
        """Remembers or answers a line, or does what a command says."""
        word, _, rest = line.strip().partition(" ")
        if not word:
            return []
        try:
            if word.startswith("/"):
                unknown = lambda _: [f"There is no command {word}. {_HELP}"]  # noqa: E731
                return list(self._commands.get(word, unknown)(rest.strip()))
            return list(self._said(line.strip()))
        except UserError as error:
            return [f"Error: {error}"]

    def _said(self, line: str) -> Iterable[str]:
        if line.endswith(("?", "？", "؟")):
            found = self._memory.answer(line, as_of=self._as_of, **self._ids)
            yield found["answer"]
            yield from (f"  from: {memory['memory']}" for memory in found["memories"])
            return
        added = self._memory.add(line, explain=True, **self._ids)
        self._calls.append(added)
        for result in added["results"]:
            before = result.get("previous_memory")
            was = f"  (was: {before})" if before else ""
            yield f"  {result['event'].lower()}: {result['memory']}{was}"

    def _undo(self, _: str) -> Iterable[str]:
        if not self._calls:
            return ["Nothing was said yet that could be taken back."]
        undone = self._memory.undo(call=self._calls[-1]["call"])["results"]
        self._calls.pop()
        return [f"  undone: {item['previous_memory'] or item['memory']}" for item in undone]

    def _why(self, _: str) -> Iterable[str]:
        if not self._calls:
            return ["Nothing was said yet."]
        explained = [result["explain"] for result in self._calls[-1]["results"]]
        return [f"{part['prompt']}\n-> {part['output']}" for part in explained]

    def _list(self, _: str) -> Iterable[str]:
        found = self._memory.get_all(top_k=1000, as_of=self._as_of, **self._ids)["results"]
        return [f"  {memory['memory']}" for memory in found] or ["(no memories)"]

    def _look_back(self, date: str) -> Iterable[str]:
        self._memory.get_all(as_of=date or None, top_k=0, **self._ids)  # is it a date?
        self._as_of = date or None
        return [f"Looking at {date}." if date else "Looking at today."]


def command(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    found = parser(__doc__)
    add_ids(found)
    add_places(found)
    run(found, _main, argv)


def _main(given: argparse.Namespace) -> None:
    ids = ids_of(given)
    Scope.of(**ids)
    with open_memory(given) as memory:
        chat = Chat(memory, **ids)
        print(_HELP)
        while True:
            try:
                line = input("> ")
            except (EOFError, KeyboardInterrupt):
                return
            if line.strip() in ("/quit", "/exit"):
                return
            print(*chat.reply(line), sep="\n")
