"""Puts trained agents to use: loads a pair, remembers what is said, answers, evaluates."""
