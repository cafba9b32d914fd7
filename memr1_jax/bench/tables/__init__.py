"""Tables of memory systems: options, data, models, rows as files, and plots."""
