"""The error that users are meant to read."""


class UserError(Exception):
    """Bad input or environment, told in whole sentences: what was wrong, where, and what to do.

    Entry points print the message without a traceback and exit with status 2.
    """
