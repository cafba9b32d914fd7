"""The four memory operations: integers that live in arrays, with their names and properties."""

import enum


class Event(enum.IntEnum):
    """Names the effect of an operation on the bank; NONE is 0, so that padding does nothing.

    This is the one table of operations. A member holds its number; its `label` in reports; the
    further `aliases` under which it is read, in lower case; whether it `names_memory`, an id that
    was shown; whether it `writes` a text; and its `colours` in pictures on light and dark paper.
    """

    NONE = 0, "NOOP", ("noop",), False, False, ("#7b8490", "#8d96a2")
    ADD = 1, "ADD", (), False, True, ("#1a7f4b", "#5fcf94")
    UPDATE = 2, "UPDATE", (), True, True, ("#9a6700", "#e5b84a")
    DELETE = 3, "DELETE", (), True, False, ("#b3261e", "#f4877e")

    label: str
    aliases: tuple[str, ...]
    names_memory: bool
    writes: bool
    colours: tuple[str, str]

    def __new__(cls, number, label, aliases, names_memory, writes, colours):
        """Makes a member that is its number."""
        event = int.__new__(cls, number)
        event._value_ = number
        event.label, event.aliases, event.colours = label, aliases, colours
        event.names_memory, event.writes = names_memory, writes
        return event

    @property
    def key(self) -> str:
        """Returns the name that counters, metrics and styles use."""
        return self.name.lower()


# How a response may write an operation, in lower case.
SPELLINGS = {word: event for event in Event for word in (event.key, *event.aliases)}
# Operations in the order of reports: those that change the bank first.
REPORTED = (*(event for event in Event if event), Event.NONE)
