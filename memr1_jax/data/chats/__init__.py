"""Chats as other programs export them, one small reader for each format."""
