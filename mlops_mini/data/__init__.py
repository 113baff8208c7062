"""Months of flights and a sample of images: loading them, their rows' rules, their rebuild."""
