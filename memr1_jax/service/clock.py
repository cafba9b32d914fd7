"""Times in the memory database: ISO 8601 in UTC with microseconds, which sort as text."""

import datetime as dt

from memr1_jax.data.times import session_time
from memr1_jax.service.errors import Refused


def now() -> str:
    """Returns this moment."""
    return written(dt.datetime.now(dt.UTC))


def written(moment: dt.datetime) -> str:
    """Spells a moment; one without a time zone is taken to be in UTC."""
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=dt.UTC)
    return moment.astimezone(dt.UTC).isoformat(timespec="microseconds")


def read(value: object, name: str) -> str:
    """Reads a time that a caller gave: seconds since 1970, an ISO 8601 text, or a datetime.

    Raises:
      Refused: it is none of these; `name` says which argument it was.
    """
    try:
        if isinstance(value, bool):
            raise ValueError
        if isinstance(value, dt.datetime):
            return written(value)
        if isinstance(value, dt.date):
            return written(dt.datetime(value.year, value.month, value.day))
        if isinstance(value, (int, float)):
            return written(dt.datetime.fromtimestamp(value, dt.UTC))
        if isinstance(value, str):
            return written(dt.datetime.fromisoformat(value.strip()))
    except (ValueError, OverflowError, OSError):
        pass
    raise Refused(
        f"{name}={value!r} is no time. Give seconds since 1970, or a text as 2026-05-08 or"
        " 2026-05-08T13:56:00+00:00."
    )


def until(value: object, name: str) -> str:
    """Reads the end of a stretch of time: as `read`, but a mere date means the end of that day."""
    if isinstance(value, str) and len(value.strip()) == len("2026-05-08"):
        value = f"{value.strip()}T23:59:59.999999"
    elif isinstance(value, dt.date) and not isinstance(value, dt.datetime):
        value = f"{value.isoformat()}T23:59:59.999999"
    return read(value, name)


def day(value: object, name: str) -> str | None:
    """Reads a date as YYYY-MM-DD; None where none is given.

    Raises:
      Refused: it is no date.
    """
    if value is None or value == "":
        return None
    try:
        if isinstance(value, dt.date):
            return value.isoformat()[:10]
        return dt.date.fromisoformat(str(value)).isoformat()
    except ValueError as error:
        raise Refused(f"{name}={value!r} is no date. Write it as YYYY-MM-DD.") from error


def said(moment: str) -> str:
    """Spells a stored time the way dialogues do: "1:56 pm on 8 May, 2023"."""
    return session_time(dt.datetime.fromisoformat(moment))
