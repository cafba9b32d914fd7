"""Metrics, intervals and evaluation of the two agents on benchmark questions."""
