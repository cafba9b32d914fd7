"""Memory systems side by side on one backbone: each reads sessions, then answers questions."""
