"""A key that a server sends back in another spelling is blotted out as well."""

import base64
import html
import json
import random
import string
import urllib.parse

import pytest

from memr1_jax.bench.judge.secret import BLOT, blotter

KEYS = ["sk-test-7f3a9c51d2e84b60", "sk/proj+aB3_xY&9<q>=\"7'%z\\w", "ABCDEFGH"]


def _spellings(key):
    data = key.encode()
    url = urllib.parse.quote(key, safe="")
    yield from (key, key.upper(), key.lower(), key.swapcase(), url, url.lower())
    yield from (
        urllib.parse.quote(key),
        urllib.parse.quote_plus(url),
        urllib.parse.quote(url + url),
    )
    yield "".join(f"%{byte:02X}" for byte in data)
    yield "".join(f"\\u{byte:04x}" for byte in data)
    yield "".join(f"&#{byte};" for byte in data)
    yield from (json.dumps(key)[1:-1], json.dumps(json.dumps(key)), html.escape(key), repr(key))
    yield from (data.hex(), data.hex(" ").upper(), data.hex(":"))
    for before in range(6):
        for after in range(3):
            around = b"user:x"[:before] + data + b" ok"[:after]
            for encode in (base64.b64encode, base64.urlsafe_b64encode, base64.encodebytes):
                yield encode(around).decode()
                yield encode(around).decode().rstrip("=\n")
            yield urllib.parse.quote(base64.b64encode(around).decode(), safe="")
    yield base64.b64encode(f"Bearer {key}".encode()).decode()


def _leaks(key, text):
    """Parts of the key of six characters that stand in a text, whatever their case."""
    lower, said = key.lower(), urllib.parse.unquote(text).lower()
    return [lower[i : i + 6] for i in range(len(key) - 5) if lower[i : i + 6] in said]


@pytest.mark.parametrize("key", KEYS)
def test_every_spelling_is_blotted(key):
    blot = blotter(key)
    for spelling in _spellings(key):
        said = blot(f"You sent {spelling}! Thanks.")
        assert BLOT in said and spelling not in said, spelling
        assert said.startswith("You sent ") and said.endswith("! Thanks."), spelling
        assert not _leaks(key, said), spelling


@pytest.mark.parametrize("key", KEYS)
def test_no_base64_word_that_is_left_decodes_to_a_part_of_the_key(key):
    encoded = base64.b64encode(f"x{key}y".encode()).decode()
    for word in blotter(key)(f"a {encoded} b").split():
        assert word in ("a", "b", BLOT)


def test_random_keys():
    draw = random.Random(0)
    alphabet = string.ascii_letters + string.digits + "-_.~+/="
    for _ in range(30):
        key = "".join(draw.choice(alphabet) for _ in range(draw.randint(8, 60)))
        for spelling in _spellings(key):
            assert BLOT in blotter(key)(f"({spelling})"), (key, spelling)


def test_other_texts_stay_and_short_words_are_no_secret():
    text = 'It is "CORRECT": 100% sure, see https://a.b/c?d=e+f&g=%20. ' + "ab12" * 50
    assert blotter(KEYS[0])(text) == text
    assert blotter("EMPTY")("EMPTY") == "EMPTY" and blotter("")("text") == "text"


def test_long_texts_are_searched_once():
    text = "sk-test-7f3a9c51d2e84b6 " * 40_000 + "A" * 400_000
    assert blotter(KEYS[0])(text) == text  # would take hours if it went over the text again
