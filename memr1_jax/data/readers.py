"""Finds and reads each data set, checks it against what is known of it, and names it.

A part of a data set never goes by the name of the whole.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from memr1_jax.data import locomo
from memr1_jax.data.audit import AUDIT, read_audit, with_audit
from memr1_jax.data.hub import one_file
from memr1_jax.data.longmemeval import FILES, load_longmemeval
from memr1_jax.data.msc import CLEANED, CLEANED_QUESTIONS, MSC, load_msc, read_cleaned
from memr1_jax.data.own_dialogues import load_own_dialogues
from memr1_jax.data.own_turns import SESSION_GAP
from memr1_jax.data.personamem import CONTEXTS, QUESTIONS, load_personamem
from memr1_jax.data.published import UNKNOWN, Found, PathLike, PublishedFile, find
from memr1_jax.data.published_sets import Load, PublishedSet, load_set
from memr1_jax.data.types import Conversation
from memr1_jax.errors import UserError
from memr1_jax.run.checksums import file_digest


@dataclasses.dataclass(frozen=True)
class Read:
    """The content of one or two files, under the name that it deserves."""

    name: str
    files: tuple[Found, ...]
    conversations: list[Conversation]


def read_locomo(
    path: PathLike | None = None,
    strict: bool = False,
    captions: bool = False,
    adversarial: bool = False,
    audit: bool = False,
    audit_path: PathLike | None = None,
) -> Read:
    """Reads LoCoMo, or a file in its format; see `load_benchmark`."""
    found = find(locomo.LOCOMO, path, strict)
    everything = locomo.load_conversations(found.path, captions, adversarial=True)
    counts = count(everything)
    _check(found, counts)
    chosen = everything if adversarial else [locomo.without_adversarial(c) for c in everything]
    files = [found]
    if audit or audit_path:
        files.append(find(AUDIT, audit_path, strict))
        objections = read_audit(files[-1].path)
        _check(files[-1], {"objections": len(objections)})
        chosen = with_audit(chosen, objections)
    if all(c.id in locomo.IDS for c in chosen):
        name = _name("LoCoMo", counts, locomo.LOCOMO, found)
    else:
        name = f"{found.path.name} (in LoCoMo's format)"
    return Read(name, tuple(files), chosen)


def longmemeval_reader(edition: str) -> Callable[..., Read]:
    """Returns the reader of one of LongMemEval's files."""

    def read(path: PathLike | None = None, strict: bool = False, limit: int = 0) -> Read:
        found = find(FILES[edition], path, strict)
        conversations = load_longmemeval(found.path, edition, limit)
        counts = count(conversations)
        if not limit:
            _check(found, counts)
        name = _name(FILES[edition].title, counts, FILES[edition], found)
        return Read(name, (found,), conversations)

    return read


def read_msc(
    path: PathLike | None = None,
    strict: bool = False,
    cleaned_path: PathLike | None = None,
    last_session: bool = False,
) -> Read:
    """Reads MSC-Self-Instruct; see `load_benchmark`."""
    files = [find(MSC, path, strict)]
    cleaned = None
    if cleaned_path:
        files.append(find(CLEANED_QUESTIONS, cleaned_path, strict))
        cleaned = read_cleaned(files[-1].path)
        _check(files[-1], {"questions": len(cleaned)})
    conversations = load_msc(files[0].path, cleaned, last_session)
    counts = count(conversations)
    _check(files[0], counts)
    is_cleaned = any(q.kind == CLEANED for c in conversations for q in c.questions)
    title = "MSC-Self-Instruct with cleaned questions" if is_cleaned else "MSC-Self-Instruct"
    return Read(_name(title, counts, MSC, *files), tuple(files), conversations)


def personamem_reader(length: str) -> Callable[..., Read]:
    """Returns the reader of PersonaMem with contexts of one length."""

    def read(
        path: PathLike | None = None,
        strict: bool = False,
        contexts_path: PathLike | None = None,
        system_messages: bool = False,
    ) -> Read:
        questions = find(QUESTIONS[length], path, strict)
        where = contexts_path or _contexts_beside(questions.path, length)
        contexts = find(CONTEXTS[length], where, strict)
        conversations, missing = load_personamem(questions.path, contexts.path, system_messages)
        counts = count(conversations)
        _check(contexts, counts)
        name = f"PersonaMem {length}"
        if missing:
            kept = counts["conversations"]
            name += f", {kept} context{'s' * (kept != 1)}{_unknown(questions, contexts)}"
        elif _published_counts(CONTEXTS[length]):
            name = _name(name, counts, CONTEXTS[length], questions, contexts)
        elif unknown := _unknown(questions, contexts):
            name += f", {counts['questions']} questions{unknown}"
        return Read(name, (questions, contexts), conversations)

    return read


def set_reader(published: PublishedSet, load: Load) -> Callable[..., Read]:
    """Returns the reader of a data set that is known by its counts alone."""

    def read(path: PathLike | None = None, strict: bool = False) -> Read:
        found, conversations = load_set(published, load, path, strict)
        name = f"{published.named(count(conversations))}, files {found.sha256[:12]}"
        return Read(name, (found,), conversations)

    return read


def read_own(
    path: PathLike | None = None,
    strict: bool = False,
    session_gap: float = SESSION_GAP,
    drop_unknown_turns: bool = False,
) -> Read:
    """Reads a user's own dialogues, which have no edition to be `strict` about."""
    del strict
    if not path:
        raise UserError("One's own dialogues need --data_path, the file of JSON lines.")
    path = one_file(path)
    conversations = load_own_dialogues(path, session_gap, drop_unknown_turns)
    return Read(path.name, (Found(path, "own", file_digest(path), {}),), conversations)


def count(conversations: Sequence[Conversation]) -> dict[str, int]:
    """Counts conversations, sessions, turns and questions."""
    return {
        "conversations": len(conversations),
        "sessions": sum(len(c.sessions) for c in conversations),
        "turns": sum(len(c.turns) for c in conversations),
        "questions": sum(len(c.questions) for c in conversations),
    }


def _check(found: Found, counts: Mapping[str, int]) -> None:
    """Raises where a known file was not read as it is known to be."""
    for what, expected in found.counts.items():
        if counts[what] != expected:
            raise UserError(
                f"{found.path} is known (sha256 {found.sha256}) to hold {expected} {what}, but "
                f"{counts[what]} were read. This is a mistake in the loader: please report it."
            )


def _name(title: str, counts: Mapping[str, int], file: PublishedFile, *found: Found) -> str:
    """Names a data set, with its size if not the published one, and unknown editions."""
    for what, published in _published_counts(file).items():
        if counts[what] != published:
            of = f" of {published:,}" if counts[what] < published else ""
            title = f"{title}, {counts[what]:,}{of} {what}"
            break
    return title + _unknown(*found)


def _unknown(*found: Found) -> str:
    """Names the digests of files whose content is no known edition."""
    digests = [file.sha256[:12] for file in found if file.edition == UNKNOWN]
    return f", unknown edition {' and '.join(digests)}" if digests else ""


def _published_counts(file: PublishedFile) -> Mapping[str, int]:
    return file.editions[file.sha256].counts


def _contexts_beside(questions: Path, length: str) -> Path | None:
    """Finds all or part of the contexts in the questions' folder; None if there are none.

    Raises:
      UserError: several parts are there.
    """
    whole = questions.parent / CONTEXTS[length].name
    parts = [whole] if whole.exists() else sorted(questions.parent.glob(f"{whole.stem}*.jsonl"))
    if len(parts) > 1:
        names = ", ".join(part.name for part in parts)
        raise UserError(f"{whole.parent} holds {names}. Name one with {CONTEXTS[length].flag}.")
    return parts[0] if parts else None
