"""The rows, cut by family of programs."""
