"""Entry points: flags and launchers only."""
