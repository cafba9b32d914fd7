"""An agent a speaker that keeps memories by two tools, `manage_memory` and `search_memory`.

The tools are LangMem's. The agent is given the messages of its speaker one at a time, and calls
tools until it says that it is done. Unlike the script of the known comparisons (Mem0, arXiv
2504.19413), it forgets one message before the next: there all earlier messages, and even earlier
questions, pile up in the prompt. Memories are numbered where a search shows them. The answer is
made as in all rows, from a search with the question.
"""

import collections
import dataclasses
from collections.abc import Sequence

from memr1_jax.agents.prompt_files import fill_line
from memr1_jax.bench.systems.answer_stage import AnswerStage
from memr1_jax.bench.systems.extraction import owners
from memr1_jax.bench.systems.loose_json import line_of, numbers, read_objects
from memr1_jax.bench.systems.management_prompts import fill_prompt, management_prompt
from memr1_jax.bench.systems.neighbours import nearest
from memr1_jax.bench.systems.protocol import Answer, Call, Memory, Steps, ask, side_by_side
from memr1_jax.bench.systems.speaker_banks import all_memories, answer_from_banks
from memr1_jax.bench.systems.text_bank import Bank, Embed, add, delete, update
from memr1_jax.data.types import Question, Session, Turn

_PROMPT = "tool_agent"


@dataclasses.dataclass(frozen=True)
class ToolAgentSystem:
    """`rounds` responses a message at most; `results` memories a search."""

    name: str
    embed: Embed
    stage: AnswerStage
    memories: int = 30
    results: int = 5
    rounds: int = 4
    max_tokens: int = 1000
    model: str = "base"

    def start(self, speakers: tuple[str, str]) -> "ToolAgentStore":
        """Makes a store with empty banks."""
        return ToolAgentStore(self, speakers)


class ToolAgentStore:
    """The banks of one conversation's speakers."""

    def __init__(self, system: ToolAgentSystem, speakers: tuple[str, str]):
        """Creates empty banks."""
        self.counts: collections.Counter = collections.Counter()
        self._system = system
        self._speakers = speakers
        self._banks = {speaker: Bank() for speaker in owners(speakers)}

    def ingest(self, session: Session) -> Steps[None]:
        """Gives every agent its speaker's messages; the agents work side by side."""
        streams = [self._stream(speaker, session) for speaker in self._banks]
        yield from side_by_side(streams)

    def _stream(self, speaker: str, session: Session) -> Steps[None]:
        for turn in session.turns:
            if turn.speaker == speaker:
                yield from self._remember(turn, session.time_of(turn))

    def _remember(self, turn: Turn, when: str) -> Steps[None]:
        """Handles one message: tool calls and their results, until the agent is done."""
        template = management_prompt(_PROMPT)
        messages = fill_prompt(
            template,
            person=turn.speaker,
            time=when,
            speaker=turn.speaker,
            text=turn.content,
        )
        shown: list[int] = []  # ids of memories, by the number that they are shown under
        for _ in range(self._system.rounds):
            call = Call("manage", messages, self._system.max_tokens, self._system.model)
            reply = yield from ask(call)
            called = read_objects(reply.text)
            self.counts["manage_read" if called else "manage_failed"] += 1
            self.counts["manage_cut"] += not reply.stopped
            lines = []
            for tool in called:
                if tool.get("tool") == "done":
                    return
                lines += self._use(tool, turn, when, shown)
            if not called:
                return
            results = "".join(fill_line(template.entries["results"], {"line": x}) for x in lines)
            results = "Results:\n" + (results or template.empty["results"])
            messages = (*messages, ("assistant", reply.text), ("user", results.removesuffix("\n")))
        self.counts["rounds_spent"] += 1

    def _use(self, tool: dict, turn: Turn, when: str, shown: list[int]) -> list[str]:
        """Carries out a tool call; returns the lines that the agent is told."""
        speaker = turn.speaker
        bank = self._banks[speaker]
        name, action = tool.get("tool"), tool.get("action")
        if name == "search_memory" and (query := line_of(tool.get("query"))):
            self.counts["search"] += 1
            found = [i for i, _ in nearest(bank, query, self._system.results, self._system.embed)]
            shown += [identity for identity in found if identity not in shown]
            return [f"{shown.index(i)}: {bank.items[i].text}" for i in found]

        text = line_of(tool.get("content"))
        acts = name == "manage_memory" and action in ("create", "update", "delete")
        if not acts or (action != "delete" and not text):
            self.counts["skipped"] += 1
            return ["This call could not be read."]
        memory = Memory(text, when, speaker, (turn.dia_id,))
        if action == "create":
            self._banks[speaker] = add(bank, [memory], self._system.embed)
            self.counts["add"] += 1
            return ["Stored."]
        if tool.get("id") is None:
            self.counts["unknown_ids"] += 1
        places = numbers(tool.get("id"), len(shown), self.counts)
        if not places:
            return ["There is no memory with this number."]
        identity = shown[places[0]]
        if identity not in bank.items:
            self.counts["gone_ids"] += 1
            return ["This memory was deleted before."]
        self.counts[action] += 1
        if action == "update":
            self._banks[speaker] = update(bank, identity, memory, self._system.embed)
            return ["Updated."]
        self._banks[speaker] = delete(bank, identity)
        return ["Deleted."]

    def answer(self, question: Question) -> Steps[Answer]:
        """Answers from the nearest memories of all agents, best first."""
        system = self._system
        return answer_from_banks(
            system.stage, self._speakers, question, self._banks, system.memories, system.embed
        )

    def memories(self) -> Sequence[Memory]:
        """Returns all memories of all agents."""
        return all_memories(self._banks)
