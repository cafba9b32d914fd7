"""The configuration, the compiled step, the loop around it, and the story of a whole run."""
