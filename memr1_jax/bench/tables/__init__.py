"""Tables of memory systems: options, data, models, rows as files, and what is drawn from them."""
