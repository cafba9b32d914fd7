"""LoCoMo's own summaries of its sessions (arXiv 2402.17753), for retrieval over summaries."""

import os
import re

from memr1_jax.data.nodes import read_json

_KEY = re.compile(r"session_([0-9]{1,9})_summary")


def read_summaries(path: str | os.PathLike) -> dict[str, dict[int, str]]:
    """Reads the summaries of a file in LoCoMo's format, by conversation and session number.

    A file without summaries gives empty dictionaries. UserError where it is not of the schema.
    """
    found = {}
    for sample in read_json(path).of(list).items():
        texts = {}
        if "session_summary" in sample:
            summaries = sample["session_summary"].of(dict)
            for key in summaries.value:
                if match := _KEY.fullmatch(key):
                    texts[int(match[1])] = summaries.text(key)
        found[sample.text("sample_id")] = texts
    return found
