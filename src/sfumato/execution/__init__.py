"""Run tasks, keep what they return, resume by content."""
