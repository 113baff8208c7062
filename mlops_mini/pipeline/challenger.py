"""A component with other libraries: XGBoost on the same rows, in an environment of its own.

That environment has nothing of this package, and only files pass. Kubeflow installs the libraries
into a plain Python image, our runner makes an environment of them.
"""

# A digest for the cache alone; outputs are described under Returns; kfp has no types.
# ruff: noqa: ARG001, D417
# mypy: disable-error-code="untyped-decorator"

from kfp import dsl
from kfp.dsl import Dataset, Input, Model, Output

IMAGE = "python:3.11"
# The same as environments/xgboost.txt.
PACKAGES = [
    "numpy==2.4.6",
    "pyarrow==26.0.1",
    "scipy==1.17.1",
    "xgboost==3.2.0 ; python_full_version < '3.14' and platform_machine == 'arm64' and sys_platform == 'darwin'",  # noqa: E501
    "xgboost-cpu==3.2.0 ; python_full_version < '3.14' and ((platform_machine == 'aarch64' and sys_platform == 'linux') or (platform_machine == 'x86_64' and sys_platform == 'linux'))",  # noqa: E501
]


@dsl.component(base_image=IMAGE, packages_to_install=PACKAGES)
def challenger(  # noqa: PLR0917, a component's parameters are named when it is used
    train_examples: Input[Dataset],
    test_examples: Input[Dataset],
    key: str,
    label: str,
    features: list[str],
    seed: int,
    data_digest: str,
    predictions: Output[Dataset],
    booster: Output[Model],
) -> str:
    """Train gradient-boosted trees on the same rows as the candidate.

    Args:
        train_examples: Parquet, one row per example.
        test_examples: Parquet, the examples to predict.
        key: The column that tells examples apart.
        label: The column that's predicted, 0 or 1 in each row.
        features: The columns to learn from; numbers stay numbers, all others are categories.
        seed: Seeds XGBoost; it runs on one thread, so the same rows give the same trees.
        data_digest: Of the files that the examples were made from.

    Returns:
        predictions: Parquet with the key and `probability`, one row per test example.
        booster: XGBoost's own JSON.
        Output: Digest of the predictions.
    """
    import hashlib
    from pathlib import Path

    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq
    import xgboost  # type: ignore[import-not-found]

    train, test = pq.read_table(train_examples.path), pq.read_table(test_examples.path)
    types = {name: train.schema.field(name).type for name in features}
    categories = [
        name
        for name, kind in types.items()
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind))
    ]

    def texts(table: pa.Table, name: str) -> pa.ChunkedArray:
        return table[name].cast("string")

    # A category's code is its place in the sorted list; what training hasn't seen is missing.
    vocabulary = {name: pc.unique(texts(train, name)).sort() for name in categories}

    def as_matrix(table: pa.Table) -> xgboost.DMatrix:
        columns = [
            pc.index_in(texts(table, name), vocabulary[name]).cast("float32")
            if name in categories
            else table[name]
            for name in features
        ]
        rows = np.column_stack([column.to_numpy() for column in columns])
        kinds = ["c" if name in categories else "q" for name in features]
        return xgboost.DMatrix(
            rows,
            table[label].to_numpy(),
            feature_names=features,
            feature_types=kinds,
            enable_categorical=True,
            nthread=1,
        )

    settings = {
        "objective": "binary:logistic",
        "tree_method": "hist",
        "learning_rate": 0.12,
        "max_depth": 6,
        "seed": seed,
        "nthread": 1,
    }
    trees = xgboost.train(settings, as_matrix(train), num_boost_round=60)
    Path(booster.path).write_bytes(trees.save_raw("json"))
    probability = trees.predict(as_matrix(test))
    pq.write_table(pa.table({key: test[key], "probability": probability}), predictions.path)
    return hashlib.sha256(probability.tobytes()).hexdigest()
