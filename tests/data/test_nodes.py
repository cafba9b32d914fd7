import json
import re

import pytest

from memr1_jax.data import nodes
from memr1_jax.data.nodes import Node, read_array, read_json, read_lines, read_records
from memr1_jax.errors import UserError


def test_complaints_name_the_place():
    node = Node({"a": [{"b": "x", "n": 3, "flag": True}]}, "f.json")
    item = node["a"][0]
    assert (item.text("b"), item.written("n"), item["flag"].of(bool).value) == ("x", "3", True)
    assert "b" in item and "c" not in item
    for wrong, complaint in {
        lambda: item["c"]: "f.json, a, 0, c: this is missing.",
        lambda: node["a"][1]: "f.json, a, 1: this is missing.",
        lambda: item.text("n"): "f.json, a, 0, n: expected str but found int.",
        lambda: item.written("flag"): "n: expected str or int or float but found bool.",
        lambda: item.items(): "f.json, a, 0: expected list but found dict.",
        lambda: "a" in node["a"]: "f.json, a: expected dict but found list.",
    }.items():
        with pytest.raises(UserError, match=re.escape(complaint).replace("n:", ".*:")):
            wrong()


ELEMENTS = [{"text": "a, ] [ b" * 9, "n": [1, [2]]}, 12345, "é\n", [], None, 7.25, {"x": {}}]


@pytest.mark.parametrize("chunk", [1, 2, 7, 64, 1 << 20])
@pytest.mark.parametrize("indent", [None, 3])
def test_an_array_is_read_element_by_element(write, monkeypatch, chunk, indent):
    monkeypatch.setattr(nodes, "_CHUNK", chunk)
    path = write(json.dumps(ELEMENTS, indent=indent, ensure_ascii=False) + "\n")
    found = list(read_array(path))
    assert [node.value for node in found] == ELEMENTS
    assert [node.place for node in found] == [f"{path}, {index}" for index in range(len(ELEMENTS))]
    assert list(read_array(write("[ ]", "empty.json"))) == []


@pytest.mark.parametrize("chunk", [1, 3, 1 << 20])
@pytest.mark.parametrize(
    "text", ["", "{}", "[1", "[1, 2", "[1] [2]", "[]\n[]", '[{"a": 1}, {"b"', "[x]", '["a", "b']
)
def test_broken_arrays_are_refused_by_name(write, monkeypatch, chunk, text):
    monkeypatch.setattr(nodes, "_CHUNK", chunk)
    path = write(text)
    with pytest.raises(UserError, match=re.escape(str(path))):
        list(read_array(path))


def test_an_array_is_not_held_as_a_whole(write, monkeypatch):
    monkeypatch.setattr(nodes, "_CHUNK", 8)
    path = write('[[1], [2], [3], ["' + "x" * 200 + '", broken')
    elements = read_array(path)
    assert [next(elements).value for _ in range(3)] == [[1], [2], [3]]
    with pytest.raises(UserError, match="not valid JSON"):
        next(elements)


def test_lines_keep_their_numbers(write):
    path = write('{"a": 1}\n\n  \n{"b": 2}\n{"c"\n')
    lines = read_lines(path)
    assert [(node.value, node.place) for node in (next(lines), next(lines))] == [
        ({"a": 1}, f"{path}, line 1"),
        ({"b": 2}, f"{path}, line 4"),
    ]
    with pytest.raises(UserError, match="line 5: this is not valid JSON"):
        next(lines)


def test_records_come_from_arrays_and_from_lines(write):
    for text in ("\n [1, 2]", "1\n2\n", "\ufeff1\n2"):
        assert [node.value for node in read_records(write(text))] == [1, 2]
    assert list(read_records(write("\n"))) == []


@pytest.mark.parametrize("read", [read_json, read_lines, read_array])
def test_files_that_are_no_text_or_not_there_are_refused(tmp_path, read):
    path = tmp_path / "data.json"
    with pytest.raises(UserError, match="cannot be read"):
        list([read(path)] if read is read_json else read(path))
    path.write_bytes(b'["\xff\xfe"]')
    with pytest.raises(UserError, match="data.json.* not text in UTF-8"):
        list([read(path)] if read is read_json else read(path))
