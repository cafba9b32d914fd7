"""The two agents: prompts, rollouts, and what their output means."""
