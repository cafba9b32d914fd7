"""The page of a run: what the banks held turn by turn, curves, and before compared with after."""
