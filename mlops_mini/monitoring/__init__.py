"""Watches a model that serves, with the care that late labels need."""
