import json
import re

import pytest

from memr1_jax.errors import UserError
from memr1_jax.run.files import write_text_atomic
from memr1_jax.run.json_files import (
    json_line,
    loads,
    parse_json,
    read_json,
    read_json_lines,
    read_json_object,
    write_json_lines,
)

# Everything that str.splitlines takes for the end of a line.
LINE_ENDS = "a\x0bb\x0cc\x1cd\x1de\x1ef\x85g\u2028h\u2029i\rj\nk"

FAULTS = {
    "[" * 100_000: "nested too deeply",
    '{"a":' * 100_000: "nested too deeply",
    "[NaN]": "NaN is no number of JSON",
    "[-Infinity]": "-Infinity is no number",
    "[1e999]": "the number 1e999 is out of range",
    "9" * 5000: "a number has 5000 digits",
    '{"a": 1, "b": 2, "a": 3}': "the field 'a' stands there twice",
    "": "Expecting value",
    "{": "Expecting property name",
    "[1] 2": "Extra data",
}


@pytest.mark.parametrize(("text", "reason"), FAULTS.items(), ids=list(FAULTS.values()))
def test_every_fault_is_a_sentence_with_its_place(tmp_path, text, reason):
    with pytest.raises(ValueError, match=re.escape(reason)):
        loads(text)
    with pytest.raises(UserError, match=f"^there: this is not valid JSON: .*{re.escape(reason)}"):
        parse_json(text, "there")
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(UserError, match=rf"a\.json: .*{re.escape(reason)}.* Fetch it again\.$"):
        read_json(path, "Fetch it again.")
    if text:
        path.write_text("1\n\n" + text)
        with pytest.raises(UserError, match=rf"a\.json, line 3: .*{re.escape(reason)}"):
            list(read_json_lines(path))


def test_text_that_is_not_utf8_is_refused_with_its_line(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'"a"\n"b\xff"\n')
    with pytest.raises(UserError, match=r"line 2: .*it is not text in UTF-8"):
        list(read_json_lines(path))
    with pytest.raises(UserError, match="it is not text in UTF-8"):
        read_json(path)
    with pytest.raises(UserError, match=r"nowhere cannot be read \(No such file"):
        read_json(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"nowhere cannot be read \(No such file"):
        list(read_json_lines(tmp_path / "nowhere"))


def test_a_byte_order_mark_and_windows_line_ends_are_no_fault(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\r\n{"b": 2}')
    assert list(read_json_lines(path)) == [
        (f"{path}, line 1", {"a": 1}),
        (f"{path}, line 3", {"b": 2}),
    ]
    assert loads('\ufeff"x"') == "x"


def test_a_line_ends_at_the_line_feed_alone(tmp_path):
    path = tmp_path / "a.jsonl"
    values = [{"text": LINE_ENDS}, {LINE_ENDS: 1}, "last"]
    write_json_lines(path, values)
    assert [value for _, value in read_json_lines(path)] == values
    assert len(path.read_text(encoding="utf-8").splitlines()) == 3  # other programs read it, too
    # As earlier versions wrote them.
    raw = [json.dumps(value, ensure_ascii=False) for value in values]
    path.write_text("\n".join(raw), encoding="utf-8")
    assert [value for _, value in read_json_lines(path)] == values


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (r'"\ud83d"', "\ufffd"),
        (r'"\uDE00 x"', "\ufffd x"),
        (r'"\ud83d\ud83d\ude00"', "\ufffd\U0001f600"),
        (r'"\ud83d\ude00"', "\U0001f600"),
        (r'"\\ud83d"', r"\ud83d"),
        (r'"\\\ud83d"', "\\\ufffd"),
        (r'{"\udfff": ["\ud800"]}', {"\ufffd": ["\ufffd"]}),
    ],
)
def test_half_surrogates_become_the_replacement_character(tmp_path, written, read):
    assert loads(written) == read
    write_json_lines(tmp_path / "a.jsonl", [json.loads(written)] * 2)
    assert [value for _, value in read_json_lines(tmp_path / "a.jsonl")] == [read] * 2


def test_half_surrogates_are_told_once_a_file(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('"fine"\n' + '"\\ud83d"\n' * 3)
    with pytest.warns(UserWarning) as caught:
        assert len(list(read_json_lines(path))) == 4
    assert [str(w.message).removeprefix(str(path)) for w in caught] == [
        ", line 2: half of a surrogate pair, which is no character, is read as U+FFFD;"
        " so are later ones."
    ]


def test_an_object_is_an_object(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"a": 1}')
    assert read_json_object(path) == {"a": 1}
    for text in ("[]", "null", '"a"', "1"):
        path.write_text(text)
        with pytest.raises(UserError, match=r"a\.json: expected an object in braces\. Remove it\."):
            read_json_object(path, "Remove it.")


def test_written_text_may_hold_half_surrogates(tmp_path):
    write_text_atomic(tmp_path / "a.md", "x \ud83d y \ud83d\ude00")
    assert (tmp_path / "a.md").read_text(encoding="utf-8") == "x \ufffd y \U0001f600"
    assert json_line("\ud83d") == '"\ufffd"\n'


def test_numbers_that_json_lacks_are_not_written(tmp_path):
    with pytest.raises(ValueError):
        write_json_lines(tmp_path / "a.jsonl", [float("nan")])
    assert not list(tmp_path.iterdir())
