"""Memory for applications: trained agents behind a memory interface, on one SQL database."""

import importlib.util

from memr1_jax.errors import UserError

if importlib.util.find_spec("sqlalchemy") is None:
    raise UserError('The memory service needs more libraries: pip install "memr1_jax[service]".')
