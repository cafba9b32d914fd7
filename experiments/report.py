"""Writes report.html into the folder of a run: `python -m experiments.report --output=runs/NAME`.

A training run and an evaluation write it themselves in the end; this makes it anew.
"""

from absl import flags

from experiments.command_line import run

_OUTPUT = flags.DEFINE_string("output", "runs/locomo_grpo", "Run folder.")


def main() -> None:
    """Writes the page and says where it is."""
    from memr1_jax.evals.report.report_page import write_report_page

    print(f"Open {write_report_page(_OUTPUT.value)}")


if __name__ == "__main__":
    run(main)
