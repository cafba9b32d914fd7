"""Command lines from option dataclasses, and errors as sentences."""

import dataclasses
import sys
from collections.abc import Callable
from typing import Any

from absl import app, flags, logging

from memr1_jax.errors import UserError


def define_flags(options: type, values: flags.FlagValues = flags.FLAGS) -> None:
    """Defines one absl flag for each field of a dataclass, with its default and help text."""
    for field in dataclasses.fields(options):
        text, choices = field.metadata["help"], field.metadata["choices"]
        if choices:
            flags.DEFINE_enum(field.name, field.default, list(choices), text, flag_values=values)
        elif isinstance(field.default, bool):
            flags.DEFINE_bool(field.name, field.default, text, flag_values=values)
        elif isinstance(field.default, int):
            flags.DEFINE_integer(field.name, field.default, text, flag_values=values)
        elif isinstance(field.default, float):
            flags.DEFINE_float(field.name, field.default, text, flag_values=values)
        else:
            flags.DEFINE_string(field.name, field.default, text, flag_values=values)


def parsed(options: type, values: flags.FlagValues = flags.FLAGS) -> Any:
    """Makes an instance of the dataclass from the parsed flags; a recipe's parts are set."""
    names = [field.name for field in dataclasses.fields(options)]
    found = options(**{name: getattr(values, name) for name in names})
    if not getattr(found, "recipe", ""):
        return found
    from memr1_jax.training.recipe import with_recipe

    return with_recipe(found, [name for name in names if values[name].present])


def run(main: Callable[[], None]) -> None:
    """Runs an entry point; a `UserError` becomes its message and exit status 2."""

    def guarded(argv):
        if argv[1:]:
            raise app.UsageError(f"Unknown arguments {argv[1:]}; every option is a flag.")
        logging.set_verbosity(logging.WARNING)  # orbax reports every file at INFO
        try:
            main()
        except UserError as error:
            print(f"Error: {error}", file=sys.stderr)
            sys.exit(2)

    app.run(guarded)


def run_experiment(options: type) -> None:
    """Defines the options as flags, parses them and runs the experiment that they describe.

    A run that is asked to stop saves, says how to go on, and ends with exit status 0.
    """
    define_flags(options)

    def main():
        from memr1_jax.parallel.distributed import initialize, is_main
        from memr1_jax.run.preemption import Preempted
        from memr1_jax.training.experiment import Experiment

        chosen = parsed(options)
        initialize(chosen.distributed, chosen.num_processes, chosen.process_id)
        try:
            Experiment(chosen).run()
        except Preempted as stopped:
            if is_main():
                print(stopped)

    run(main)
