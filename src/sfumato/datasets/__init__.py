"""Data sets: named ones, and reading, converting, checking and batching of labeled structures."""
