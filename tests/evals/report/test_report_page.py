"""The page of a run: what is in it, what is escaped, and how it behaves in a browser."""

import fcntl
import html
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from experiments import report
from memr1_jax.errors import UserError
from memr1_jax.evals.answering import Prediction, summarise
from memr1_jax.evals.evaluator import Evaluation
from memr1_jax.evals.report.replay import (
    Change,
    DialogueRecord,
    Memory,
    Operation,
    QuestionRecord,
    TurnRecord,
    write_replay,
)
from memr1_jax.evals.report.report import write_evaluation
from memr1_jax.evals.report.report_page import report_page, write_report_page
from memr1_jax.run.metrics_log import MetricsLog
from memr1_jax.run.run_folder import OutputConfig

ROOT = Path(__file__).parents[3]
EVIL = '</pre><script>document.title = "taken"</script>"\'&'
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)


def _turn(place, speaker, output, changes=(), size=0, **more):
    fields = {"said_by": "Ana", "time": "1 May", "text": f"Words {place}.", "facts": ("A fact.",)}
    return TurnRecord(
        **{"speaker": speaker, "turn": f"D1:{place}", "output": output} | fields | more,
        changes=tuple(changes),
        size=size,
    )


def _dialogues(trained):
    """Returns two dialogues; untrained, the manager writes something evil and changes nothing."""
    question = QuestionRecord(0, "Which pet?", "cat", 4, ("D1:1", "D1:3"), "a cat", "…", trained)
    if not trained:
        turns = [_turn(i, "Ana" if i % 2 else "Ben", EVIL, valid=False) for i in range(4)]
    else:
        turns = [
            _turn(0, "Ben", "{}"),
            _turn(1, "Ana", "{}", [Change("added", 0, None, "Ana has a dog.")], 1),
            _turn(2, "Ben", "{}", [Change("added", 0, None, "Ben <b>sings</b>.")], 1),
            _turn(
                *(3, "Ana", '{"op": "UPDATE"}'),
                [Change("changed", 0, "Ana has a dog.", "Ana has a cat.")],
                1,
                shown=(Memory(0, 0, "Ana has a dog."),),
                operations=(
                    Operation("UPDATE", 0, "Ana has a cat.", "applied", 0),
                    Operation("DELETE", 7, "", "unknown", None),
                ),
            ),
        ]
    turns[3] = TurnRecord(**vars(turns[3]) | {"questions": (0,)})
    first = DialogueRecord("first", ("Ana", "Ben"), 16, tuple(turns), (question,))
    one = _turn(0, "Ana", "{}", [Change("removed", 3, "Old.", None)], 0)
    return [first, DialogueRecord("second", ("Ana", "Ben"), 16, (one,), ())]


def _evaluation(right):
    scores = {"category": 4, "f1_set_of_words": 0.5, "exact_match": float(right)}
    predictions = [
        Prediction("first", i, "?", "cat", 4, "", "", "whole", 1, True, scores) for i in range(4)
    ]
    return Evaluation(summarise(predictions), predictions, {"turns": 5.0, "add": 2.0})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Returns a run folder with everything that the page reads."""
    folder = tmp_path_factory.mktemp("runs") / "a <run>"
    folder.mkdir()
    with MetricsLog(folder) as log:
        for agent in ("manager", "answer"):
            for step in range(1, 11):
                values = {"reward": step / 10, "loss": -0.1, "entropy": 2.0, "kl": 0.01}
                mix = {"add": 1.0, "update": 1.0, "delete": 0.5, "none": 0.5, "invalid": 0.1}
                values |= mix if agent == "manager" else {"labelled": 0.5}
                log.write(step, "train", agent, values | {"response_length": 9.0})
    for name, right in (("before", False), ("after", True)):
        write_evaluation(folder, name, _evaluation(right), "validation")
        write_replay(folder, name, _dialogues(right))
    (folder / "flags.txt").write_text(f"--algorithm=grpo\n--model={EVIL}\n--batch=8\n")
    return folder


class _Page(HTMLParser):
    """Elements with their attributes, and the text in each kind of them."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.texts, self._open = [], {}, []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "input", "br"):
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag, f"{tag} ends where it did not begin"

    def handle_data(self, data):
        if self._open:
            self.texts.setdefault(self._open[-1], []).append(data.strip())

    def all(self, tag, **attributes):
        return [
            found
            for name, found in self.elements
            if name == tag and attributes.items() <= found.items()
        ]

    def close(self):
        assert not self._open
        super().close()


@pytest.fixture(scope="module")
def page(folder):
    return _Page(report_page(folder))


def test_structure(page):
    page.close()
    assert [text for text in page.texts["h1"]] == ["a <run>"]
    assert page.texts["h2"] == [
        *("Training", "Evaluation on whole dialogues", "Replay of the banks"),
        "Options and files",
    ]
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(below <= above + 1 for above, below in zip(levels, levels[1:], strict=False))
    names = [found["id"] for _, found in page.elements if "id" in found]
    assert len(names) == len(set(names))
    links = [found["href"] for found in page.all("a")]
    assert {link[1:] for link in links if link.startswith("#")} <= set(names)
    assert page.all("html", lang="en")


def test_charts_have_a_description_and_their_numbers(page):
    pictures = page.all("svg")
    described = [picture["aria-label"] for picture in pictures]
    assert len(pictures) == len(page.all("figure")) == 13
    assert sum(text.startswith("Reward in mean per response, steps 1 to 10") for text in described)
    assert "each step from 0.15 to 0.95" in next(d for d in described if d.startswith("Reward"))
    data = json.loads(page.all("figure")[0]["data-chart"])
    assert data["lines"][0]["values"] == [step / 10 for step in range(1, 11)]
    assert len(page.all("path", **{"class": "area tone-delete"})) == 1


def test_the_evaluation_and_its_intervals(folder):
    text = re.sub(r"\s+", " ", re.sub("<[^>]*>", " ", report_page(folder)))
    assert "single-hop 4 50.0 → 50.0 +0.00 [+0.00, +0.00] 0.0 → 100.0 +100.00" in text
    assert "turns with new facts 5 5" in text
    assert "Whole dialogues, exact match 0.0 → 100.0 %" in text


def test_the_replay_without_a_script(page):
    turns = page.all("article")
    assert [turn["id"] for turn in turns] == [f"turn-0-{i}" for i in range(4)] + ["turn-1-0"]
    assert [turn["data-changed"] for turn in turns] == ["0", "1", "1", "1", "1"]
    assert [turn["data-asked"] for turn in turns] == ["0", "0", "0", "1", "0"]
    assert page.texts["pre"].count(EVIL) == 4
    assert "Ana has a cat." in page.texts["ins"] and "Ana has a dog." in page.texts["del"]
    assert "Ben <b>sings</b>." in page.texts["ins"]
    assert page.texts["span"].count("refused: no such memory was shown") == 1
    assert page.texts["p"].count("This could not be read: no operation.") == 4
    assert page.texts["span"].count("✓ right") == page.texts["span"].count("✗ wrong") == 1
    assert page.all("div", **{"class": "controls", "hidden": None})


def test_nothing_of_a_model_becomes_markup(folder, page):
    scripts = page.all("script")
    assert len(scripts) == 1
    assert "<script>document.title" not in report_page(folder)
    assert html.escape("<script>document.title", quote=False) in report_page(folder)
    assert page.texts["dd"][1] == EVIL


def test_nothing_is_loaded(folder):
    text = report_page(folder)
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", text)
    assert "url(" not in text and "@import" not in text
    (policy,) = _Page(text).all("meta", **{"http-equiv": "Content-Security-Policy"})
    assert policy["content"].startswith("default-src 'none'; style-src 'sha256-")
    assert len(text) < 200_000


def test_a_folder_with_little_in_it(tmp_path):
    with pytest.raises(UserError, match="nothing to report in"):
        write_report_page(tmp_path)
    write_evaluation(tmp_path, "test", _evaluation(True), "test")
    path = write_report_page(tmp_path)
    assert path == tmp_path / "report.html"
    page = _Page(path.read_text(encoding="utf-8"))
    assert page.texts["h2"] == ["Evaluation on whole dialogues", "Options and files"]


def test_command_line(folder, tmp_path):
    command = [sys.executable, "-m", "experiments.report", f"--output={tmp_path / 'absent'}"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr.startswith("Error: There is nothing to report in")
    result = subprocess.run(
        [*command[:-1], f"--output={folder}"], cwd=ROOT, capture_output=True, text=True
    )
    assert result.stdout == f"Open {folder / 'report.html'}\n", result.stderr
    assert (folder / "report.html").read_text(encoding="utf-8") == report_page(folder)


def test_a_run_at_work_is_shown_as_far_as_it_has_come(tmp_path, capsys):
    with MetricsLog(tmp_path) as log, open(tmp_path / "run.lock", "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        log.write(1, "train", "answer", {"reward": 0.25, "seconds": 1.0})
        report.main(OutputConfig(output=str(tmp_path)))
    assert "report.html" in capsys.readouterr().out
    assert "0.25" in (tmp_path / "report.html").read_text(encoding="utf-8")


DRIVER = """<script>
const seen = [];
const look = () => {
  const turn = document.querySelector(".turn.current");
  const version = turn && [...turn.querySelectorAll(".version")].at(-1);
  seen.push([
    turn && turn.id,
    document.querySelector(".position").textContent,
    version && [...version.querySelectorAll(".bank li")].map((item) => item.textContent),
    [...document.querySelectorAll(".turn")].filter((one) => one.offsetParent).length,
  ]);
};
const press = (key) =>
  document.body.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
const next = document.querySelector("[data-step='1']");
const filter = document.querySelector("[data-filter=changed]");
look();
next.click(); look();
press("ArrowRight"); press("ArrowRight"); look();
next.click(); look();
press("ArrowLeft"); press("ArrowLeft"); press("ArrowLeft"); look();
filter.click(); look();
const picker = document.querySelector("select");
picker.value = "1"; picker.dispatchEvent(new Event("change")); look();
document.querySelector("#dialogue-1 .strip a").click(); look();
const picture = document.querySelector(".chart svg"), box = picture.getBoundingClientRect();
picture.dispatchEvent(new PointerEvent("pointermove", { clientX: box.right - 1 }));
seen.push(document.querySelector(".readout").textContent);
const result = document.createElement("pre");
result.id = "seen";
result.textContent = JSON.stringify(seen);
document.body.append(result);
</script>"""


def _in_chromium(path, profile):
    flags = (
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    )
    command = [CHROMIUM, *flags, f"--user-data-dir={profile}", "--dump-dom", path.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120).stdout


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_stepping_in_a_browser(folder, tmp_path):
    text = report_page(folder)
    (tmp_path / "page.html").write_text(text, encoding="utf-8")
    shown = _in_chromium(tmp_path / "page.html", tmp_path / "profile")
    # The page's own script ran under its policy; the one in a model's output did not.
    assert '<section id="replay" class="stepping">' in shown
    assert "<title>a &lt;run&gt; – memr1_jax</title>" in shown

    # The driver is a script that the policy forbids.
    driven = re.sub("<meta http-equiv[^>]*>", "", text).replace("</body>", DRIVER + "</body>")
    (tmp_path / "driven.html").write_text(driven, encoding="utf-8")
    shown = _in_chromium(tmp_path / "driven.html", tmp_path / "profile")
    *seen, readout = json.loads(html.unescape(re.search('<pre id="seen">(.*?)</pre>', shown)[1]))
    assert seen == [
        ["turn-0-0", "Turn 1 of 4", [], 1],
        ["turn-0-1", "Turn 2 of 4", ["Ana has a dog."], 1],
        ["turn-0-3", "Turn 4 of 4", ["Ana has a cat."], 1],
        ["turn-0-3", "Turn 4 of 4", ["Ana has a cat."], 1],  # there is no next one
        ["turn-0-0", "Turn 1 of 4", [], 1],
        ["turn-0-1", "Turn 1 of 3", ["Ana has a dog."], 1],  # the first that changed something
        ["turn-1-0", "Turn 1 of 1", [], 1],
        ["turn-1-0", "Turn 1 of 1", [], 1],
    ]
    assert readout == "step 10: each step 1, mean of 3 steps 0.9"
