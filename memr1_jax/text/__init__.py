"""Text on the device: bytes, words, JSON and prompts as fixed-shape arrays."""
