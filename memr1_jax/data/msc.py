"""MSC-Self-Instruct (arXiv 2310.08560): two people's chats, one question about each of 500.

The data set has two sets of questions. In the published ones speaker B addresses speaker A in the
first person. The cleaned ones ask the same, shorter and in the third person; they come as a
separate file and need the dialogues as well. Scores on the two differ.
"""

import os
from collections.abc import Iterator, Mapping

from memr1_jax.data.nodes import Node, read_json, read_records
from memr1_jax.data.published import Edition, PublishedFile
from memr1_jax.data.types import Conversation, Question, Session, Turn

OPENER = "opener"
CLEANED = "cleaned"
MSC = PublishedFile(
    title="MSC-Self-Instruct",
    name="msc_self_instruct.jsonl",
    editions={
        "d3dbea36848b41dc46c0f1548d0ebf74eeaf6390d6f3fe9318e8480dc984495e": Edition(
            "official", {"conversations": 500, "questions": 500}
        )
    },
    home="published by MemGPT/MSC-Self-Instruct on Hugging Face",
    licence="Apache-2.0",
    url="https://huggingface.co/datasets/MemGPT/MSC-Self-Instruct/resolve/"
    "5138f416f8fa76b75b2e080da87e8a8e346e1500/msc_self_instruct.jsonl",
)
CLEANED_QUESTIONS = PublishedFile(
    title="the cleaned questions of MSC-Self-Instruct",
    name="msc_self_instruct_clean_qa_only.json",
    editions={
        "13470ab3722ccf231bdb84f87e5bea4824f39ddb965f3f65af86765c29db6a93": Edition(
            "from public results", {"questions": 500}
        )
    },
    home="drawn from the results in ahmedehabb/Memory-R2 on GitHub, which are published",
    licence="Apache-2.0",
    flag="--cleaned_path",
)
_SIDES = {"Speaker 1": 0, "Speaker 2": 1}


def load_msc(
    path: str | os.PathLike,
    cleaned: Mapping[int, Node] | None = None,
    last_session: bool = False,
) -> list[Conversation]:
    """Reads a file of MSC-Self-Instruct's dialogues, JSON lines or an array.

    The speakers are `Speaker_<i>_A` and `Speaker_<i>_B`, as the cleaned questions call them. Turns
    alternate, A first, unless they name their speaker. A session's time says how long before the
    question it took place. Personas and summaries, which hold the answers, are not read.

    Args:
      path: the dialogues.
      cleaned: the cleaned questions, from `read_cleaned`. Without them a record's own cleaned
        question (`qa`) is used where it has one, else the opener.
      last_session: whether the fifth session, from which the question starts, is read too. The
        Memory-R1 paper's evaluation leaves it out; Zep's reads it.

    Raises:
      UserError: a file is not of the schema; the message names the place.
    """
    conversations = []
    for index, record in enumerate(read_records(path)):
        if "previous_dialogs" not in record and "question" in record:
            raise record.error(
                "this is a question without a dialogue. The cleaned questions cannot be run alone: "
                f"name the dialogues with {MSC.flag} and these with {CLEANED_QUESTIONS.flag}. "
                f"{MSC.advice}"
            )
        if cleaned is not None and index not in cleaned:
            raise record.error(
                f"there is no cleaned question of index {index}. The questions belong to another "
                "edition of the dialogues."
            )
        question = None if cleaned is None else cleaned[index]
        conversations.append(_conversation(record, index, question, last_session))
    return conversations


def read_cleaned(path: str | os.PathLike) -> dict[int, Node]:
    """Reads the cleaned questions, nodes with `question` and `answer`, by record index.

    Raises:
      UserError: the file is not of the schema, or has two questions of one index.
    """
    cleaned: dict[int, Node] = {}
    for item in read_json(path).items():
        index = item["index"].of(int).value
        item.filled("question"), item.filled("answer", str, int, float)
        if index in cleaned:
            raise item.error(f"the index {index} stands there twice.")
        cleaned[index] = item
    return cleaned


def _conversation(
    record: Node, index: int, cleaned: Node | None, last_session: bool
) -> Conversation:
    speakers = tuple(
        record.text(key) if key in record else f"Speaker_{index}_{side}"
        for key, side in (("speaker_a", "A"), ("speaker_b", "B"))
    )
    dialogs = [(dialog["dialog"], _time(dialog)) for dialog in record["previous_dialogs"].items()]
    if last_session:
        dialogs.append((record["dialog"], ""))
    sessions = tuple(
        Session(number, time, tuple(_turns(dialog, number, speakers)))
        for number, (dialog, time) in enumerate(dialogs, start=1)
    )
    if cleaned is None and "qa" in record:
        cleaned = record["qa"]
    if cleaned is None:
        opener = record["self_instruct"]
        asked = opener.filled("B"), opener.filled("A", str, int, float)
    else:
        asked = cleaned.filled("question"), cleaned.filled("answer", str, int, float)
    kind = OPENER if cleaned is None else CLEANED
    question = Question(*asked, category=0, evidence=(), index=index, id=f"msc_{index}", kind=kind)
    return Conversation(f"msc_{index}", speakers, sessions, (question,), ())


def _time(dialog: Node) -> str:
    return dialog.text("time_back") if "time_back" in dialog else ""


def _turns(dialog: Node, number: int, speakers: tuple[str, str]) -> Iterator[Turn]:
    sides = _SIDES | {name: side for side, name in enumerate(speakers)}
    for place, turn in enumerate(dialog.items()):
        text, named = turn.text("text"), turn.value.get("id")
        side = sides.get(named, place % 2) if isinstance(named, str) else place % 2
        yield Turn(speakers[side], text, f"D{number}:{place + 1}")
