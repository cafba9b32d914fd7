"""The four memory operations, as integers that live in arrays."""

import enum


class Event(enum.IntEnum):
    """What an operation does to the bank; NONE (the paper's NOOP) is 0, so padding does nothing."""

    NONE = 0
    ADD = 1
    UPDATE = 2
    DELETE = 3
