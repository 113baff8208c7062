"""Runs any compiled Kubeflow pipeline on this machine."""
