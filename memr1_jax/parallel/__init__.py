"""Meshes, sharding rules and ahead-of-time compilation."""
