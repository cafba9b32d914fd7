"""The prompt files, rendered with tokenizers that are trained on the spot."""

import datetime
import hashlib
import importlib.resources
import json
import re

import numpy as np
import pytest

from memr1_jax.agents.prompt_files import facts_prompt, plain_prompt, prompt_names, read_prompt
from memr1_jax.agents.templates import fill, list_items, load_template, render_chat, single
from memr1_jax.errors import UserError
from memr1_jax.text.events import Event
from memr1_jax.text.json_reference import scan_operations_reference

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
QWEN_LIKE = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are helpful.<|im_end|>\n"
    "{% endif %}" + CHATML
)
LLAMA_LIKE = (
    "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
    "<|im_start|>date\n{{ date_string }}<|im_end|>\n" + CHATML.replace("content", "content | trim")
)
DEAF_TO_SYSTEM = CHATML.replace(
    "<|im_start|>{{", "{% if message.role == 'system' %}{% continue %}{% endif %}<|im_start|>{{"
)
REFUSES_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('No system role') }}{% endif %}"
    + CHATML
)
DROPS_ALL = "{% if messages[0].role == 'system' %}system{% else %}user{% endif %}"
REFUSES_ALL = "{{ raise_exception('System role not supported') }}"
QWEN3_LIKE = CHATML + (
    "{% if add_generation_prompt and enable_thinking is defined and not enable_thinking %}"
    "<think>\n\n</think>\n\n{% endif %}"
)

MANAGERS = [name for name in prompt_names() if name.startswith("manager")]
ANSWERERS = [name for name in prompt_names() if name.startswith("answer")]
SLOTS = {
    "manager": ["memories", "facts"],
    "answer": ["speaker_1", "memories_1", "speaker_2", "memories_2", "question"],
    "judge": ["question", "gold", "answer"],
    "facts": ["time", "speaker", "turn"],  # the nano model is told no time
}
MEMORIES = [" Tom lives in Lyon.", ' Ann says "hi".', " Ann is a nurse."]
TIMES = [" 9:10 am on 4 May, 2023", " 6:00 pm on 1 March, 2023", " 1:00 pm on 2 June, 2023"]


def file_of(name):
    folder = importlib.resources.files("memr1_jax.agents") / "prompts"
    return (folder / f"{name}.txt").read_text(encoding="utf-8")


def source_of(name):
    """Returns the prompt without its head."""
    return file_of(name).partition("\n\n")[2]


@pytest.fixture(scope="module")
def make_tokenizer():
    import tokenizers
    from transformers import PreTrainedTokenizerFast

    model = tokenizers.Tokenizer(tokenizers.models.BPE())
    model.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=1000,
        special_tokens=["<|im_start|>", "<|im_end|>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    model.train_from_iterator([source_of(name) for name in prompt_names()], trainer)

    def make(chat_template):
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=model, eos_token="<|im_end|>")
        tokenizer.chat_template = chat_template
        return tokenizer

    return make


@pytest.fixture(scope="module")
def tokenizer(make_tokenizer):
    return make_tokenizer(CHATML)


def rows(tokenizer, texts):
    ids = [tokenizer.encode(text, add_special_tokens=False) for text in texts]
    tokens = np.zeros((len(ids), max(map(len, ids))), np.int32)
    for row, text in zip(tokens, ids, strict=True):
        row[: len(text)] = text
    return tokens, np.array([len(text) for text in ids], np.int32)


def filled(tokenizer, name, *, first=(0, 1), second=(2,), capacity=1000):
    """Returns a prompt for the handmade bank: the rows of `MEMORIES` that each list shows."""
    template = load_template(name, tokenizer)
    text, time = rows(tokenizer, MEMORIES), rows(tokenizer, TIMES)

    def items(slot, shown, time=None):
        valid = np.isin(np.arange(len(MEMORIES)), shown)
        priority = np.arange(len(MEMORIES), dtype=np.int32) + 1
        return list_items(template, slot, text, valid, priority, time)

    def required(content):
        tokens, length = rows(tokenizer, [content])
        return single(tokens[0], length[0])

    if name in MANAGERS:
        slots = {"memories": items("memories", first), "facts": items("facts", second)}
    else:
        slots = {
            "speaker_1": required(" Tom"),
            "memories_1": items("memories_1", first, time),
            "speaker_2": required(" Ann"),
            "memories_2": items("memories_2", second, time),
            "question": required(" Where does Tom live?"),
        }
    packed = fill(template, slots, capacity)
    tokens = [*template.instruction, *packed.tokens[: packed.length].tolist()]
    return tokenizer.decode(tokens), packed


def expected(tokenizer, name, slots):
    """Returns the prompt by plain replacement in the file, for `slots` that hold whole texts."""
    sections = re.split(r"^\[(\w+)(?: \w+)?\]\n", source_of(name), flags=re.MULTILINE)
    messages = [
        {"role": role, "content": text.removesuffix("\n")}
        for role, text in zip(sections[1::2], sections[2::2], strict=True)
        if role not in ("entry", "empty")
    ]
    for slot, text in slots.items():
        messages[-1]["content"] = messages[-1]["content"].replace("{" + slot + "}", text)
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


@pytest.mark.parametrize("name", prompt_names())
def test_every_prompt_has_its_slots_and_says_what_an_empty_list_is(tokenizer, name):
    template = load_template(name, tokenizer)
    slots = [part for part in template.parts if isinstance(part, str)]
    expected = SLOTS[name.split("_")[0]]
    assert slots == (expected[1:] if name == "facts_compact_nano" else expected)
    lists = {slot for slot in slots if slot in ("facts", "memories", "memories_1", "memories_2")}
    assert {slot for slot, _ in template.entries} == lists
    assert {slot for slot, _ in template.empty} == lists - {"facts"} | {"answer"} & set(slots)
    fields = {slot: {p for p in parts if isinstance(p, str)} for slot, parts in template.entries}
    if name in MANAGERS:
        assert fields == {"memories": {"id", "text"}, "facts": {"text"}}
    elif name in ANSWERERS:
        shown = {"text"} if "nano" in name else {"time", "text"}
        assert set.intersection(*fields.values()) == shown


MANAGER_LINES = {
    "manager_compact": '0: Tom lives in Lyon.\n1: Ann says "hi".\n',
    "manager_full": '{"id": "0", "text": " Tom lives in Lyon."}\n'
    '{"id": "1", "text": " Ann says "hi"."}\n',
}
MANAGER_LINES["manager_full_paper"] = MANAGER_LINES["manager_full"]
MANAGER_LINES["manager_compact_nano"] = MANAGER_LINES["manager_compact"]


@pytest.mark.parametrize("name", MANAGERS)
def test_the_manager_reads_numbered_memories_and_new_facts(tokenizer, name):
    text, _ = filled(tokenizer, name)
    slots = {"memories": MANAGER_LINES[name], "facts": "- Ann is a nurse.\n"}
    assert text == expected(tokenizer, name, slots)


@pytest.mark.parametrize("name", ANSWERERS)
def test_the_answer_agent_reads_dated_memories_and_the_question(tokenizer, name):
    text, _ = filled(tokenizer, name)
    dates = (" 9:10 am on 4 May, 2023:", " 6:00 pm on 1 March, 2023:", " 1:00 pm on 2 June, 2023:")
    early, late, other = ("", "", "") if "nano" in name else dates
    slots = {
        "speaker_1": " Tom",
        "memories_1": f'-{early} Tom lives in Lyon.\n-{late} Ann says "hi".\n',
        "speaker_2": " Ann",
        "memories_2": f"-{other} Ann is a nurse.\n",
        "question": " Where does Tom live?",
    }
    assert text == expected(tokenizer, name, slots)


def test_a_whole_prompt(tokenizer):
    text, _ = filled(tokenizer, "answer_compact_base", first=())
    assert text == (
        "<|im_start|>system\n"
        "You answer questions about two people from their dated memories. Write **Answer:** and "
        "the answer in at most five words. Dates are absolute.<|im_end|>\n"
        "<|im_start|>user\n"
        "Memories of Tom:\n"
        "- 9:10 am on 4 May, 2023: Tom adopted a dog yesterday.\n"
        "- 6:00 pm on 1 March, 2023: Tom likes green tea.\n"
        "Memories of Ann:\n"
        "- 9:10 am on 4 May, 2023: Ann works as a nurse.\n"
        "Question: When did Tom adopt a dog?<|im_end|>\n"
        "<|im_start|>assistant\n"
        "**Answer:** 3 May 2023<|im_end|>\n"
        "<|im_start|>user\n"
        "Memories of Tom:\n"
        "- 6:00 pm on 1 March, 2023: Tom likes green tea.\n"
        "- 9:10 am on 4 May, 2023: Tom adopted a dog yesterday.\n"
        "Memories of Ann:\n"
        "- 9:10 am on 4 May, 2023: Ann works as a nurse.\n"
        "Question: What is the job of Ann?<|im_end|>\n"
        "<|im_start|>assistant\n"
        "**Answer:** nurse<|im_end|>\n"
        "<|im_start|>user\n"
        "Memories of Lea:\n"
        "- 2:30 pm on 7 June, 2022: Lea hates cold water.\n"
        "- 8:15 pm on 2 July, 2022: Lea has a brother in Rome.\n"
        "Memories of Max:\n"
        "(empty)\n"
        "Question: Would Lea enjoy a swim in a mountain lake?<|im_end|>\n"
        "<|im_start|>assistant\n"
        "**Answer:** No<|im_end|>\n"
        "<|im_start|>user\n"
        "Memories of Tom:\n"
        "(empty)\n"
        "Memories of Ann:\n"
        "- 1:00 pm on 2 June, 2023: Ann is a nurse.\n"
        "Question: Where does Tom live?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_the_full_prompts_say_in_words_that_there_are_no_memories(tokenizer):
    manager, _ = filled(tokenizer, "manager_full", first=())
    assert "for each element:\n```json\n(The memory is empty.)\n```\nThese are" in manager
    answer, _ = filled(tokenizer, "answer_full", first=(), second=())
    assert answer.count("(This person has no memories.)\n") == 2
    assert "(This person" not in filled(tokenizer, "answer_full")[0]


@pytest.mark.parametrize("name", ["manager_full", "answer_full"])
def test_the_least_relevant_memories_go_first_and_nothing_else(tokenizer, name):
    _, whole = filled(tokenizer, name, first=(0, 1, 2), second=(0,))
    shorter = int(whole.length) - 1
    text, packed = filled(tokenizer, name, first=(0, 1, 2), second=(0,), capacity=shorter)
    assert (int(packed.dropped), bool(packed.overflow)) == (1, False)
    kept, _ = filled(tokenizer, name, first=(0, 1), second=(0,))
    assert text == kept


@pytest.mark.parametrize("name", prompt_names())
def test_the_digest_is_that_of_the_text_without_the_head(make_tokenizer, tokenizer, name):
    digests = {
        load_template(name, each).digest for each in (tokenizer, tokenizer, make_tokenizer(CHATML))
    }
    assert digests == {hashlib.sha256(source_of(name).encode()).hexdigest()[:12]}


def test_the_digests_are_those_of_older_results(tokenizer):
    """Prompts had no head when the published results were made."""
    digests = {
        "answer_compact": "824dfb945833",
        "answer_compact_base": "17292988165d",
        "answer_compact_nano": "a117f8ad48a6",
        "answer_compact_nano_base": "5cbb1b91da03",
        "answer_full": "44baec035868",
        "answer_full_base": "2151c31b6086",
        "answer_full_qwen": "f8bb447e133a",
        "judge_compact": "a9153919d82a",
        "judge_compact_nano": "d887cecc6883",
        "judge_full": "1c73654cbe1a",
        "manager_compact": "7fb02d7414dd",
        "manager_compact_nano": "6ee5a0a5e651",
        "manager_full": "cc7d0072b5fd",
        "manager_full_paper": "632827c7ceca",
    }
    assert {name: read_prompt(name).digest for name in digests} == digests


def test_prompts_say_what_they_are():
    for name in prompt_names():
        head = read_prompt(name).head
        assert name.startswith(f"{head.role}_")
        assert (head.schema != "") == (head.role == "manager")
        assert (head.selection != "") == (head.role == "answer")
        if head.role == "answer":
            plain = read_prompt(plain_prompt(name.removeprefix("answer_")), "answer")
            assert plain.head.selection == "none"
    assert plain_prompt("full_qwen") == plain_prompt("full") == "full_base"


def test_a_prompt_file_of_ones_own(tmp_path, tokenizer):
    path = tmp_path / "mine.txt"
    path.write_text("role: manager\nschema: compact\n[user]\nNow {memories} and {facts}.\n"
                    '[entry memories]\n{id} "{text}"\n[entry facts]\n*{text}\n')  # fmt: skip
    prompt = read_prompt(str(path), "manager")
    assert (prompt.head.schema, prompt.messages[-1][1]) == (
        "compact",
        "Now {memories} and {facts}.",
    )
    template = load_template(str(path), tokenizer, role="manager")
    assert template.quoted == ("memories",) and template.head == prompt.head


OWN_MANAGER = """role: manager
schema: compact
{head}
[user]
Now {{memories}} and {{facts}}.
[entry memories]
{{id}} {{text}}
[entry facts]
{{text}}
"""


def test_a_manager_prompt_names_the_prompt_that_extracts_facts_for_it(tmp_path, tokenizer):
    found = {name: facts_prompt(name) for name in ("compact", "compact_nano", "full", "full_paper")}
    assert found == dict.fromkeys(found, "compact") | {"compact_nano": "compact_nano"}
    manager, facts = tmp_path / "compact_nano.txt", tmp_path / "sub" / "facts.txt"
    facts.parent.mkdir()
    facts.write_text("role: facts\n[user]\n{speaker} says: {turn}\n")
    for head, name in {
        "": "compact",  # whatever the file is called
        "facts: compact_nano\n": "compact_nano",
        "facts: sub/facts.txt\n": str(facts),  # as seen from the file
        f"facts: {facts}\n": str(facts),
    }.items():
        manager.write_text(OWN_MANAGER.format(head=head))
        assert facts_prompt(str(manager)) == name
    template = load_template(facts_prompt(str(manager)), tokenizer, role="facts")
    assert template.digest == read_prompt(str(facts), "facts").digest


MINE = "role: judge\n\n[user]\n{question} {gold} {answer}\n"


@pytest.mark.parametrize(
    ("role", "source", "complaint"),
    [
        ("judge", MINE.replace("role: judge\n", ""), "has no role in its head"),
        ("answer", MINE, "has the role 'judge' in its head.*'role: answer'"),
        ("judge", MINE.replace(" {gold}", ""), r"has the slots \['question', 'answer'\]"),
        ("judge", MINE.replace("{gold}", "{gold}{golds}"), "golds"),
        ("judge", "colour: red\n" + MINE, "has the line 'colour: red'"),
        ("judge", "role: judge\n" + MINE, "has the line 'role: judge'"),
        ("manager", MINE.replace("judge", "manager"), "needs the line 'schema: VALUE' with one of"),
        ("manager", "role: manager\nschema: full\n[user]\n{memories}{facts}\n[entry memories]\n"
         "{text}\n", r"needs a section \[entry memories\]"),
        ("judge", "", "has no role"),
        ("judge", "hello", "has the line 'hello'"),
    ],
)  # fmt: skip
def test_a_prompt_file_with_a_fault_is_refused_in_a_sentence(tmp_path, role, source, complaint):
    path = tmp_path / "mine.txt"
    path.write_text(source)
    with pytest.raises(UserError, match=complaint):
        read_prompt(str(path), role)


def test_a_prompt_file_that_cannot_be_read_is_refused(tmp_path):
    (tmp_path / "latin.txt").write_bytes(b"role: judge \xff")
    for path in (tmp_path / "none.txt", tmp_path / "latin.txt", tmp_path / "", "~nobody/x.txt"):
        with pytest.raises(UserError, match="cannot be read"):
            read_prompt(f"{path}" if str(path).endswith(".txt") else f"{path}/", "judge")


def test_no_two_prompts_are_the_same(tokenizer):
    digests = {load_template(name, tokenizer).digest for name in prompt_names()}
    assert len(digests) == len(prompt_names())


def test_a_default_system_message_stays_out_where_the_prompt_has_its_own(make_tokenizer):
    tokenizer = make_tokenizer(QWEN_LIKE)
    manager, _ = filled(tokenizer, "manager_full")
    assert manager.startswith("<|im_start|>system\nYou are helpful.<|im_end|>\n<|im_start|>user\n")
    answer, _ = filled(tokenizer, "answer_full")
    assert answer.count("<|im_start|>system\n") == 1
    assert answer.endswith("Answer:<|im_end|>\n<|im_start|>assistant\n")
    assert "<|im_start|>user" not in answer


@pytest.mark.parametrize("told", [True, False])
def test_a_prompt_does_not_depend_on_the_day(make_tokenizer, told):
    template = LLAMA_LIKE if told else LLAMA_LIKE.replace("not date_string is defined", "true")
    text, _ = filled(make_tokenizer(template), "answer_full")
    assert text.startswith("<|im_start|>date\n26 Jul 2024<|im_end|>\n")
    assert datetime.date.today().strftime("%d %b %Y") not in text


def test_an_unknown_prompt_is_named_with_the_choices(tokenizer):
    with pytest.raises(UserError, match="There is no prompt named 'manager_ful'; choose one of .*"):
        load_template("manager_ful", tokenizer)


@pytest.mark.parametrize("template", [DEAF_TO_SYSTEM, REFUSES_SYSTEM], ids=["deaf", "refuses"])
def test_without_system_messages_their_text_goes_before_that_of_the_user(make_tokenizer, template):
    tokenizer = make_tokenizer(template)
    messages = [("system", "Rules."), ("user", "Hi"), ("assistant", "Yes"), ("user", "Go")]
    assert render_chat("p", messages, tokenizer) == (
        "<|im_start|>user\nRules.\n\nHi<|im_end|>\n<|im_start|>assistant\nYes<|im_end|>\n"
        "<|im_start|>user\nGo<|im_end|>\n<|im_start|>assistant\n"
    )
    alone = render_chat("p", [("system", "Rules.")], tokenizer)
    assert alone == "<|im_start|>user\nRules.<|im_end|>\n<|im_start|>assistant\n"
    for name in ("answer_full", "answer_compact", "manager_compact"):
        load_template(name, tokenizer)


def test_a_chat_template_that_takes_nothing_is_refused_in_a_sentence(make_tokenizer):
    with pytest.raises(UserError, match=r"refuses the prompt .* \(System role not supported\)"):
        load_template("answer_full", make_tokenizer(REFUSES_ALL))
    with pytest.raises(UserError, match="drops parts of the prompt 'answer_full', of the role sys"):
        load_template("answer_full", make_tokenizer(DROPS_ALL))


def test_models_think_on_request_only(make_tokenizer):
    tokenizer, chat = make_tokenizer(QWEN3_LIKE), [("user", "Hi")]
    assert render_chat("p", chat, tokenizer).endswith("assistant\n<think>\n\n</think>\n\n")
    assert render_chat("p", chat, tokenizer, thinking=True).endswith("assistant\n")
    last = load_template("answer_compact", tokenizer).parts[-1]
    assert tokenizer.decode(last).endswith("</think>\n\n")
    last = load_template("answer_compact", tokenizer, thinking=True).parts[-1]
    assert tokenizer.decode(last).endswith("<|im_start|>assistant\n")


def examples_of(name):
    """Returns the worked examples of a manager prompt: `(old memory, response)`."""
    blocks = re.findall(r"```json\n(.*?)```", source_of(name), flags=re.DOTALL)
    pairs = list(zip(blocks[:-2:2], blocks[1:-2:2], strict=True))
    return [([json.loads(line) for line in old.splitlines()], new) for old, new in pairs]


@pytest.mark.parametrize("name", ["manager_full", "manager_full_paper"])
def test_the_worked_examples_of_the_manager_are_what_the_scanner_reads(name):
    examples = examples_of(name)
    assert len(examples) == 4
    kinds = []
    for old, response in examples:
        texts = {entry["id"]: entry["text"] for entry in old}
        scan = scan_operations_reference(response.strip(), max_operations=8)
        assert scan.valid and scan.strict and not scan.skipped
        kinds.append({event for event, _, _ in scan.operations})
        listed = json.loads(response)["memory"]
        assert {entry["id"] for entry in listed} >= set(texts)
        for entry in listed:
            assert (entry["id"] in texts) == (entry["event"] != "ADD")
            if entry["event"] in ("NONE", "DELETE"):
                assert entry["text"] == texts[entry["id"]]
            if entry["event"] == "UPDATE":
                assert entry["old_memory"] == texts[entry["id"]]
    add, update, delete, none = kinds
    assert (add, update, none) == ({Event.ADD}, {Event.UPDATE}, set())
    # The paper's example forgets what contradicted the deleted memory.
    ours = name == "manager_full"
    assert delete == ({Event.ADD, Event.DELETE} if ours else {Event.DELETE})


@pytest.mark.parametrize(
    ("name", "rules", "steps", "selects"),
    [
        ("answer_full", 10, 8, True),
        ("answer_full_qwen", 9, 8, True),
        ("answer_full_base", 9, 7, False),
    ],
)
def test_the_variants_of_the_answer_prompt(name, rules, steps, selects):
    source = source_of(name)
    _, ruled, approach = re.split("# Rules|# Approach", source)
    assert len(re.findall(r"^\d+\. ", ruled, re.MULTILINE)) == rules
    assert len(re.findall(r"^\d+\. ", approach, re.MULTILINE)) == steps
    assert ("select" in source.lower()) == selects
    assert "**Answer:**" in ruled


def test_the_base_variants_differ_only_in_the_selection():
    """Checks that the ablation changes only the text about selecting memories."""
    full, base = (source_of(name).splitlines() for name in ("answer_full", "answer_full_base"))
    unnumbered = {re.sub(r"^\d+\. ", "", line) for line in full}
    assert {re.sub(r"^\d+\. ", "", line) for line in base} <= unnumbered

    compact = source_of("answer_compact")
    without = re.sub(r"(\[assistant\]\n).* (\*\*Answer:\*\*)", r"\1\2", compact)
    without = without.replace("Write the memory that holds the answer, then ", "Write ")
    assert source_of("answer_compact_base") == without != compact


def test_the_nano_variants_differ_in_the_word_before_the_question():
    nano, base = (source_of(f"answer_compact_nano{ending}") for ending in ("", "_base"))
    assert base == nano.replace("Question:", "Answer:") != nano
