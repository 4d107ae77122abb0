"""Methods that run in a Python environment and a repository of their own, or in another language: a child process."""
