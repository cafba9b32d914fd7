"""Dialogues: loaders, a generator, and fixed-shape training batches."""
