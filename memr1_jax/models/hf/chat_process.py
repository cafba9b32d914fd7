"""Renders chat templates, one request a line; a script of its own that imports nothing but jinja2.

The first argument is where modules are found, as JSON. The process writes no file, and it ends
where it would need more memory or, for one request, more time than its limits.
"""

import contextlib
import datetime
import functools
import json
import resource
import sys

MEMORY = 1 << 29  # bytes of addresses
SECONDS = 3  # of computing, for one request
_GROWTH, _FRAME = 10, 1 << 20  # a text may be so many times as long as its request, and this longer


def main() -> None:
    """Answers requests from stdin on stdout: {"text": ...}, or {"error": a reason}."""
    sys.path[:] = json.loads(sys.argv[1])
    compiled = functools.cache(_environment().from_string)
    print(flush=True)  # ready
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_AS, MEMORY)
    for line in sys.stdin:
        used = resource.getrusage(resource.RUSAGE_SELF)
        _limit(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime) + 1 + SECONDS)
        print(json.dumps(_answer(line, compiled)), flush=True)


def _limit(kind: int, most: int) -> None:
    """Lowers a limit of this process, where the system has it."""
    hard = resource.getrlimit(kind)[1]
    if hard == resource.RLIM_INFINITY or most < hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(kind, (most, hard))


def _answer(line: str, compiled) -> dict[str, str]:
    most = _GROWTH * len(line) + _FRAME
    try:
        request = json.loads(line)
        variables, pieces, length = request["variables"], [], 0
        if request["today"]:
            variables["strftime_now"] = datetime.date.fromisoformat(request["today"]).strftime
        for piece in compiled(request["template"]).generate(variables):
            length += len(piece)
            if length > most:
                return {"error": f"it writes more than {most:,} characters"}
            pieces.append(piece)
        return {"text": "".join(pieces)}
    except MemoryError:
        return {"error": "it needs too much memory"}
    except RecursionError:
        return {"error": "it calls itself without end"}
    except Exception as error:  # whatever a template does
        return {"error": str(error)[:500] or type(error).__name__}


def _environment():
    """Makes what templates expect, as `apply_chat_template` of transformers 5 does."""
    import jinja2
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """Reads the tag around what an assistant wrote, which says nothing here."""

        tags = {"generation"}

        def parse(self, parser):
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    def raise_exception(message):
        raise jinja2.TemplateError(message)

    def to_json(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(
            value,
            ensure_ascii=ensure_ascii,
            indent=indent,
            separators=separators,
            sort_keys=sort_keys,
        )

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, Generation]
    )
    environment.filters["tojson"] = to_json
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
    return environment


if __name__ == "__main__":
    main()
