"""Makes a judge for the nano model's answers: `python -m experiments.make_judge`.

On two CPU cores it takes minutes; nothing is downloaded.
"""

from experiments.command_line import define_flags, parsed, run
from memr1_jax.studies.nano_judge import NanoJudgeConfig

define_flags(NanoJudgeConfig)


def main() -> None:
    """Teaches the judge and writes it."""
    from memr1_jax.studies.nano_judge import make_nano_judge

    make_nano_judge(parsed(NanoJudgeConfig))


if __name__ == "__main__":
    run(main)
