"""A first description of a table, guessed from a file, to be reviewed by its owner."""
