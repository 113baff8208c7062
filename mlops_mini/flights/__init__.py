"""The first use case: flights out of New York, and whether they arrive late."""
