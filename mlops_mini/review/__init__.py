"""Review: a queue of cases that people decide, and the page on which they do it."""
