"""Whose memories a call is about: the ids that mem0's interface names a scope with."""

import dataclasses

from memr1_jax.service.errors import Refused

IDS = ("user_id", "agent_id", "run_id")


@dataclasses.dataclass(frozen=True)
class Scope:
    """A user, an agent and a run; an id that was not given is empty.

    Something is written under exactly these ids. A search by some of them finds what was written
    under them, whatever the others are.
    """

    user_id: str = ""
    agent_id: str = ""
    run_id: str = ""

    def __post_init__(self):
        """Checks the ids.

        Raises:
          Refused: there is none, or one holds white space.
        """
        if not any((self.user_id, self.agent_id, self.run_id)):
            raise Refused(f"Say whose memory it is: give at least one of {', '.join(IDS)}.")

    @classmethod
    def of(cls, user_id: object = None, agent_id: object = None, run_id: object = None) -> "Scope":
        """Makes a scope of what a caller gave: ids become text without space around them.

        Raises:
          Refused: no id was given, or one is blank or holds white space.
        """
        given = zip(IDS, (user_id, agent_id, run_id), strict=True)
        return cls(**{name: _checked(name, value) for name, value in given if value is not None})

    @property
    def given(self) -> dict[str, str]:
        """The ids that are not empty, by name."""
        return {name: getattr(self, name) for name in IDS if getattr(self, name)}


def _checked(name: str, value: object) -> str:
    text = str(value).strip()
    if not text or any(character.isspace() for character in text):
        raise Refused(f"{name}={value!r} must be a text without white space.")
    if "\x00" in text:
        raise Refused(f"{name}={value!r} holds a null character.")
    return text.encode("utf-8", "replace").decode("utf-8")
