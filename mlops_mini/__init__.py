"""MLOps course notes made executable: data, features, training, release, serving on a laptop.

The folders read as the loop does: `data`, `features`, `pipeline`, `serving`. Importing this package
loads nothing else: take each name from its module, such as `from mlops_mini.pipeline import
publish`.
"""
