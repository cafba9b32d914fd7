"""The judge's prompts: text files, the replies they ask for, and their digests.

A file is a list of sections. `[verdict json CORRECT WRONG]` or `[verdict word yes no]` comes first:
the form of the reply, and its words for right and wrong. `[system]` and `[user]` are messages with
the slots `{question}`, `{gold}` and `{answer}`; `[reminder]` is told to a judge whose reply
could not be read. They are no prompt files with a head (`agents/prompt_files.py`): their first
section is one, and it belongs to the digest that is stored with every verdict.
"""

import dataclasses
import functools
import hashlib
import importlib.resources
import re
from collections.abc import Callable

from memr1_jax.text.plain import one_line

Messages = tuple[tuple[str, str], ...]  # role, content

_SECTION = re.compile(r"^\[(verdict (?:json|word) \w+ \w+|system|user|reminder)\]\n", re.MULTILINE)
_SLOT = re.compile(r"\{(question|gold|answer)\}")
_NOTHING = "(nothing)"
_LONGMEMEVAL = {
    "single-session-user": "longmemeval_default",
    "single-session-assistant": "longmemeval_default",
    "multi-session": "longmemeval_default",
    "temporal-reasoning": "longmemeval_temporal",
    "knowledge-update": "longmemeval_update",
    "single-session-preference": "longmemeval_preference",
}


@dataclasses.dataclass(frozen=True)
class JudgePrompt:
    """A prompt; `digest` is the sha256 of its file and belongs to every verdict."""

    name: str
    digest: str
    messages: Messages  # with slots
    reminder: str
    json: bool  # whether the reply is JSON with a label; else its first word is the verdict
    right: str
    wrong: str

    @property
    def max_tokens(self) -> int:
        """Room for the reply: a sentence and the label, or a word."""
        return 256 if self.json else 16

    def fill(self, question: str, gold: str, answer: str) -> Messages:
        """Fills in the three texts, each on one line; braces in them stay what they are."""
        texts = {"question": question, "gold": gold, "answer": answer}
        values = {slot: one_line(text) for slot, text in texts.items()}
        values["answer"] = values["answer"] or _NOTHING
        return tuple(
            (role, _SLOT.sub(lambda slot: values[slot[1]], content))
            for role, content in self.messages
        )

    def remind(self, messages: Messages, reply: str) -> Messages:
        """Returns messages that ask again after a reply that could not be read."""
        return (*messages, ("assistant", reply.strip() or _NOTHING), ("user", self.reminder))


@functools.cache
def judge_prompt(name: str) -> JudgePrompt:
    """Reads a prompt of this package: a file of `prompts`, such as `locomo`."""
    file = importlib.resources.files("memr1_jax.bench.judge") / "prompts" / f"{name}.txt"
    return parse_prompt(name, file.read_text(encoding="utf-8"))


def parse_prompt(name: str, text: str) -> JudgePrompt:
    """Reads the text of a prompt file; ValueError where a section is missing."""
    before, *pieces = _SECTION.split(text)
    sections = [(pieces[i], pieces[i + 1].strip()) for i in range(0, len(pieces), 2)]
    kinds = [kind.split()[0] for kind, _ in sections]
    if before.strip() or kinds[:1] != ["verdict"] or kinds[-1] != "reminder" or len(kinds) < 3:
        raise ValueError(f"The prompt {name} lacks [verdict ...], a message or [reminder].")
    _, form, right, wrong = sections[0][0].split()
    digest = hashlib.sha256(text.encode()).hexdigest()
    messages = tuple(sections[1:-1])
    return JudgePrompt(name, digest, messages, sections[-1][1], form == "json", right, wrong)


def longmemeval_prompt(question_type: str, abstention: bool = False) -> JudgePrompt:
    """Returns the prompt for one of LongMemEval's six types of question.

    Args:
      question_type: as in the data.
      abstention: whether the question cannot be answered; then the type does not matter, and the
        gold is the explanation.

    Raises:
      ValueError: there is no such type.
    """
    if abstention:
        return judge_prompt("longmemeval_abstention")
    if question_type not in _LONGMEMEVAL:
        raise ValueError(f"LongMemEval has no questions of the type {question_type!r}.")
    return judge_prompt(_LONGMEMEVAL[question_type])


# By the benchmark's name: the prompt for an answer to a question of some kind; the second argument
# says whether abstaining is right.
PROMPTS: dict[str, Callable[[str, bool], JudgePrompt]] = {
    "locomo": lambda kind, abstain: judge_prompt("locomo"),
    "msc_strict": lambda kind, abstain: judge_prompt("msc_strict"),
    "longmemeval": longmemeval_prompt,
    "beam": lambda kind, abstain: judge_prompt("beam_rubric"),
    "halumem": lambda kind, abstain: judge_prompt(
        "longmemeval_abstention" if abstain else "longmemeval_default"
    ),
}
