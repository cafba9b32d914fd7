"""Readers of other programs' chats, each on a file made by hand."""

import json
import re

import pytest

from memr1_jax.data.chats.formats import FORMATS, read_chats
from memr1_jax.data.own_dialogues import load_own_dialogues
from memr1_jax.errors import UserError


@pytest.fixture
def read(tmp_path):
    """Writes a file and reads the chats in it as (id, [(speaker, text, time), ...])."""

    def _read(content, name="chats.json"):
        path = tmp_path / name
        text = content if isinstance(content, str) else json.dumps(content)
        path.write_text(text, encoding="utf-8")
        return [
            (chat.id, [(said.speaker, said.text, said.time) for said in chat.messages])
            for chat in read_chats(path)
        ]

    return _read


def message(role, content, **more):
    return {"role": role, "content": content, **more}


SAID = [message("user", "I sail."), message("assistant", "Nice!")]
PAIR = [("user", "I sail.", ""), ("assistant", "Nice!", "")]


@pytest.mark.parametrize(
    "content",
    [
        SAID,
        {"messages": SAID},
        json.dumps({"messages": SAID}, indent=1),
        "\n".join(map(json.dumps, SAID)),
        json.dumps({"messages": SAID, "id": "chat-1"}) + "\n",
    ],
)
def test_messages_of_the_openai_form(read, content):
    assert read(content) == [("chat-1", PAIR)]


def test_messages_may_have_names_times_parts_and_tools(read):
    with pytest.warns(UserWarning, match="system and tool.*: 2.*without text.*: 1"):
        (chat,) = read(
            [
                message("system", "Be brief."),
                message(
                    "user",
                    [{"type": "text", "text": "I sail."}, {"type": "image_url", "image_url": {}}],
                    name="Kim",
                    timestamp=1683554160,
                ),
                message("assistant", None, tool_calls=[{}]),
                message("tool", "42"),
                message("human", "Bye", created_at="2023-05-08T16:00:00+02:00"),
            ]
        )
    assert chat[1] == [
        ("Kim", "I sail.", "2023-05-08T13:56:00"),
        ("user", "Bye", "2023-05-08T14:00:00"),
    ]


def test_sharegpt(read):
    turns = [{"from": "human", "value": "I sail."}, {"from": "gpt", "value": "Nice!"}]
    assert read([{"id": "a", "conversations": turns}, {"conversations": turns}]) == [
        ("a", PAIR),
        ("chat-2", PAIR),
    ]


def node(parent, role, text, **more):
    made = {"author": {"role": role}, "create_time": 1683554160.5, "recipient": "all", **more}
    made.setdefault("content", {"content_type": "text", "parts": [text]})
    return {"parent": parent, "message": made}


def tree():
    return {
        "root": {"parent": None, "message": None},
        "s": node("root", "system", ""),
        "q": node("s", "user", "I sail."),
        "a1": node("q", "assistant", "What?"),
        "t": node("q", "assistant", "", content={"content_type": "code", "text": "1 + 1"}),
        "a2": node("t", "assistant", "Nice!"),
        "p": node(
            "a2",
            "user",
            "",
            content={"content_type": "multimodal_text", "parts": [{"asset_pointer": "x"}, "See?"]},
        ),
        "late": node("a1", "user", "Another branch."),
    }


def test_chatgpts_current_branch(read):
    with pytest.warns(UserWarning, match="system and tool"):
        found = read([{"conversation_id": "c", "current_node": "p", "mapping": tree()}])
    time = "2023-05-08T13:56:00"
    texts = [("user", "I sail.", time), ("assistant", "Nice!", time), ("user", "See?", time)]
    assert found == [("c", texts)]


@pytest.mark.parametrize("leaf, complaint", [("none", "no node 'none'"), ("q", "own ancestor")])
def test_a_broken_tree_is_refused(read, leaf, complaint):
    mapping = tree()
    mapping["s"]["parent"] = "q"
    with pytest.raises(UserError, match=f"chats.json, 0, mapping.*{complaint}"):
        read([{"mapping": mapping, "current_node": leaf}])


def telegram(number, text, **more):
    date = {"date": "2023-05-08T15:56:00", "date_unixtime": "1683554160"}
    return {"id": number, "type": "message", "from": "Kim", "text": text, **date, **more}


def test_telegram(read):
    chat = {
        "name": "Lou",
        "type": "personal_chat",
        "id": 7,
        "messages": [
            {"id": 1, "type": "service", "action": "phone_call", "text": ""},
            telegram(2, ["I ", {"type": "bold", "text": "sail"}, "."]),
            telegram(3, "", media_type="sticker"),
            telegram(4, "Bye", **{"from": None}),
        ],
    }
    time = "2023-05-08T13:56:00"
    expected = ("Lou 7", [("Kim", "I sail.", time), ("Deleted account", "Bye", time)])
    with pytest.warns(UserWarning, match="without text.*: 1"):
        assert read(chat) == [expected]
    with pytest.warns(UserWarning):
        assert read({"chats": {"list": [chat, chat | {"id": 8}]}})[1][0] == "Lou 8"


_LINES = {
    "[08.05.23, 13:56:07] ": "2023-05-08T13:56:07",
    "\u200e[5/18/23, 1:56:07\u202fPM] ": "2023-05-18T13:56:07",
    "5/18/23, 12:56 AM - ": "2023-05-18T00:56:00",
    "18/05/2023, 13:56 - ": "2023-05-18T13:56:00",
    "18/05/2023 13:56 - ": "2023-05-18T13:56:00",
    "2023-05-08, 13:56 - ": "2023-05-08T13:56:00",
    "2023/05/08 13:56 - ": "2023-05-08T13:56:00",
    "8/5/2023, 1:56\xa0p.\xa0m. - ": "2023-05-08T13:56:00",
    "18-05-2023 13.56 - ": "2023-05-18T13:56:00",
}


@pytest.mark.parametrize("head, time", _LINES.items())
def test_whatsapp_in_common_date_formats(read, head, time):
    if head.startswith("8/5"):  # nothing but a later message tells day from month
        more, last = (
            "13/5/2023, 9:00\xa0a.\xa0m. - Lou: Yes\n",
            [("Lou", "Yes", "2023-05-13T09:00:00")],
        )
    else:
        more, last = "", []
    said = read(f"{head}Kim: I sail: far\n\nand wide\n{more}", "chat.txt")
    assert said == [("whatsapp", [("Kim", "I sail: far\n\nand wide", time), *last])]


def test_whatsapp_leaves_out_notices_and_pictures(read):
    text = """08/05/23, 13:56 - Messages and calls are end-to-end encrypted.
08/05/23, 13:57 - Kim: <Media omitted>
08/05/23, 13:58 - Kim: \u200eimage omitted
08/05/23, 13:59 - Kim: Hi <This message was edited>
09/05/23, 13:59 - Lou: Hi!
"""
    with pytest.warns(UserWarning, match="day is taken to be first.*without text.*: 2"):
        ((_, said),) = read(text, "chat.txt")
    assert said == [("Kim", "Hi", "2023-05-08T13:59:00"), ("Lou", "Hi!", "2023-05-09T13:59:00")]


def test_whatsapps_days_are_told_from_months_by_their_order(read):
    lines = [f"0{month}/0{day}/23, 10:00 - Kim: x" for month, day in ((1, 9), (2, 8), (3, 7))]
    ((_, said),) = read("\n".join(lines), "chat.txt")
    assert [time[:10] for *_, time in said] == ["2023-01-09", "2023-02-08", "2023-03-07"]


def test_memorybank(read):
    history = {"2023-05-08": [{"query": "I sail.", "response": "Nice!"}]}
    time = "2023-05-08T00:00:00"
    said = [("Kim", "I sail.", time), ("assistant", "Nice!", time)]
    people = {
        "Kim": {"name": "Kim", "summary": {}, "history": history},
        "Lou": {"history": history},
    }
    kim, lou = read(json.dumps(people, indent=2))
    assert kim == ("Kim", said) and lou[1][0][0] == "Lou"


def test_all_of_them_are_own_dialogues_too(tmp_path):
    path = tmp_path / "chats.json"
    chats = [
        {"id": "a", "messages": SAID},
        {"id": "b", "messages": [*SAID, message("user", "Me too", name="Lou")]},
        {"id": "c", "messages": SAID[:1]},
    ]
    path.write_text(json.dumps(chats))
    with pytest.warns(UserWarning, match="not of two people.*: 1 .*'b'"):
        first, second = load_own_dialogues(path)
    assert (first.id, first.speakers, first.owners) == ("a", ("user", "assistant"), ("user",))
    assert second.speakers == ("user", "assistant") and len(second.turns) == 1
    path.write_text("2023-05-08, 13:56 - Kim: Hi\n2023-05-09, 13:56 - Lou: Hi!\n")
    (talk,) = load_own_dialogues(path)
    assert talk.speakers == ("Kim", "Lou") and not talk.one_bank
    assert [session.time for session in talk.sessions] == [
        "2023-05-08T13:56:00",
        "2023-05-09T13:56:00",
    ]


def test_where_none_fits_the_formats_are_named(tmp_path):
    path = tmp_path / "x.json"
    path.write_text('{"dialog": ["Hi"]}')
    assert read_chats(path) is None
    with pytest.raises(UserError, match=re.escape(FORMATS)):
        load_own_dialogues(path)
    path.write_text("")
    assert read_chats(path) is None
