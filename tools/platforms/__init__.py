"""Every platform that the notes name, given our objects and run as far as it runs on one machine.

A piece is a module here with `run(folder)`, which gives a `Piece` or raises. It works in the folder
that it's given and below `.cache`, needs no account, and skips with a reason where something that
it stands on is missing.
"""
