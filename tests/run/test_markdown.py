"""Tables in Markdown: their form, and cells that would break it."""

import re

import pytest

from memr1_jax.run.markdown import markdown_table


def test_labels_to_the_left_and_figures_to_the_right():
    text = markdown_table(("a", "b", "c"), [("x", "y", 1)], labels=2, title="Title")
    assert text == "Title\n\n| a | b | c |\n| --- | --- | ---: |\n| x | y | 1 |"
    assert markdown_table(("a",), []) == "| a |\n| --- |"


@pytest.mark.parametrize(
    ("cell", "written"),
    [
        ("a|b", r"a\|b"),
        ("two\nlines\r\nand\u2028three", "two lines and three"),
        (r"a\|b", r"a\\\|b"),  # the backslash is escaped too: else it would free the pipe
        ("ends in \\", "ends in \\"),
        ("", ""),
    ],
)
def test_a_cell_stays_one_cell(cell, written):
    for text in (markdown_table(("a", "b"), [(cell, 1)]), markdown_table((cell, "b"), [])):
        assert f"| {written} | " in text
        assert all(len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) == 3 for line in text.splitlines())
