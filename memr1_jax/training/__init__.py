"""The compiled step, the loop around it, checkpoints and logs."""
