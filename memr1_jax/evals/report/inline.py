"""Styles and scripts that stand inside a page, and the policy that admits them alone."""

import base64
import hashlib

from memr1_jax.text.events import Event


def source_of(text: str) -> str:
    """Returns the content security policy source that allows only this inline text."""
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"


def event_styles() -> str:
    """Writes the styles of the operations: their colours on light and dark paper, and classes."""
    light, dark = (
        " ".join(f"--{event.key}: {event.colours[paper]};" for event in Event) for paper in (0, 1)
    )
    lines = [
        f":root {{ {light} }}",
        f"@media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}",
    ]
    for event in Event:
        lines.append(f".tone-{event.key} {{ --tone: var(--{event.key}); }}")
        lines.append(f".event-{event.key} {{ color: var(--{event.key}); }}")
    return "\n".join(lines) + "\n"
