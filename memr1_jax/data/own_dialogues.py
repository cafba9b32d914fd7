"""A user's own dialogues: JSON lines, one conversation each; `experiments/README.md` shows them."""

import dataclasses
import os
import warnings
from collections.abc import Iterable, Iterator

from memr1_jax.data.locomo import ADVERSARIAL, SPLITS
from memr1_jax.data.nodes import Node, read_lines
from memr1_jax.data.types import Conversation, Fact, Question, Session, Turn
from memr1_jax.errors import UserError

_CHAT = ("user", "assistant")
_CONVERSATION = ("id", "speakers", "sessions", "turns", "questions", "facts", "split", "one_bank")
_SESSION = ("time", "turns")
_TURN = ("speaker", "role", "text", "content", "time", "id", "caption")
_QUESTION = (
    *("question", "answer", "evidence", "category", "kind", "id", "time"),
    *("options", "abstain", "after"),
)
_FACT = ("speaker", "text", "sources")


def load_own_dialogues(path: str | os.PathLike) -> list[Conversation]:
    """Read a user's own dialogues.

    A line is an object with `sessions`, each with `turns` and a `time`, and with `questions`. All
    else has a default: ids are counted, the speakers are the two who speak. In place of sessions
    `turns` may stand at the top; then every change of a turn's `time` begins a session. The names
    of chat formats, `role` and `content`, are read as `speaker` and `text`; a chat of "user" and
    "assistant" has one bank.

    Raises:
      UserError: something is missing or wrong; the message names file, line and field. A field of
        unknown name is a warning that names it too.
    """
    conversations: dict[str, Conversation] = {}
    for line in read_lines(path):
        conversation = _conversation(line, len(conversations))
        if conversation.id in conversations:
            raise line["id"].error(f"an earlier line has the id {conversation.id!r} too.")
        conversations[conversation.id] = conversation
    if not conversations:
        raise UserError(f"{path} holds no conversation: it has no line with content.")
    return list(conversations.values())


def turns_as_facts(conversation: Conversation) -> Conversation:
    """The conversation with every turn noted as a fact of its speaker, if nothing else is noted.

    Memory banks are filled from facts; a benchmark's annotations or a language model make better
    ones than bare turns.
    """
    if conversation.facts:
        return conversation
    facts = tuple(
        Fact(turn.speaker, f"{turn.speaker}: {turn.content}", session.number, (turn.dia_id,))
        for session in conversation.sessions
        for turn in session.turns
    )
    return dataclasses.replace(conversation, facts=facts)


def _conversation(line: Node, count: int) -> Conversation:
    _check_names(line, _CONVERSATION)
    sessions = tuple(_sessions(line))
    sessions_of = {turn.dia_id: session.number for session in sessions for turn in session.turns}
    order = {dia_id: place for place, dia_id in enumerate(sessions_of)}
    if len(order) < sum(len(session.turns) for session in sessions):
        ids = [turn.dia_id for session in sessions for turn in session.turns]
        twice = next(i for i in ids if ids.count(i) > 1)
        raise line.error(f"the turn id {twice!r} stands there twice.")
    speakers = _speakers(line, sessions)
    questions = tuple(
        _question(item, index, order) for index, item in enumerate(_list(line, "questions"))
    )
    facts = [_fact(item, speakers, order, sessions_of) for item in _list(line, "facts")]
    split = _text(line, "split")
    if split and split not in SPLITS:
        raise line["split"].error(f"{split!r} is none of {', '.join(SPLITS)}.")
    return Conversation(
        id=_text(line, "id") or f"own-{count + 1}",
        speakers=speakers,
        sessions=sessions,
        questions=questions,
        facts=tuple(sorted(facts, key=lambda fact: order[fact.sources[-1]])),
        one_bank=_flag(line, "one_bank", {s.lower() for s in speakers} == set(_CHAT)),
        split=split,
    )


def _sessions(line: Node) -> Iterator[Session]:
    if ("sessions" in line) == ("turns" in line):
        raise line.error('expected either "sessions", each with "turns", or "turns" alone.')
    if "turns" in line:
        groups: list[tuple[str, list[Node]]] = []
        for turn in line["turns"].items():
            time = _text(turn, "time")
            if not groups or time and time != groups[-1][0]:
                groups.append((time, []))
            groups[-1][1].append(turn)
    else:
        groups = []
        for session in line["sessions"].items():
            _check_names(session, _SESSION)
            turns = session["turns"].items()
            times = (_text(node, "time") for node in (session, *turns))
            groups.append((next(filter(None, times), ""), turns))
    for number, (time, turns) in enumerate(groups, start=1):
        yield Session(number, time, tuple(_turns(turns, number)))


def _turns(turns: Iterable[Node], number: int) -> Iterator[Turn]:
    for place, turn in enumerate(turns, start=1):
        _check_names(turn, _TURN)
        yield Turn(
            speaker=turn.text("role" if "role" in turn else "speaker"),
            text=turn.text("content" if "content" in turn else "text"),
            dia_id=_text(turn, "id") or f"D{number}:{place}",
            caption=_text(turn, "caption") or None,
            time=_text(turn, "time"),
        )


def _speakers(line: Node, sessions: Iterable[Session]) -> tuple[str, str]:
    speak = list(dict.fromkeys(turn.speaker for session in sessions for turn in session.turns))
    if "speakers" in line:
        speakers = [node.of(str).value for node in line["speakers"].items()]
        strangers = [name for name in speak if name not in speakers]
        if strangers:
            raise line["speakers"].error(f"{strangers[0]!r}, who speaks, is not among them.")
    else:  # of a chat the user comes first, whoever begins
        speakers = sorted(speak, key=lambda name: name.lower() == "assistant")
    if len(set(speakers)) != 2:
        raise line.error(
            f"expected two speakers but found {len(set(speakers))}: {', '.join(speakers)}. Name "
            'both in "speakers", also one who is silent; a dialogue of more people is not read.'
        )
    return tuple(speakers)


def _question(item: Node, index: int, order: dict[str, int]) -> Question:
    _check_names(item, _QUESTION)
    abstain = _flag(item, "abstain", False)
    options = tuple(node.of(str).value for node in _list(item, "options"))
    evidence = [node.of(str).value for node in _list(item, "evidence")]
    for dia_id in evidence:
        if dia_id not in order:
            raise item["evidence"].error(
                f"there is no turn {dia_id!r}. Turns without an id are called D1:1, D1:2, ... by "
                "session and place."
            )
    category = item["category"].of(int).value if "category" in item else 0
    if category not in range(6):
        raise item["category"].error(
            f"{category} is none of LoCoMo's 1 to 5, nor 0 for no category."
        )
    if abstain or category == ADVERSARIAL:
        abstain, category = True, ADVERSARIAL
    after = item["after"].of(int).value if "after" in item else None
    if after is not None and not 0 <= after <= len(order):
        raise item["after"].error(f"{after} is not between 0 and the {len(order)} turns.")
    return Question(
        question=item.text("question"),
        answer="" if abstain and "answer" not in item else _answer(item),
        category=category,
        evidence=tuple(sorted(set(evidence), key=order.__getitem__)),
        index=index,
        id=_text(item, "id"),
        kind=_text(item, "kind"),
        time=_text(item, "time"),
        options=options,
        abstain=abstain,
        after=after,
    )


def _answer(item: Node) -> str:
    answer = item.written("answer")
    if not answer.strip():
        raise item["answer"].error(
            "the answer is empty, so that no answer can be right. Say what is right, or"
            ' "abstain": true where the dialogue does not say.'
        )
    return answer


def _fact(
    item: Node, speakers: tuple[str, str], order: dict[str, int], sessions_of: dict[str, int]
) -> Fact:
    _check_names(item, _FACT)
    speaker = item.text("speaker")
    if speaker not in speakers:
        raise item["speaker"].error(f"{speaker!r} is not one of {', '.join(speakers)}.")
    sources = [node.of(str).value for node in item["sources"].items()]
    unknown = [dia_id for dia_id in sources if dia_id not in order]
    if unknown or not sources:
        raise item["sources"].error(f"expected ids of turns, not {', '.join(unknown) or 'none'}.")
    sources = sorted(set(sources), key=order.__getitem__)
    return Fact(speaker, item.text("text"), sessions_of[sources[-1]], tuple(sources))


def _text(node: Node, key: str) -> str:
    """The string or number at `key`; empty where nothing or null is."""
    return node.written(key) if node.of(dict).value.get(key) is not None else ""


def _list(node: Node, key: str) -> list[Node]:
    return node[key].items() if node.value.get(key) is not None else []


def _flag(node: Node, key: str, default: bool) -> bool:
    return node[key].of(bool).value if key in node else default


def _check_names(node: Node, known: tuple[str, ...]) -> None:
    for key in node.of(dict).value:
        if key not in known:
            warnings.warn(
                f"{node.place}, {key}: no such field; it is ignored. Known are {', '.join(known)}.",
                stacklevel=2,
            )
