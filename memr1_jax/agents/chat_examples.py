"""An example of both agents' chats next to exported weights, for servers of other projects.

`chat_examples.json` holds for each agent the messages that an OpenAI-compatible server takes, with
`chat_template_kwargs` for the request, the text that the model's chat template makes of them, and
the limits of the agent's response. A template that asks for the date is given a fixed one here, so
that `rendered` alone is exact there.
"""

from pathlib import Path
from typing import Any

from memr1_jax.agents.agent_config import AgentConfig
from memr1_jax.agents.prompt_files import PromptText, fill_line, fill_text, read_prompt
from memr1_jax.agents.templates import accepted_chat
from memr1_jax.models.hf.folders import CHAT_EXAMPLES
from memr1_jax.run.files import write_json_atomic

_SPEAKERS = ("Ana", "Ben")
_TIME = "9:10 am on 4 May, 2023"
_MEMORIES = (("Ana lives in Oslo.", "Ana has a dog."), ("Ben works as a nurse.",))
_FACTS = ("Ana moved to Bergen.",)
_QUESTION = "Where does Ana live?"


def example_messages(prompt: PromptText) -> list[tuple[str, str]]:
    """Fills a manager's or Answer Agent's prompt with a small dialogue; messages `(role, text)`.

    Texts have one space in front, as on the device.
    """

    def lines(slot, texts):
        items = [
            fill_line(
                prompt.entries[slot], {"id": str(place), "time": f" {_TIME}", "text": f" {text}"}
            )
            for place, text in enumerate(texts)
        ]
        return "".join(items) or prompt.empty[slot]

    if prompt.head.role == "manager":
        slots = {"memories": lines("memories", _MEMORIES[0]), "facts": lines("facts", _FACTS)}
    else:
        slots = {"question": f" {_QUESTION}"}
        for number, (speaker, texts) in enumerate(zip(_SPEAKERS, _MEMORIES, strict=True), 1):
            slots[f"speaker_{number}"] = f" {speaker}"
            slots[f"memories_{number}"] = lines(f"memories_{number}", texts)
    *fixed, (role, text) = prompt.messages
    return [*fixed, (role, fill_text(text, slots))]


def write_chat_examples(folder: Path, options: AgentConfig, tokenizer: Any, stops: tuple) -> None:
    """Writes the file into an exported model folder."""
    examples = {}
    for agent in ("manager", "answer"):
        prompt = read_prompt(getattr(options, f"{agent}_prompt"), agent)
        thinking = options.thinks(agent)
        chat, rendered = accepted_chat(prompt.name, example_messages(prompt), tokenizer, thinking)
        examples[agent] = {
            "prompt_file": prompt.name,
            "messages": [{"role": role, "content": text} for role, text in chat],
            "chat_template_kwargs": {"enable_thinking": thinking},
            "rendered": rendered,
            "temperature": 0,
            "max_tokens": getattr(options, f"{agent}_response_length"),
            "stop_token_ids": list(stops),
        }
    write_json_atomic(folder / CHAT_EXAMPLES, examples)
