"""Reads the times that people and programs write, and spells a time as dialogues do."""

import datetime
import re
from collections.abc import Sequence

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH = rf"(?P<name>{'|'.join(_MONTHS)})[a-z]*\.?"
_DAY = r"(?P<day>[0-9]{1,2})(?:st|nd|rd|th)?"
_DATES = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"\b(?P<year>[0-9]{4})[-/.](?P<month>[0-9]{1,2})[-/.](?P<day>[0-9]{1,2})(?=\b|T)",
        r"\b(?P<year>[0-9]{4})(?P<month>[0-9]{2})(?P<day>[0-9]{2})(?=\b|T)",
        r"\b(?P<first>[0-9]{1,2})(?P<mark>[-/.])(?P<second>[0-9]{1,2})(?P=mark)"
        r"(?P<year>[0-9]{4}|[0-9]{2})\b",
        rf"\b{_DAY}[\s-]+(?:of\s+)?{_MONTH},?[\s-]+(?P<year>[0-9]{{4}})\b",
        rf"\b{_MONTH}\s+{_DAY},?\s+(?P<year>[0-9]{{4}})\b",
        rf"\b{_MONTH},?\s+(?P<year>[0-9]{{4}})\b",
    )
)
_CLOCK = re.compile(
    r"(?:\b|T)(?P<hour>[0-9]{1,2})(?::(?P<minute>[0-9]{2})(?::(?P<second>[0-9]{2})(?:[.,][0-9]+)?)?)?"
    r"\s*(?P<half>[ap]\.?m\b\.?)?\s*(?P<zone>Z\b|[+-][0-9]{2}:?[0-9]{2}\b)?",
    re.IGNORECASE,
)
_FILLER = re.compile(
    r"\b(?:(?:mon|tues?|wed(?:nes)?|thu(?:rs)?|fri|sat(?:ur)?|sun)(?:day)?|at|on|utc|gmt)\b|[\s,.()\[\]|-]",
    re.IGNORECASE,
)
_EPOCH = re.compile(r"(?P<seconds>[0-9]{10})(?P<rest>[0-9]{3}|[0-9]{6}|\.[0-9]+)?")


def read_times(texts: Sequence[str]) -> list[datetime.datetime | None]:
    """Reads the times of one dialogue; None where one cannot be read.

    ISO 8601, seconds and milliseconds since 1970, dates in figures and in words, with the time of
    day in 12 or 24 hours. In 03/04/2024 the month comes first, unless another date of the dialogue
    can only be read with the day first.
    """
    day_first = any((date := _DATES[2].search(text)) and int(date["first"]) > 12 for text in texts)
    return [_read(text, day_first) for text in texts]


def session_time(time: datetime.datetime) -> str:
    """Formats a time as LoCoMo does, without zero padding: "1:56 pm on 8 May, 2023"."""
    return f"{time.hour % 12 or 12}:{time:%M} {time:%p}".lower() + f" on {time.day} {time:%B, %Y}"


def _read(text: str, day_first: bool) -> datetime.datetime | None:
    text = " ".join(text.split())
    try:
        if epoch := _EPOCH.fullmatch(text):
            return datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=int(epoch["seconds"]))
        date = next(filter(None, (pattern.search(text) for pattern in _DATES)), None)
        if date is None:
            return None
        rest = f"{text[: date.start()]} {text[date.end() :]}"
        clock = next((m for m in _CLOCK.finditer(rest) if m["minute"] or m["half"]), None)
        if clock is not None:
            rest = f"{rest[: clock.start()]} {rest[clock.end() :]}"
        if _FILLER.sub("", rest):
            return None  # it says more than a date and a time
        day = datetime.datetime(*_date(date, day_first))
        return day if clock is None else day + _time_of_day(clock)
    except (ValueError, OverflowError):  # no such day
        return None


def _date(match: re.Match, day_first: bool) -> tuple[int, int, int]:
    found = match.groupdict()
    year = int(found["year"])
    year += 2000 if len(found["year"]) == 2 else 0
    if "first" in found:
        first, second = int(found["first"]), int(found["second"])
        swapped = day_first or first > 12 or found["mark"] == "."
        return (year, second, first) if swapped else (year, first, second)
    month = found.get("month")
    month = int(month) if month else 1 + _MONTHS.index(found["name"].lower())
    return year, month, int(found.get("day") or 1)


def _time_of_day(match: re.Match) -> datetime.timedelta:
    hour, minute, second = (int(match[name] or 0) for name in ("hour", "minute", "second"))
    if match["half"]:
        if not 1 <= hour <= 12:
            raise ValueError("no such hour")
        hour = hour % 12 + (12 if match["half"].lower().startswith("p") else 0)
    if hour > 24 or minute > 59 or second > 60:
        raise ValueError("no such time")
    zone = match["zone"] or "Z"
    ahead = datetime.timedelta()
    if zone.upper() != "Z":
        digits = zone[1:].replace(":", "")
        ahead = datetime.timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
        ahead = -ahead if zone[0] == "-" else ahead
    return datetime.timedelta(hours=hour, minutes=minute, seconds=second) - ahead
