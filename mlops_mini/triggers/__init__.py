"""Five reasons to retrain, each written down and fired once."""
