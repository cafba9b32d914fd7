"""A chat with any OpenAI-compatible endpoint that remembers its user.

python examples/chat_with_memory.py --url=http://localhost:8000/v1 --model=qwen --user=ana
"""

import argparse
import os
import sys

import httpx2

from memr1_jax.service.memory import Memory


def reply(memory: Memory, url: str, model: str, user: str, line: str) -> str:
    """Answers a line with the memories that are nearest to it, and remembers the line."""
    found = memory.search(line, user_id=user, top_k=5)["results"]
    known = "\n".join(f"- {item['event_time'][:10]}: {item['memory']}" for item in found)
    system = f"You talk with {user}. What you remember of earlier days:\n{known or '- nothing'}"
    messages = [{"role": "system", "content": system}, {"role": "user", "content": line}]
    key = os.environ.get("OPENAI_API_KEY", "none")
    answer = httpx2.post(
        f"{url}/chat/completions",
        json={"model": model, "messages": messages},
        headers={"Authorization": f"Bearer {key}"},
        timeout=600,
    ).raise_for_status()
    memory.add(line, user_id=user)
    return answer.json()["choices"][0]["message"]["content"]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name, default in (("url", "http://localhost:8000/v1"), ("model", "default")):
        parser.add_argument(f"--{name}", default=default)
    parser.add_argument("--user", default="ana")
    parser.add_argument("--agents", default="nano", help="run folder, model, or nano")
    given = parser.parse_args()
    with Memory(given.agents) as memory:
        for line in map(str.strip, sys.stdin):
            if line:
                print(reply(memory, given.url, given.model, given.user, line))
