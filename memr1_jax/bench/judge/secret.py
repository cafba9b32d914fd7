"""Blots a key out of texts, in whatever common spelling a server sends it back."""

import base64
import html
import re
from collections.abc import Callable

BLOT = "***"
_SHORTEST = 8  # servers without keys are given words such as EMPTY
_BASE64 = r"[A-Za-z0-9+/_-]"
_EITHER = {"+": "(?:[+-]|%2B)", "-": "(?:[+-]|%2B)", "/": "(?:[/_]|%2F)", "_": "(?:[/_]|%2F)"}
_BREAK = r"(?:\\[rn]|\s)*"  # lines of encoded text are broken, and the breaks may be escaped


def blotter(key: str) -> Callable[[str], str]:
    """Returns a function that replaces the key by `***`.

    It finds the key in upper and lower case, with any of its characters encoded for addresses (also
    repeatedly), JSON, C or HTML, in hexadecimal, and in either alphabet of base64, inside other
    text as well. Keys of fewer than eight characters are words that are no secret, and stay.
    """
    if len(key) < _SHORTEST:
        return lambda text: text
    spellings = ["".join(map(_character, key)), _hexadecimal(key), *_base64(key)]
    pattern = re.compile("|".join(spellings), re.IGNORECASE)
    return lambda text: pattern.sub(BLOT, text)


def _character(char: str) -> str:
    code = ord(char)
    forms = [
        rf"\\*{re.escape(char)}",
        f"%(?:25)*{code:02x}",
        rf"\\+(?:u00|x){code:02x}",
        f"&(?:amp;)*#(?:0*{code}|x0*{code:x});",
    ]
    if (named := html.escape(char)) != char:  # no form may match what another one does
        forms.append(re.escape(named))
    return f"(?:{'|'.join(forms)})"


def _hexadecimal(key: str) -> str:
    return r"(?:0x|\\x|[\s:,])*".join(f"{byte:02x}" for byte in key.encode())


def _base64(key: str) -> list[str]:
    """Returns patterns of the key in base64, begun at each of the three places in a group.

    The rest of its word goes too, as the characters next to the key share bits with it.
    """
    patterns = []
    for before in range(3):
        data = b"\0" * before + key.encode()
        first, last = -(-before * 8 // 6), len(data) * 8 // 6
        inner = base64.b64encode(data).decode()[first:last]
        word = _BREAK.join(_EITHER.get(char, char) for char in inner)
        # From the beginning of a word alone: else a long one would be searched from each character.
        patterns.append(f"(?<!{_BASE64}){_BASE64}*{word}{_BASE64}*(?:=|%3D)*")
    return patterns
