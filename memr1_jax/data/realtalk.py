"""REALTALK (arXiv 2502.13270): three weeks of messages between two people, in LoCoMo's manner.

Files `Chat_<n>_<one>_<other>.json` of danny911kr/REALTALK on GitHub. They differ from LoCoMo's in
that sessions stand at the top, turns have a time of their own and `clean_text`, and nothing names
the conversation. The form was taken from public readers of the files, and not tried on them:

    {"session_1": [{"speaker", "clean_text" or "text", "dia_id", "date_time", "blip_caption"?}],
     "session_1_date_time": str, "qa": [{"question", "answer", "category": 1-3, "evidence": [id]}]}

Categories are 1 multi-hop, 2 temporal and 3 commonsense, which takes the place of open-domain.
"""

from pathlib import Path

from memr1_jax.data.locomo import conversation_of
from memr1_jax.data.nodes import Node, read_json
from memr1_jax.data.published_sets import PublishedSet, files_in
from memr1_jax.data.types import Conversation

REALTALK = PublishedSet(
    title="REALTALK",
    name="the folder data with Chat_*.json",
    home="danny911kr/REALTALK on GitHub",
    licence="see there",
    counts={"conversations": 10, "questions": 728},
)


def load_realtalk(path: Path) -> tuple[list[Conversation], list[Path]]:
    """Reads one chat, or all of a folder."""
    files = files_in(path, "Chat_*.json", REALTALK)
    return [conversation_of(_as_locomo(file.stem, read_json(file))) for file in files], files


def _as_locomo(name: str, chat: Node) -> Node:
    """Returns a chat as a record of LoCoMo's."""
    chat = chat.of(dict)
    conversation, speakers = {}, {}
    for key in chat.value:
        if not key.startswith("session_"):
            continue
        if not isinstance(chat.value[key], list):
            conversation[key] = chat.text(key)
            continue
        conversation[key] = []
        for item in chat[key].items():
            text = item.text("clean_text" if "clean_text" in item else "text")
            speakers.setdefault(item.text("speaker"))
            # A picture without words is a turn too; LoCoMo's text is never empty.
            turn = {"text": text.strip() or "(a picture)", "time": item.value.get("date_time", "")}
            conversation[key].append(item.value | turn)
    if len(speakers) != 2:
        raise chat.error(f"expected two speakers but found {', '.join(speakers) or 'none'}.")
    first, second = speakers
    named = {"speaker_a": first, "speaker_b": second}
    asked = [_asked(item) for item in chat["qa"].items()]
    record = {"sample_id": name, "conversation": named | conversation, "qa": asked}
    return Node(record, chat.place)


def _asked(item: Node) -> dict:
    record = item.of(dict).value
    return record | ({"kind": "commonsense"} if record.get("category") == 3 else {})
