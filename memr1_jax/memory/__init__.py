"""The memory bank: fixed-shape storage, masked edits, embedding and retrieval."""
