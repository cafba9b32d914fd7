import io

import pytest
from rich.console import Console

from memr1_jax.run import progress


@pytest.fixture
def clock(monkeypatch):
    """Returns a clock that moves only when the test moves it."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def _file():
    return Console(file=io.StringIO(), force_terminal=False)


def test_a_file_gets_plain_lines_now_and_then(clock):
    console = _file()
    with progress.progress_bar(10, "answer agent", seconds=5, console=console) as bar:
        for step in range(1, 11):
            bar.update(step, reward=0.25, loss=-0.0123456, tokens_per_second=12345.6)
            clock[0] += 2.0
    lines = console.file.getvalue().splitlines()
    assert lines == [
        "answer agent  1/10  reward 0.250  loss -0.01235  12,346 tokens/s",
        "answer agent  4/10  reward 0.250  loss -0.01235  12,346 tokens/s  0:12 left",
        "answer agent  7/10  reward 0.250  loss -0.01235  12,346 tokens/s  0:06 left",
        "answer agent  10/10  reward 0.250  loss -0.01235  12,346 tokens/s",
    ]


def test_the_pace_leaves_out_the_first_step_and_what_was_done_before(clock):
    console = _file()
    with progress.progress_bar(100, "train", start=40, seconds=0, console=console) as bar:
        clock[0] += 1000.0  # compilation
        bar.update(41)
        clock[0] += 60.0
        bar.update(42)
    assert console.file.getvalue().splitlines() == ["train  41/100", "train  42/100  58:00 left"]


def test_another_thing_has_another_pace(clock):
    console = _file()
    with progress.progress_bar(3, "reading", seconds=0, console=console) as bar:
        bar.update(1)
        clock[0] += 60.0
        bar.update(2)
        bar.describe("answering")
        bar.resize(5)
        bar.update(1)
        clock[0] += 2.0
        bar.update(2)
    assert console.file.getvalue().splitlines() == [
        "reading  1/3",
        "reading  2/3  1:00 left",
        "answering  1/5",
        "answering  2/5  0:06 left",
    ]


def test_a_terminal_gets_a_bar(clock):
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with progress.progress_bar(4, "manager", console=console) as bar:
        bar.update(1, reward=0.5)
        clock[0] += 3600.0
        bar.update(2, reward=0.75, tokens_per_second=99)
    output = console.file.getvalue()
    assert "\x1b[" in output and "━" in output
    assert "manager" in output and "2/4  reward 0.750  99 tokens/s  2:00:00 left" in output


def test_the_bar_ends_when_the_loop_fails():
    console = Console(file=io.StringIO(), force_terminal=True)
    with pytest.raises(KeyError), progress.progress_bar(4, "train", console=console) as bar:
        bar.update(1)
        raise KeyError
    assert console.file.getvalue().endswith("\x1b[?25h")  # the cursor is visible again


def test_table_in_a_file_keeps_long_cells_and_aligns_numbers():
    console = _file()
    name = "a very long name [with brackets] " * 5
    rows = [[name, 1, 0.123456], ["short", 20, 3.0]]
    progress.table("Scores", ["model", "steps", "F1"], rows, console=console)
    output = console.file.getvalue()
    assert "Scores" in output and name.strip() in output and "\x1b" not in output
    assert "│     1 │ 0.1235 │" in output and "│    20 │      3 │" in output


def test_an_empty_table_has_its_heading():
    console = _file()
    progress.table("Nothing", ["model", "F1"], [], console=console)
    assert "model" in console.file.getvalue()
