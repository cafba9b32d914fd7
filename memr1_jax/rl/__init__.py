"""Reinforcement learning as pure functions: rewards, advantages, KL estimators, losses."""
