"""A language model that judges the answers of an evaluation; its verdicts are kept in a file."""
