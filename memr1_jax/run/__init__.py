"""Files, checkpoints, logs and progress: what any long run needs."""
