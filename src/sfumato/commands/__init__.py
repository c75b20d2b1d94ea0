"""The commands, a file for each noun.

Each file has a `register(app)` that adds its commands; a command is a function whose arguments are its
options and whose docstring is its help. It returns the exit code.
"""
