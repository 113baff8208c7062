"""The component that has other libraries: XGBoost on the same rows, in an environment of its own.

Nothing of ours is in that environment, and only files pass. Kubeflow installs the packages into a
plain image of Python, our runner makes an environment of them.
"""

# A digest for the cache alone; outputs are described under Returns; kfp has no types.
# ruff: noqa: ARG001, D417
# mypy: disable-error-code="untyped-decorator"

from kfp import dsl
from kfp.dsl import Dataset, Input, Model, Output

# The same as environments/xgboost.txt.
PACKAGES = [
    "numpy==2.4.6",
    "pyarrow==26.0.1",
    "scipy==1.17.1",
    "xgboost==3.2.0 ; python_full_version < '3.14' and platform_machine == 'arm64' and sys_platform == 'darwin'",  # noqa: E501
    "xgboost-cpu==3.2.0 ; python_full_version < '3.14' and ((platform_machine == 'aarch64' and sys_platform == 'linux') or (platform_machine == 'x86_64' and sys_platform == 'linux'))",  # noqa: E501
]


@dsl.component(base_image="python:3.11", packages_to_install=PACKAGES)
def challenger(
    train_examples: Input[Dataset],
    test_examples: Input[Dataset],
    seed: int,
    data_digest: str,
    predictions: Output[Dataset],
    booster: Output[Model],
) -> str:
    """Train gradient-boosted trees on the same rows, with other libraries and none of ours.

    Args:
        train_examples: Parquet; all columns but `flight_id` and `late` are features.
        test_examples: The same of other flights.
        seed: Seeds XGBoost; it runs on one thread, so the same rows give the same trees.
        data_digest: Of the files that the examples were made from.

    Returns:
        predictions: Parquet with `flight_id` and `probability`, a row for each test example.
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

    known, asked = pq.read_table(train_examples.path), pq.read_table(test_examples.path)
    names = [name for name in known.column_names if name not in ("flight_id", "late")]
    texts = [name for name in names if pa.types.is_string(known.schema.field(name).type)]
    # A category's code is its place in the sorted list; what training has not seen is missing.
    vocabulary = {name: pc.unique(known[name]).sort() for name in texts}

    def as_numbers(table: pa.Table) -> xgboost.DMatrix:
        columns = [
            pc.index_in(table[name], vocabulary[name]).cast("float32")
            if name in texts
            else table[name]
            for name in names
        ]
        rows = np.column_stack([column.to_numpy() for column in columns])
        kinds = ["c" if name in texts else "q" for name in names]
        label = table["late"].to_numpy()
        return xgboost.DMatrix(
            rows,
            label,
            feature_names=names,
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
    trees = xgboost.train(settings, as_numbers(known), num_boost_round=60)
    Path(booster.path).write_bytes(trees.save_raw("json"))
    probability = trees.predict(as_numbers(asked))
    pq.write_table(
        pa.table({"flight_id": asked["flight_id"], "probability": probability}), predictions.path
    )
    return hashlib.sha256(probability.tobytes()).hexdigest()
