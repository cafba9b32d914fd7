"""The inspector page in a browser: add, see, undo, see; the past; hostile texts; the key."""

import os

import pytest
from scripted_agents import ScriptedAgents
from service.browser import chromium
from service.live import live

from memr1_jax.service.memory import Memory
from memr1_jax.service.server import create_app

HOSTILE = "name is <img src=x onerror=alert(1)><script>document.title=1</script>"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture
def memory(tmp_path):
    with Memory(ScriptedAgents(), db=tmp_path / "m.db") as opened:
        yield opened


def texts(selector):
    return f"[...document.querySelectorAll('{selector}')].map((e) => e.innerText).join('|')"


def move(page, place):
    slider = "document.querySelector('#moment')"
    page.run(f"{slider}.value = {place}, {slider}.dispatchEvent(new Event('input'))")


def say(page, text):
    page.type("#text", text)
    page.click("#add button")
    page.until(f"document.querySelector('#status').innerText.includes({text!r})")


def test_add_see_undo_see(page, memory):
    with live(create_app(memory)) as address:
        page.errors.clear()
        page.open(address)
        page.type("#user", "ana")
        page.click("#open button")
        say(page, "city is Oslo")
        assert "city is Oslo" in page.run(texts("#memories li"))
        assert "user: city is Oslo" in page.run(texts("#timeline blockquote"))
        assert "ADD city is Oslo" in page.run("document.querySelector('#status').innerText")
        say(page, "city is Rome")
        assert page.run(texts("#timeline > li:first-child del")) == "city is Oslo"
        assert page.run(texts("#timeline > li:first-child ins")) == "city is Rome"
        assert page.run(texts("#banks button")) == "ana 1"

        # The past: the slider's first place is before the update.
        move(page, 0)
        page.until(f"{texts('#memories li')}.startsWith('city is Oslo')")
        page.click("#diff")
        assert page.until(texts("#changes")) == "city is Oslo → city is Rome"
        move(page, 9)
        page.until(f"{texts('#memories li')}.startsWith('city is Rome')")

        page.click("#timeline > li:first-child li button")
        page.until("document.querySelector('#status').innerText == 'Undone: 1.'")
        assert page.run(texts("#memories li")).startswith("city is Oslo")
        assert "UNDO" in page.run(texts("#timeline > li:first-child"))

        say(page, "pet is Rex")
        assert page.run("document.querySelector('#when').innerText") == "now"
        page.type("#query", "pet")
        page.click("#search button")
        page.until("document.querySelector('#count').innerText == '1 found'")
        if folder := os.environ.get("MEMR1_PICTURES"):
            page.picture(f"{folder}/inspector.png")

        page.run("document.querySelector('#query').value = ''")
        say(page, HOSTILE)
        assert HOSTILE in page.run(texts("#timeline blockquote"))
        assert page.run("document.querySelectorAll('img').length") == 0
        assert page.run("document.title").startswith("Memories")
        assert not page.errors
        assert all(url.startswith((address, "about:", "data:")) for url in page.requests)


def test_the_key_is_asked_for(page, memory):
    with live(create_app(memory, key="secret")) as address:
        page.open(address)
        page.until("document.querySelector('#unlock').hidden === false")
        page.type("#key", "wrong")
        page.click("#unlock button")
        page.until("document.querySelector('#status').innerText.includes('API key')")
        page.run("document.querySelector('#key').value = ''")
        page.type("#key", "secret")
        page.click("#unlock button")
        page.until("document.querySelector('#unlock').hidden")
