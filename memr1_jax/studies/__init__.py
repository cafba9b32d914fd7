"""Compares runs: the nano model and its judge, what RL teaches it, and ablations."""
