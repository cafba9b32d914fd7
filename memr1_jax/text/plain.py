"""Keeps text of people and models plain: one line, and never a control token.

A turn may spell `<|im_end|>`, or hold line breaks that look like the lines of a prompt. Such text
is folded to one line and split into tokens of its characters, so that a prompt has the structure
of its template alone.
"""

import copy
import functools
import re
from collections.abc import Callable

# Marks stand where a name of a control token stood: private characters, which no one types.
_MARKS = 0xF0000
_BEFORE = ("\n", "|", "0", "e")  # at least one is not part of a text's first token
_MARK = re.compile("([\U000f0000-\U000fffff])")


def whole(text: str) -> str:
    """Joins halves of surrogate pairs; a half without the other becomes U+FFFD."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def one_line(text: str) -> str:
    """Folds every run of white space, line breaks of all kinds included, to one space.

    Nothing is left at either end; halves of surrogate pairs become U+FFFD.
    """
    return " ".join(whole(text).split())


def folded(text: str) -> str:
    """Folds as `one_line` does, but keeps one space where white space begins the text."""
    line = one_line(text)
    return f" {line}" if line and text[0].isspace() else line


def inside(encode: Callable[[str], list[int]]) -> Callable[[str], list[int]]:
    """Returns a function that tokenises a text as it stands inside a longer one.

    Sentencepiece tokenizers put a space in front of their input, as if each piece began a
    text. The pieces are therefore tokenised after a character that is taken away again. To other
    tokenizers a piece is a text like any other.
    """
    twice = encode("x x")
    half = len(twice) // 2
    if twice[:half] != twice[half:]:  # the first word has no space in front, unlike the second
        return encode
    before = {mark: encode(mark) for mark in _BEFORE}

    def encode_inside(text: str) -> list[int]:
        for mark, head in before.items():
            ids = encode(mark + text)
            if ids[: len(head)] == head:
                return ids[len(head) :]
        return encode(text)

    return encode_inside


def control_tokens(backend) -> dict:
    """Returns the added tokens of a `tokenizers.Tokenizer` by id, less those of white space.

    Gemma's vocabulary adds line breaks and runs of spaces, which are text like any other.
    """
    added = backend.get_added_tokens_decoder()
    return {i: token for i, token in added.items() if token.content.strip("\u2581 \t\r\n")}


def plain_encoder(tokenizer) -> Callable[[str], list[int]]:
    """Returns a function from a text inside a longer one to token ids, none a control token.

    Other texts get the tokens that the tokenizer gives them. Control tokens are all added tokens
    but white space, special or not, as in `byte_table`.

    Args:
      tokenizer: a Hugging Face fast tokenizer, or the `tokenizers.Tokenizer` in it.
    """
    from tokenizers import AddedToken

    backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
    added = control_tokens(backend)
    vocabulary = backend.get_vocab(with_added_tokens=False)
    plain = copy.deepcopy(backend)
    plain.no_truncation()
    plain.no_padding()
    plain.add_special_tokens([AddedToken(token.content, special=True) for token in added.values()])
    plain.encode_special_tokens = True

    def spell(token: int) -> list[int]:
        ids = []
        for character in added[token].content:
            names = [f"<0x{byte:02X}>" for byte in character.encode()]
            names = [character] if character in vocabulary else names
            ids += [vocabulary[name] for name in names if name in vocabulary]
        return ids

    read = inside(lambda text: plain.encode(text, add_special_tokens=False).ids)

    def encode(text: str) -> list[int]:
        ids = read(whole(text))
        # A Unigram model may still find a whole name among its own pieces.
        if added.keys().isdisjoint(ids):
            return ids
        return [i for token in ids for i in (spell(token) if token in added else [token])]

    return encode


class ChatEncoder:
    """Encodes a rendered chat, in which only the chat template writes control tokens.

    `hide` goes over the texts of the messages before they are rendered, `encode` over the result.
    Chats without the name of a control token are encoded as a whole, as they always were.
    """

    def __init__(self, tokenizer):
        """Reads the names of the control tokens."""
        backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
        names = {token.content for token in control_tokens(backend).values()}
        names = sorted(names, key=lambda name: (-len(name), name))
        self._names = {name: chr(_MARKS + place) for place, name in enumerate(names)}
        self._contents = {mark: name for name, mark in self._names.items()}
        self._name = re.compile("|".join(map(re.escape, names)) or "(?!)")
        self._first = functools.partial(tokenizer.encode, add_special_tokens=False)
        self._later = inside(self._first)
        self._plain = plain_encoder(tokenizer)

    def hide(self, text: str) -> str:
        """Puts a mark in place of every name of a control token."""
        text = _MARK.sub("\ufffd", whole(text))
        return self._name.sub(lambda name: self._names[name[0]], text)

    def encode(self, text: str, begins: bool = True) -> list[int]:
        """Returns the token ids of a rendered chat, or of a part that does not begin it.

        Marks are spelled out as the text they stand for.
        """
        tokens: list[int] = []
        for place, part in enumerate(_MARK.split(text)):
            if place % 2:
                tokens += self._plain(self._contents[part])
            elif part:
                tokens += (self._first if begins and not place else self._later)(part)
        return tokens
