"""Features, each defined once and computed from the same definition offline and online."""
