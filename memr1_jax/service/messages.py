"""Messages as callers give them, and the metadata that comes with them."""

import json
import warnings
from collections.abc import Mapping
from typing import Any

from memr1_jax.service import clock
from memr1_jax.service.errors import Refused
from memr1_jax.service.records import Message
from memr1_jax.service.scope import IDS
from memr1_jax.text.plain import one_line, whole

_KEPT = (*IDS, "actor_id", "role")  # what metadata cannot set
_LONGEST = 1_000_000  # characters of a message


def read_messages(messages: Any, timestamp: Any = None) -> list[Message]:
    """Reads a text, a message, or a list of messages of the OpenAI form.

    The speaker is the `name` of a message, else its role; the time of what it tells is its own
    `timestamp` or `created_at`, else the given one, else now.

    Raises:
      Refused: there is no message, or one is not of this form.
    """
    if isinstance(messages, (str, Mapping)):
        messages = [messages]
    if not isinstance(messages, (list, tuple)) or not messages:
        raise Refused("Give a text, a message, or a list of messages, at least one of them.")
    default = clock.now() if timestamp is None else clock.read(timestamp, "timestamp")
    return [_message(message, place, default) for place, message in enumerate(messages)]


def _message(message: Any, place: int, default: str) -> Message:
    if isinstance(message, str):
        message = {"role": "user", "content": message}
    if not isinstance(message, Mapping) or not {"content", "tool_calls"} & set(message):
        raise Refused(f'Message {place} is no {{"role": ..., "content": ...}}: {message!r}.')
    role, name = message.get("role", "user"), message.get("name") or ""
    if not isinstance(role, str) or not role.strip() or not isinstance(name, str):
        raise Refused(f"Message {place} needs texts as its role and name: {message!r}.")
    content = clean(_content(message.get("content"), place))
    if len(content) > _LONGEST:
        raise Refused(
            f"Message {place} has {len(content):,} characters, more than {_LONGEST:,}. Divide it."
        )
    time = message.get("timestamp") or message.get("created_at")
    moment = default if time is None else clock.read(time, f"timestamp of message {place}")
    return Message(clean(role), one_line(clean(name)) or one_line(clean(role)), content, moment)


def _content(content: Any, place: int) -> str:
    """Returns the text of a message; of several parts, those that are text."""
    if content is None:  # a call of a tool
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list) and all(isinstance(part, Mapping) for part in content):
        texts = [part.get("text") for part in content if part.get("type", "text") == "text"]
        if all(isinstance(text, str) for text in texts):
            return "\n".join(texts)
    raise Refused(f"The content of message {place} is neither text nor a list of parts.")


def read_metadata(metadata: Any) -> dict[str, Any]:
    """Checks metadata and returns it as the database keeps it; identities in it are left out.

    Raises:
      Refused: it is no JSON object.
    """
    if metadata is None:
        return {}
    try:
        if not isinstance(metadata, Mapping):
            raise TypeError("it is no object")
        kept = json.loads(json.dumps(dict(metadata), allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise Refused(f"metadata must be a JSON object ({error}).") from error
    if dropped := sorted(set(kept) & set(_KEPT)):
        warnings.warn(
            f"metadata cannot set {', '.join(dropped)}; give them as arguments.", stacklevel=3
        )
    return _cleaned({name: value for name, value in kept.items() if name not in _KEPT})


def clean(text: str) -> str:
    """Replaces what no database or JSON reply can hold: nulls and halves of surrogate pairs."""
    return whole(text).replace("\x00", "\ufffd")


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, list):
        return [_cleaned(item) for item in value]
    if isinstance(value, dict):
        return {clean(name): _cleaned(item) for name, item in value.items()}
    return value
