import jax
import numpy as np
import pytest

from memr1_jax.errors import UserError
from memr1_jax.text.byte_table import build_byte_table, tokens_to_bytes

TEXTS = ["", "plain words", 'é王🎈 "};{', "tabs\tand\nlines  \x00\x7f", "naïve — “quotes”"]


def _spelled(table, tokens):
    return b"".join(bytes(table.bytes[t, : table.length[t]]) for t in tokens)


@pytest.mark.parametrize("text", TEXTS)
def test_rows_spell_the_text(tokenizer, byte_table, text):
    assert _spelled(byte_table, tokenizer.encode(text).ids) == text.encode()


def test_special_and_unused_tokens_have_no_text(tokenizer, byte_table):
    assert byte_table.length[tokenizer.token_to_id("<|end|>")] == 0
    assert not byte_table.length[tokenizer.get_vocab_size() :].any()
    assert byte_table.length.shape[0] > tokenizer.get_vocab_size()


def test_of_added_tokens_only_the_end_of_reasoning_has_a_text(tokenizer):
    import tokenizers

    added = tokenizers.Tokenizer.from_str(tokenizer.to_str())
    marks = ["<tool_call>", "</think>"]
    added.add_tokens([tokenizers.AddedToken(mark, special=False) for mark in marks])
    table = build_byte_table(added, added.get_vocab_size())
    assert [_spelled(table, [added.token_to_id(mark)]) for mark in marks] == [b"", b"</think>"]


def test_added_white_space_is_text(tokenizer):
    import tokenizers

    added = tokenizers.Tokenizer.from_str(tokenizer.to_str())
    added.add_tokens(["\n\n", "\t\t"])
    table = build_byte_table(added, added.get_vocab_size())
    assert _spelled(table, added.encode("a\n\nb\t\t").ids) == b"a\n\nb\t\t"


def test_every_byte_has_its_token(byte_table):
    for byte, token in enumerate(byte_table.byte_token):
        assert _spelled(byte_table, [token]) == bytes([byte])


def test_sentencepiece_spelling():
    import tokenizers

    vocabulary = {"<unk>": 0, "<s>": 1, "<0x0A>": 2, "<0xE7>": 3, "▁": 4, "▁the": 5, "é": 6}
    model = tokenizers.Tokenizer(
        tokenizers.models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True)
    )
    model.decoder = tokenizers.decoders.Sequence(
        [
            tokenizers.decoders.Replace("▁", " "),
            tokenizers.decoders.ByteFallback(),
            tokenizers.decoders.Fuse(),
        ]
    )
    model.add_special_tokens(["<unk>", "<s>"])
    table = build_byte_table(model, 8)
    assert _spelled(table, range(8)) == b"\n\xe7  the\xc3\xa9"
    assert table.byte_token[0x0A] == 2 and table.byte_token[0x20] == 4
    assert table.byte_token[0x41] == -1


def test_a_piece_is_the_token_of_its_byte_and_not_the_byte_that_stands_in():
    import tokenizers

    vocabulary = {"<unk>": 0, "<0x20>": 1, "<0x41>": 2, "<0x42>": 3, "<0xZZ>": 4, "▁": 5, "A": 6}
    model = tokenizers.Tokenizer(
        tokenizers.models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True)
    )
    model.decoder = tokenizers.decoders.ByteFallback()
    table = build_byte_table(model, 7)
    assert table.byte_token[[0x20, 0x41, 0x42]].tolist() == [5, 6, 3]
    assert _spelled(table, [1, 2, 4]) == b" A<0xZZ>"


def test_a_token_outside_of_the_byte_alphabet_spells_itself():
    import tokenizers

    model = tokenizers.Tokenizer(tokenizers.models.BPE({"a": 0, "\u2581日": 1, "Ġa": 2}, []))
    model.decoder = tokenizers.decoders.ByteLevel()
    table = build_byte_table(model, 3)
    for token in range(3):
        assert _spelled(table, [token]) == model.decode([token]).encode()


def test_transformers_wrapper_is_accepted(tokenizer, byte_table):
    from transformers import PreTrainedTokenizerFast

    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    table = build_byte_table(wrapped, byte_table.length.shape[0])
    np.testing.assert_array_equal(table.bytes, byte_table.bytes)


def test_too_small_a_vocabulary_is_refused(tokenizer):
    with pytest.raises(UserError, match="vocab_size is 300"):
        build_byte_table(tokenizer, 300)


def test_other_tokenizers_are_refused():
    import tokenizers

    word_piece = tokenizers.Tokenizer(tokenizers.models.WordPiece({"[UNK]": 0}))
    word_piece.decoder = tokenizers.decoders.WordPiece()
    with pytest.raises(UserError, match="WordPiece"):
        build_byte_table(word_piece, 10)
    with pytest.raises(UserError, match="not a fast tokenizer"):
        build_byte_table(object(), 10)


def test_tokens_to_bytes(tokenizer, byte_table):
    capacity, end = 48, tokenizer.token_to_id("<|end|>")
    run = jax.jit(jax.vmap(lambda t, n: tokens_to_bytes(byte_table, t, n, capacity)))
    rows = [tokenizer.encode(text).ids for text in [*TEXTS, "word " * 20]]
    rows = [row[:1] + [end] + row[1:] + [end] for row in rows]  # tokens without text
    tokens = np.full((len(rows), 128), 5, np.int32)
    for i, row in enumerate(rows):
        tokens[i, : len(row)] = row
    result = jax.tree.map(np.asarray, run(tokens, np.array([len(row) for row in rows])))
    for i, row in enumerate(rows):
        whole = _spelled(byte_table, row)
        owners = [k for k, token in enumerate(row) for _ in range(byte_table.length[token])]
        size = min(len(whole), capacity)
        assert result.length[i] == size
        assert bytes(result.bytes[i]) == whole[:capacity].ljust(capacity, b"\0")
        assert result.token[i, :size].tolist() == owners[:capacity]
        firsts = [k == 0 or owners[k] != owners[k - 1] for k in range(size)]
        assert result.first[i].tolist() == firsts + [False] * (capacity - size)
        assert result.overflow[i] == (len(whole) > capacity)
