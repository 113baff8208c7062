"""The pipeline's model in the words of TFX: a module for its components Transform and Trainer.

Our pipeline puts preprocessing into the model, and so does TFX, by two functions that its users
write. They follow from a use case and from `model.training`: which features are numbers and which
are categories, and how the network looks. TFX isn't imported here; whoever runs the module has it.

Source:
    https://www.tensorflow.org/tfx/guide/transform and .../guide/trainer
"""

from mlops_mini.errors import InvalidArgumentError
from mlops_mini.model import training
from mlops_mini.use_case import UseCase

_MODULE = '''\
"""What TFX's Transform and Trainer run for the use case @NAME@; generated, so don't edit it."""

import keras
import tensorflow as tf
import tensorflow_transform as tft
from tfx_bsl.public import tfxio

CATEGORIES = @CATEGORIES@
NUMBERS = @NUMBERS@
LABEL = @LABEL@
HIDDEN_UNITS = @HIDDEN_UNITS@
LEARNING_RATE = @LEARNING_RATE@
BATCH_SIZE = @BATCH_SIZE@
L2_PENALTY = @L2_PENALTY@
MAX_DEVIATIONS = @MAX_DEVIATIONS@
EPOCHS = @EPOCHS@
SEED = @SEED@


def _dense(feature, missing):
    """Bring a feature of which some values may be missing into the shape [batch]."""
    if isinstance(feature, tf.SparseTensor):
        shape = [feature.dense_shape[0], 1]
        column = tf.SparseTensor(feature.indices, feature.values, shape)
        feature = tf.sparse.to_dense(column, missing)
    return tf.reshape(feature, [-1])


def preprocessing_fn(inputs):
    """Standardize numbers, and number categories, by what is in the training data."""
    outputs = {LABEL: _dense(inputs[LABEL], 0)}
    for name in NUMBERS:
        mean, variance = tft.mean(inputs[name]), tft.var(inputs[name])
        varies = variance > 0
        z = (_dense(inputs[name], float("nan")) - mean) / tf.where(varies, tf.sqrt(variance), 1.0)
        known = tf.where(tf.math.is_nan(z) | ~varies, 0.0, z)
        outputs[name] = tf.clip_by_value(known, -MAX_DEVIATIONS, MAX_DEVIATIONS)
    for name in CATEGORIES:
        outputs[name] = tft.compute_and_apply_vocabulary(
            _dense(inputs[name], ""), num_oov_buckets=1, vocab_filename=name
        )
    return outputs


def _network(n_categories):
    """Make the network, from transformed features to a probability, all of shape [batch]."""
    penalty = keras.regularizers.L2(L2_PENALTY)
    fields = {name: keras.Input((), name=name, dtype="int64") for name in CATEGORIES}
    fields |= {name: keras.Input((), name=name, dtype="float32") for name in NUMBERS}
    parts = [
        keras.layers.CategoryEncoding(n_categories[name], output_mode="one_hot")(fields[name])
        for name in CATEGORIES
    ]
    if NUMBERS:
        parts.append(keras.ops.stack([fields[name] for name in NUMBERS], axis=-1))
    x = keras.ops.concatenate(parts, axis=-1)
    for n_units in HIDDEN_UNITS:
        x = keras.layers.Dense(n_units, "relu", kernel_regularizer=penalty)(x)
    x = keras.layers.Dense(1, "sigmoid", kernel_regularizer=penalty)(x)
    return keras.Model(fields, keras.layers.Reshape(())(x))


def export(model, transform, serve, folder):
    """Write a SavedModel whose variables are found by whoever loads it by a session, as servers do.

    `tf.saved_model.save` of a `tf.Module` that holds a model of Keras 3 gives one that TFX's
    Evaluator blesses, and that no such server can answer from.
    """
    archive = keras.export.ExportArchive()
    archive.track(model)
    archive._tf_trackable.transform = transform
    archive.add_endpoint("serving_default", serve, [tf.TensorSpec([None], tf.string, "examples")])
    archive.write_out(folder, verbose=False)


def run_fn(fn_args):
    """Train on transformed examples, and export with the preprocessing inside."""
    keras.utils.set_random_seed(SEED)
    transformed = tft.TFTransformOutput(fn_args.transform_output)
    options = tfxio.TensorFlowDatasetOptions(batch_size=BATCH_SIZE, label_key=LABEL, num_epochs=1)
    examples = fn_args.data_accessor.tf_dataset_factory(
        fn_args.train_files, options, transformed.transformed_metadata.schema
    )
    # One more than the vocabulary holds, for what training hasn't seen.
    sizes = {name: transformed.vocabulary_size_by_name(name) + 1 for name in CATEGORIES}
    model = _network(sizes)
    optimizer = keras.optimizers.Adam(LEARNING_RATE)
    model.compile(optimizer, "binary_crossentropy", jit_compile=False)
    model.fit(examples, epochs=EPOCHS, verbose=0)

    transform = transformed.transform_features_layer()
    raw = transformed.raw_feature_spec()
    raw.pop(LABEL)  # a request has none

    def serve(examples):
        features = transform(tf.io.parse_example(examples, raw))
        return {"probability": model({name: features[name] for name in [*CATEGORIES, *NUMBERS]})}

    export(model, transform, serve, fn_args.serving_model_dir)
'''


def module(case: UseCase, *, epochs: int = 5, seed: int = 0) -> str:
    """Write the module of a use case that tells two classes apart.

    The model is that of `model.training.train`: categories one-hot, with a place for unseen ones,
    numbers standardized and held within 3 deviations, two hidden layers. It takes serialized
    `tf.Example`s, as TFX's models do.

    Args:
        case: Its features are numbers and categories; its label is 1 or 0.
        epochs: Passes over the rows.
        seed: Of the training.

    Returns:
        Source of `preprocessing_fn`, which Transform runs, and of `run_fn`, which Trainer runs.

    Raises:
        InvalidArgumentError: The use case has a network of its own, tensors, or several classes.
    """
    dtypes = {feature.name: feature.dtype for feature in case.feature_set.features}
    if case.train or case.label.n_classes > 2 or "tensor" in dtypes.values():
        raise InvalidArgumentError(
            f"use case {case.name} has no module for TFX: that is made for the network of"
            " model.training, for two classes, and features that are numbers and categories"
        )
    constants: dict[str, object] = {
        "CATEGORIES": [name for name, dtype in dtypes.items() if dtype == "string"],
        "NUMBERS": [name for name, dtype in dtypes.items() if dtype == "float32"],
        "LABEL": case.label.column,
        "HIDDEN_UNITS": training.HIDDEN_UNITS,
        "LEARNING_RATE": training.LEARNING_RATE,
        "BATCH_SIZE": training.BATCH_SIZE,
        "L2_PENALTY": training.L2_PENALTY,
        "MAX_DEVIATIONS": training.MAX_DEVIATIONS,
        "EPOCHS": epochs,
        "SEED": seed,
    }
    text = _MODULE.replace("@NAME@", case.name)
    for name, value in constants.items():
        text = text.replace(f"@{name}@", repr(value))
    return text
