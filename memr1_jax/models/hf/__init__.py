"""Reads and writes Hugging Face folders: configuration, weights, adapters, tokenizer."""
