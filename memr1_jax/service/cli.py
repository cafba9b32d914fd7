"""Remembers, finds and answers from the command line: `memr1 memory VERB ...`.

`memr1 memory --help` lists the verbs. Agents are loaded by add, search, ask and retry alone.
"""

import argparse
import contextlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from memr1_jax.data.chats.formats import FORMATS
from memr1_jax.run.json_files import loads
from memr1_jax.service.arguments import add_ids, add_places, ids_of, open_memory, parser, run
from memr1_jax.service.errors import Refused, Unknown
from memr1_jax.service.importing import BATCH, import_chats, progress
from memr1_jax.service.memory import Memory
from memr1_jax.service.printing import shown
from memr1_jax.service.scope import Scope
from memr1_jax.service.transfer import export_lines, import_lines, is_export


def add(memory: Memory, given: argparse.Namespace) -> Any:
    """Remembers a text, a file of messages (JSON, JSON lines or text), or standard input."""
    messages = _messages(given)
    results: list[dict] = []
    calls = []
    more = {"infer": not given.no_infer, "explain": given.explain, "timestamp": given.timestamp}
    with progress(len(messages)) as told:
        for start in range(0, len(messages), BATCH):
            part = messages[start : start + BATCH]
            reply = memory.add(part, **ids_of(given), **more, metadata=given.metadata)
            results += reply["results"]
            calls.append(reply["call"])
            told.update(start + len(part))
    return {"results": results, "calls": calls}


def search(memory: Memory, given: argparse.Namespace) -> Any:
    """Finds the memories that are nearest to a query."""
    return memory.search(_text(given), top_k=given.top_k, **_past(given), **ids_of(given))


def ask(memory: Memory, given: argparse.Namespace) -> Any:
    """Answers a question from memory."""
    return memory.answer(_text(given), **_past(given), **ids_of(given), explain=given.explain)


def list_all(memory: Memory, given: argparse.Namespace) -> Any:
    """Lists memories."""
    return memory.get_all(top_k=given.top_k, **_past(given), **ids_of(given))


def get(memory: Memory, given: argparse.Namespace) -> Any:
    """Shows one memory."""
    found = memory.get(given.id)
    if found is None:
        raise Unknown(f"There is no memory with the id {given.id!r}.")
    return found


def update(memory: Memory, given: argparse.Namespace) -> Any:
    """Changes the text of a memory."""
    return memory.update(given.id, _text(given))


def delete(memory: Memory, given: argparse.Namespace) -> Any:
    """Deletes a memory, or with ids in its place all memories under them."""
    if given.id and any(ids_of(given).values()):
        raise Refused("Give either the id of a memory or whose memories to delete, not both.")
    return memory.delete(given.id) if given.id else memory.delete_all(**ids_of(given))


def history(memory: Memory, given: argparse.Namespace) -> Any:
    """Lists the events of a memory."""
    return {"results": memory.history(given.id)}


def undo(memory: Memory, given: argparse.Namespace) -> Any:
    """Takes back the last event of a memory, an event, or all of one add."""
    return memory.undo(given.id, event_id=given.event, call=given.call)


def retry(memory: Memory, given: argparse.Namespace) -> Any:
    """Works again through what could not be read."""
    return memory.retry(**ids_of(given))


def diff(memory: Memory, given: argparse.Namespace) -> Any:
    """Compares the memories of two moments."""
    return memory.diff(given.before, given.after, by=given.by, **ids_of(given))


def export(memory: Memory, given: argparse.Namespace) -> Any:
    """Writes messages and events as JSON lines to standard output."""
    for line in export_lines(memory.store, Scope.of(**ids_of(given))):
        print(line)
    return None


def import_(memory: Memory, given: argparse.Namespace) -> Any:
    """Reads an export into a database without such memories, or chats of other programs."""
    if given.file != "-" and not is_export(given.file):
        return import_chats(memory, given.file, infer=not given.no_infer, **ids_of(given))
    with _opened(given.file) as lines:
        return import_lines(memory.store, lines)


def stats(memory: Memory, given: argparse.Namespace) -> Any:
    """Counts what the database holds."""
    return memory.stats()


def compact(memory: Memory, given: argparse.Namespace) -> Any:
    """Gives the space of deleted rows back to the disk; history is kept."""
    memory.store.compact()
    return {"message": "Database compacted."}


_TEXT = ("text", {"nargs": "?", "help": "the text; else from --file or standard input"})
_FILE = ("-f", "--file", {"help": "a file; - is standard input"})
_TOP = ("-k", "--top-k", {"type": int, "help": "how many at most"})
_PAST = (
    ("--as-of", {"help": "what was so by then, a date or time of what was told"}),
    ("--as-of-written", {"help": "what was known by then, a date or time of writing"}),
)
_ID = ("id", {"help": "the id of a memory"})
_ANY_ID = ("id", {"nargs": "?", "help": "the id of a memory"})
_KEEP = ("--no-infer", {"action": "store_true", "help": "keep messages as they stand"})
_EXPLAIN = ("--explain", {"action": "store_true", "help": "show prompts and outputs"})
_VERBS: dict[str, tuple] = {
    "add": (
        add,
        *(_TEXT, _FILE, _EXPLAIN),
        ("--timestamp", {"help": "when it was said, as 2026-05-08T13:56:00+00:00"}),
        ("--metadata", {"type": loads, "help": "a JSON object, kept with the memories"}),
        _KEEP,
    ),
    "search": (search, _TEXT, _FILE, _TOP, *_PAST),
    "ask": (ask, _TEXT, _FILE, _EXPLAIN, *_PAST),
    "list": (list_all, _TOP, *_PAST),
    "get": (get, _ID),
    "update": (update, _ID, _TEXT, _FILE),
    "delete": (delete, _ANY_ID),
    "history": (history, _ID),
    "undo": (
        undo,
        _ANY_ID,
        ("--event", {"help": "the number of an event, see history"}),
        ("--call", {"help": "what add called it"}),
    ),
    "retry": (retry,),
    "diff": (
        diff,
        ("before", {"help": "a moment"}),
        ("after", {"nargs": "?", "help": "a later one; now by default"}),
        ("--by", {"choices": ("written", "event"), "default": "written"}),
    ),
    "export": (export,),
    "import": (import_, ("file", {"help": f"an export (- is standard input), {FORMATS}"}), _KEEP),
    "stats": (stats,),
    "compact": (compact,),
}


def command(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    found = parser(__doc__)
    verbs = found.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, (does, *parts) in _VERBS.items():
        verb = verbs.add_parser(name, help=does.__doc__, description=does.__doc__)
        for *names, more in parts:
            verb.add_argument(*names, **more)
        add_ids(verb)
        add_places(verb)
        verb.add_argument("-o", "--output", choices=("text", "json", "table"), default="text")
        verb.add_argument("--json", action="store_const", const="json", dest="output")
        verb.set_defaults(does=does)
    run(found, _main, argv)


def _main(given: argparse.Namespace) -> None:
    with open_memory(given) as memory:
        reply = given.does(memory, given)
    if reply is not None:
        print(shown(reply, given.output))


def _past(given: argparse.Namespace) -> dict[str, Any]:
    return {"as_of": given.as_of, "as_of_written": given.as_of_written}


def _opened(file: str) -> Any:
    if file == "-":
        return contextlib.nullcontext(sys.stdin)
    try:
        return Path(file).open(encoding="utf-8")
    except OSError as error:
        raise Refused(f"{file} cannot be read ({error.strerror}). Check the path.") from error


def _text(given: argparse.Namespace) -> str:
    """Returns the text of the argument, a file or standard input."""
    if given.text is not None and given.file is not None:
        raise Refused("Give either a text or a file, not both.")
    if given.text is not None:
        return given.text
    if given.file is None and sys.stdin.isatty():
        raise Refused("Give a text, or --file=FILE.")
    source = given.file or "-"
    with _opened(source) as lines:
        try:
            return lines.read()
        except UnicodeDecodeError as error:
            raise Refused(f"{source} is no UTF-8 text. Convert it first.") from error


def _messages(given: argparse.Namespace) -> list[Any]:
    """Returns one message for a text; for JSON or JSON lines as many as there are."""
    text = _text(given)
    if given.text is not None or text.lstrip()[:1] not in ("[", "{"):
        return [text]
    try:
        found = loads(text)
    except ValueError:
        lines = [line for line in text.split("\n") if line.strip()]
        found = [_message(line, number) for number, line in enumerate(lines, 1)]
    if isinstance(found, Mapping):
        found = found.get("messages", [found])
    if not isinstance(found, list):
        raise Refused("A file of messages holds a list of them, or one on each line.")
    if not found:
        raise Refused("There are no messages in this list.")
    return found


def _message(line: str, number: int) -> Any:
    try:
        return loads(line)
    except ValueError as error:
        raise Refused(f"Line {number} of the messages is no JSON ({error}).") from error
