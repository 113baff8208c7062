"""For authors of notebooks: refresh, check, solutions, render. Readers never need it."""
