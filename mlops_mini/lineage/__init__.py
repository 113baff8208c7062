"""Where a version comes from: one question shows the data, code, parameters and verdict."""
