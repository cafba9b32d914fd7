"""Entry points for TPUs."""
