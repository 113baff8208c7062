"""Plays the loop: data arrives, a model is trained, judged, published, served and asked."""
