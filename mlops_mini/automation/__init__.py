"""Degrees of automation: who decides a case, people or the model, and on which evidence."""
