"""Pieces of a text, tokenised apart, are together what the tokenizer makes of the whole."""

import importlib.resources
import json

import jax
import numpy as np
import pytest
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from memr1_jax.agents.prompt_files import fill_text, read_prompt
from memr1_jax.agents.templates import fill, list_items, load_template, render_chat, single
from memr1_jax.data.encode import Sizes, create_encoder
from memr1_jax.models.hf.tokenizer import inner_encoder
from memr1_jax.text.byte_table import build_byte_table

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
INST = (
    "{{ bos_token }}{% for message in messages %}{% if message.role == 'assistant' %} "
    "{{ message.content }} {{ eos_token }}{% else %}[INST] {{ message.content }} [/INST]{% endif %}"
    "{% endfor %}"
)
# The system's text goes before the user's, turns must alternate, and texts are trimmed.
GEMMA = (
    "{{ bos_token }}{% for message in messages %}{% if message.role == 'system' or "
    "(message.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles') }}{% endif %}"
    "<|im_start|>{{ 'model' if message.role == 'assistant' else message.role }}\n"
    "{{ message.content | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>model\n{% endif %}"
)
KINDS = ["first", "always", "never", "prepend", "replace", "gemma", "bytes", "bytes_spaced"]


def texts():
    folder = importlib.resources.files("memr1_jax.agents") / "prompts"
    files = [file.read_text(encoding="utf-8") for file in folder.iterdir()]
    return files


@pytest.fixture(scope="module")
def make_tokenizer():
    """Makes small tokenizers like those of Llama-2 (prepend), Mistral (first), Gemma (replace)."""
    pieces = tokenizers.Tokenizer(models.BPE())
    pieces.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    trainer = trainers.BpeTrainer(vocab_size=700, show_progress=False)
    pieces.train_from_iterator((text.replace("\n", " ") for text in texts()), trainer)
    learned = json.loads(pieces.to_str())["model"]
    control = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
    spelled = [*control, *(f"<0x{byte:02X}>" for byte in range(256)), *learned["vocab"]]
    vocabulary = {token: place for place, token in enumerate(spelled)}
    merges = [tuple(pair) for pair in learned["merges"]]

    # Gemma's white space is in its vocabulary and among the added tokens as well.
    white = {"\n": len(vocabulary), "\n\n": len(vocabulary) + 1, "▁▁": len(vocabulary) + 2}

    def sentencepiece(kind):
        known = vocabulary | (white if kind == "gemma" else {})
        model = models.BPE(known, merges, unk_token="<unk>", byte_fallback=True)
        tokenizer = tokenizers.Tokenizer(model)
        parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
        if kind == "prepend":
            steps = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
            tokenizer.normalizer = normalizers.Sequence(steps)
        elif kind in ("replace", "gemma"):
            tokenizer.normalizer = normalizers.Replace(" ", "▁")
        else:
            split = kind != "always"
            tokenizer.pre_tokenizer = pre_tokenizers.Metaspace("▁", kind, split)
        if kind == "gemma":
            tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
            tokenizer.add_tokens([tokenizers.AddedToken(w, normalized=False) for w in white])
        if kind not in ("never", "replace", "gemma"):
            parts.append(decoders.Strip(" ", 1, 0))
        tokenizer.decoder = decoders.Sequence(parts)
        return tokenizer

    def byte_level(kind):
        tokenizer = tokenizers.Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=kind == "bytes_spaced")
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=900,
            special_tokens=control,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts(), trainer)
        return tokenizer

    def make(kind, template=CHATML):
        backend = byte_level(kind) if kind.startswith("bytes") else sentencepiece(kind)
        backend.add_special_tokens(control)
        return PreTrainedTokenizerFast(
            tokenizer_object=backend,
            unk_token="<unk>",
            bos_token="<s>",
            eos_token="</s>",
            chat_template=template,
            clean_up_tokenization_spaces=False,
        )

    return make


PIECES = ["Memories of", " Tom", ":\n-", " 9 am", ': He  says "é🎈".', "\n", "Question:", " ", "1"]
MEMORIES = ["Tom lives in Lyon.", 'Ann says "hi".']
TIMES = ["9:10 am on 4 May, 2023", "6:00 pm on 1 March, 2023"]
SAID = {"speaker_1": "Tom", "speaker_2": "Ann", "question": "Where is he?"}


@pytest.mark.parametrize("kind", KINDS)
def test_pieces_spell_the_text_and_nothing_else(make_tokenizer, kind):
    tokenizer = make_tokenizer(kind)
    encode, table = inner_encoder(tokenizer), build_byte_table(tokenizer, len(tokenizer))

    def spelled(ids):
        return b"".join(bytes(table.bytes[i, : table.length[i]]) for i in ids).decode()

    assert [spelled(encode(piece)) for piece in PIECES] == PIECES
    assert encode("") == []
    start = tokenizer.encode(PIECES[0], add_special_tokens=False)
    ids = start + [i for piece in PIECES[1:] for i in encode(piece)]
    assert tokenizer.decode(ids).removeprefix(" ") == "".join(PIECES)
    if kind in ("never", "replace", "gemma", "bytes"):
        assert [encode(piece) for piece in PIECES] == [
            tokenizer.encode(piece, add_special_tokens=False) for piece in PIECES
        ]


@pytest.mark.parametrize("template", [CHATML, INST, GEMMA], ids=["chatml", "inst", "gemma"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["answer_compact_base", "manager_compact"])
def test_a_filled_prompt_is_what_the_tokenizer_makes_of_the_whole(
    make_tokenizer, kind, template, name
):
    tokenizer = make_tokenizer(kind, template)
    made, prompt = load_template(name, tokenizer), read_prompt(name)
    encoder = create_encoder(tokenizer, None, Sizes())

    def rows(texts):
        return encoder.rows(texts, 32)

    slots = {slot: single(*(row[0] for row in rows([text]))) for slot, text in SAID.items()}
    filled = {slot: f" {text}" for slot, text in SAID.items()}
    for slot, line in prompt.entries.items():
        valid, priority = np.ones(2, bool), np.arange(1, 3)
        slots[slot] = list_items(made, slot, rows(MEMORIES), valid, priority, rows(TIMES))
        filled[slot] = "".join(
            fill_text(line, {"id": str(place), "text": f" {text}", "time": f" {time}"})
            for place, (text, time) in enumerate(zip(MEMORIES, TIMES, strict=True))
        )
    packed = jax.jit(lambda slots: fill(made, slots, 1000))(slots)
    assert not packed.overflow and not packed.dropped
    text = tokenizer.decode([*made.instruction, *packed.tokens[: packed.length].tolist()])

    *fixed, (role, last) = prompt.messages
    rendered = render_chat(name, [*fixed, (role, fill_text(last, filled))], tokenizer)
    assert text == tokenizer.decode(tokenizer.encode(rendered, add_special_tokens=False))
    if kind in ("first", "never", "replace", "gemma", "bytes"):
        assert text == rendered
