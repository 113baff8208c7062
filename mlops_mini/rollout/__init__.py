"""Lets a new version meet live traffic, exposed only as far as the evidence allows."""
