"""From features to a published model: train, evaluate, publish."""
