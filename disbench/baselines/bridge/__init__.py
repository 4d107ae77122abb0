"""Methods that run in a child process: in their own Python environment and repository, or in another language."""
