"""The rows, cut by subject. A module imports a library only when a row runs: pytest reads the rows without any of them."""
