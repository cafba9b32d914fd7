"""The turns of a user's own dialogues: who speaks, when, and where a session begins."""

import dataclasses
import datetime
from collections.abc import Iterable, Iterator, Sequence

from memr1_jax.data.chats.exported_chat import MACHINERY, ROLES, SKIPPED
from memr1_jax.data.chats.formats import FORMATS
from memr1_jax.data.nodes import Node
from memr1_jax.data.notes import Note
from memr1_jax.data.times import read_times
from memr1_jax.data.types import Session, Turn

SESSION_GAP = 6.0  # hours
CHAT = ("user", "assistant")
UNREADABLE = "times that cannot be read, any change in which begins a session"

_SESSION = ("time", "turns")
_TURN = ("speaker", "role", "text", "content", "time", "id", "caption")


@dataclasses.dataclass(frozen=True)
class Dialogue:
    """The sessions of one conversation, without system and tool turns.

    `kept[n]` is how many of the file's first n turns are kept; `sessions_of` is the session of each
    turn by its id.
    """

    speakers: tuple[str, str]
    sessions: tuple[Session, ...]
    kept: tuple[int, ...]
    sessions_of: dict[str, int]
    one_bank: bool


def read_turns(line: Node, session_gap: float, notes: list[Note]) -> Dialogue:
    """Reads the turns of a conversation.

    Args:
      line: the conversation's object.
      session_gap: hours; where `turns` stand at the top, a session begins after a longer pause.
      notes: gets what was left out or could not be read.

    Raises:
      UserError: there is no turn, a field is missing, wrong or empty, or not two people speak.
    """
    named = [node.of(str).value for node in line["speakers"].items()] if "speakers" in line else []
    sessions, kept = [], [0]
    for number, (time, nodes) in enumerate(_groups(line, session_gap, notes), start=1):
        turns = []
        for place, node in enumerate(nodes, start=1):
            turn = _turn(node, f"D{number}:{place}", named)
            if turn is None:
                notes.append(Note(SKIPPED, node.place))
            else:
                turns.append(turn)
            kept.append(kept[-1] + (turn is not None))
        sessions.append(Session(number, time, tuple(turns)))
    if not kept[-1]:
        where = line["turns" if "turns" in line else "sessions"]
        raise where.error("there is no turn of a dialogue. Fill it in, or take this line out.")
    ids: dict[str, int] = {}
    for session in sessions:
        for turn in session.turns:
            if turn.dia_id in ids:
                raise line.error(f"the turn id {turn.dia_id!r} stands there twice.")
            ids[turn.dia_id] = session.number
    speakers, names = _speakers(line, named, sessions)
    return Dialogue(
        speakers=speakers,
        sessions=tuple(_renamed(session, names) for session in sessions),
        kept=tuple(kept),
        sessions_of=ids,
        one_bank={speaker.lower() for speaker in speakers} == set(CHAT),
    )


def chat_role(name: str, speakers: Sequence[str]) -> str:
    """Returns the speaker that a name in the file means: in a chat, "human" is "user"."""
    if name in speakers or set(speakers) != set(CHAT):
        return name
    return ROLES.get(name.lower(), name)


def _groups(
    line: Node, session_gap: float, notes: list[Note]
) -> Iterator[tuple[str, Sequence[Node]]]:
    """Yields the time and the turns of each session."""
    if ("sessions" in line) == ("turns" in line):
        raise line.error(
            'expected either "sessions", each with "turns", or "turns" alone, or a file in one of'
            f" these formats: {FORMATS}."
        )
    if "turns" in line:
        yield from _by_pauses(line["turns"].items(), session_gap, notes)
        return
    for session in line["sessions"].items():
        check_names(session, _SESSION, notes)
        turns = session["turns"].items()
        for turn in turns:
            check_names(turn, _TURN, notes)
        times = (text(node, "time") for node in (session, *turns))
        yield next(filter(None, times), ""), turns


def _by_pauses(
    turns: Sequence[Node], session_gap: float, notes: list[Note]
) -> Iterator[tuple[str, list[Node]]]:
    """Cuts turns into sessions where they paused for longer than `session_gap` hours."""
    for turn in turns:
        check_names(turn, _TURN, notes)
    texts = [text(turn, "time") for turn in turns]
    gap = datetime.timedelta(hours=session_gap)
    group: list[Node] = []
    began = last = ""
    last_moment = None
    for turn, time, moment in zip(turns, texts, read_times(texts), strict=True):
        if time and moment is None:
            notes.append(Note(UNREADABLE, turn.place, time))
        paused = time != last if None in (moment, last_moment) else abs(moment - last_moment) > gap
        if time and last and paused:
            yield began, group
            group, began = [], ""
        group.append(turn)
        began = began or time
        if time:
            last, last_moment = time, moment
    if group:
        yield began, group


def _turn(node: Node, default_id: str, named: Sequence[str]) -> Turn | None:
    """Reads a turn; None for system or tool turns not named as a speaker."""
    speaker = node.filled("role" if "role" in node else "speaker")
    if speaker.lower() in MACHINERY and speaker not in named:
        return None
    said = "content" if "content" in node else "text"
    caption = text(node, "caption") or None
    if not node.text(said).strip() and not caption:
        raise node[said].error("this is empty. Write what was said, or take the turn out.")
    return Turn(
        speaker=speaker,
        text=node.text(said),
        dia_id=text(node, "id") or default_id,
        caption=caption,
        time=text(node, "time"),
    )


def _speakers(
    line: Node, named: Sequence[str], sessions: Iterable[Session]
) -> tuple[tuple[str, str], dict[str, str]]:
    """Finds the two speakers, and what the file's names for them become."""
    speak = list(dict.fromkeys(turn.speaker for session in sessions for turn in session.turns))
    strangers = [name for name in speak if name not in named] if named else []
    if strangers:
        raise line["speakers"].error(f"{strangers[0]!r}, who speaks, is not among them.")
    speakers = list(dict.fromkeys(named or speak))
    roles = {name: ROLES.get(name.lower(), name) for name in speakers}
    if sorted(roles.values()) == sorted(CHAT):
        speakers = list(roles.values())
    else:
        roles = {}
    if not named:  # in a chat the user comes first, whoever begins
        speakers.sort(key=lambda name: name.lower() == "assistant")
    if len(speakers) != 2 or not all(name.strip() for name in speakers):
        raise line.error(
            f"expected two speakers but found {len(speakers)}: {', '.join(speakers)}. Name "
            'both in "speakers", also one who is silent; a dialogue of more people is not read.'
        )
    return tuple(speakers), roles


def _renamed(session: Session, names: dict[str, str]) -> Session:
    turns = (
        dataclasses.replace(turn, speaker=names.get(turn.speaker, turn.speaker))
        for turn in session.turns
    )
    return dataclasses.replace(session, turns=tuple(turns))


def text(node: Node, key: str) -> str:
    """Returns the string or number at `key`; empty if missing or null."""
    return node.written(key) if node.of(dict).value.get(key) is not None else ""


def check_names(node: Node, known: tuple[str, ...], notes: list[Note]) -> None:
    """Notes the unknown fields of an object."""
    for key in node.of(dict).value:
        if key not in known:
            what = f"unknown fields {key!r}, which are ignored (known are {', '.join(known)})"
            notes.append(Note(what, node.place))
