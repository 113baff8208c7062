"""Toy SavedModels, each made for a rule under test. Written by a child process, never by pytest's.

Every function writes one version folder; TensorFlow is imported only when one is called.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

# Signatures of `write_toy` that return their input `x` as `y`; each is named after its type.
IDENTITIES = (
    "float", "double", "int32", "int16", "int8", "uint8", "uint16", "int64", "uint32", "uint64",
    "bool", "string", "half", "complex64", "complex128",
)  # fmt: skip


def write_toy(folder: str) -> None:
    """One model with a signature for each rule; `serving_default` is 0.5 x + 2."""
    import tensorflow as tf

    vector = {"x": tf.TensorSpec([None], tf.float32, "x")}

    def several(total: Any, n: Any, text: Any) -> dict[str, Any]:
        return {
            "total": tf.reduce_sum(total, 1) + tf.cast(n, tf.float32),
            "n": n * 2,
            "text": tf.strings.join([text, text]),
            "text_bytes": text,
        }

    def checked(x: Any) -> dict[str, Any]:
        with tf.control_dependencies([tf.debugging.assert_less(x, 10.0, message="too big")]):
            return {"y": tf.identity(x)}

    signatures = {
        "serving_default": _signature(lambda x: {"y": 0.5 * x + 2.0}, **vector),
        "several": _signature(
            several,
            total=tf.TensorSpec([None, 2], tf.float32, "total"),
            n=tf.TensorSpec([None], tf.int64, "n"),
            text=tf.TensorSpec([None], tf.string, "text"),
        ),
        "scalar": _signature(lambda x: {"y": tf.reduce_sum(x)}, **vector),
        "scalar_bytes": _signature(
            lambda x: {"y_bytes": tf.strings.reduce_join(x)},
            x=tf.TensorSpec([None], tf.string, "x"),
        ),
        "mixed": _signature(lambda x: {"y": x, "z": tf.concat([x, x], 0)}, **vector),
        "checked": _signature(checked, **vector),
        "to_number": _signature(
            lambda x: {"y": tf.strings.to_number(x)}, x=tf.TensorSpec([None], tf.string, "x")
        ),
        "matrix": _signature(
            lambda x: {"y": tf.matmul(x, tf.ones([3, 2]))},
            x=tf.TensorSpec([None, 3], tf.float32, "x"),
        ),
        "to_half": _signature(lambda x: {"y": tf.cast(x, tf.float16)}, **vector),
        "constant": _signature(lambda: {"y": tf.constant([1.0])}),
    }
    for dtype in IDENTITIES:
        spec = tf.TensorSpec([None], tf.as_dtype({"float": "float32"}.get(dtype, dtype)), "x")
        signatures[dtype] = _signature(lambda x: {"y": tf.identity(x)}, x=spec)
    tf.saved_model.save(tf.Module(), folder, signatures=signatures)


def write_slow(folder: str) -> None:
    """Counts to `n` in the graph, about a second for each half million, and returns it."""
    import tensorflow as tf

    def count(n: Any) -> dict[str, Any]:
        goal = tf.reduce_max(n)
        counted = tf.while_loop(lambda i: i < goal, lambda i: (i + 1,), [tf.constant(0)])
        return {"y": n + counted[0] - goal}

    signature = _signature(count, n=tf.TensorSpec([None], tf.int32, "n"))
    tf.saved_model.save(tf.Module(), folder, signatures={"serving_default": signature})


def write_convolution(folder: str) -> None:
    """A 3x3 convolution over images; oneDNN aborts the process on any other rank."""
    import tensorflow as tf

    kernel = tf.ones([3, 3, 1, 1])
    signature = _signature(
        lambda x: {"y": tf.reduce_sum(tf.nn.conv2d(x, kernel, 1, "SAME"), [1, 2, 3])},
        x=tf.TensorSpec([None, 4, 4, 1], tf.float32, "x"),
    )
    tf.saved_model.save(tf.Module(), folder, signatures={"serving_default": signature})


def write_numbered(base: str, n_versions: int) -> None:
    """Versions 1 to n, of which each answers its own number, a variable, for every row."""
    import tensorflow as tf

    for number in range(1, n_versions + 1):
        module = tf.Module()
        module.number = tf.Variable(float(number))
        signature = _signature(
            lambda x, module=module: {"version": tf.zeros_like(x) + module.number},
            x=tf.TensorSpec([None], tf.float32, "x"),
        )
        tf.saved_model.save(module, f"{base}/{number}", signatures={"serving_default": signature})


def write_two_outputs(folder: str) -> None:
    """Takes what the numbered versions take and has other outputs."""
    import tensorflow as tf

    signature = _signature(
        lambda x: {"double": x * 2.0, "half": x / 2.0}, x=tf.TensorSpec([None], tf.float32, "x")
    )
    tf.saved_model.save(tf.Module(), folder, signatures={"serving_default": signature})


def write_odd(folder: str) -> None:
    """Under the tag `odd`: an input with a default, bfloat16, a sparse tensor, one tensor twice."""
    import tensorflow as tf

    v1 = tf.compat.v1
    with v1.Graph().as_default(), v1.Session() as session:
        x, step = v1.placeholder(tf.float32, [None], "x"), v1.placeholder(tf.float32, [], "step")
        brain = v1.placeholder(tf.bfloat16, [None], "brain")
        sparse = v1.sparse_placeholder(tf.float32, [None, 2], "sparse")

        def signature(inputs: dict[str, Any], outputs: dict[str, Any], method: str) -> Any:
            info = v1.saved_model.build_tensor_info
            return v1.saved_model.build_signature_def(
                {alias: info(tensor) for alias, tensor in inputs.items()},
                {alias: info(tensor) for alias, tensor in outputs.items()},
                method,
            )

        y = x + step
        stepped = signature({"x": x, "step": step}, {"y": y, "z": y}, "tensorflow/serving/predict")
        stepped.defaults["step"].CopyFrom(tf.make_tensor_proto(1.0))
        builder = v1.saved_model.Builder(folder)
        builder.add_meta_graph_and_variables(
            session,
            ["odd", "tags"],
            signature_def_map={
                "serving_default": stepped,
                "brain": signature({"x": brain}, {"y": brain * 2}, "of/our/own"),
                "sparse": signature({"x": sparse}, {"y": tf.sparse.to_dense(sparse)}, ""),
            },
        )
        builder.save()


def write_trained(folder: str) -> None:
    """A signature that changes the model at each run, as training does, and one that only asks."""
    import tensorflow as tf

    module = tf.Module()
    module.w = tf.Variable(0.0)
    x = tf.TensorSpec([None], tf.float32, "x")
    signatures = {
        "train": _signature(lambda x: {"w": x * 0.0 + module.w.assign_add(1.0)}, x=x),
        "serving_default": _signature(lambda x: {"w": x * 0.0 + module.w}, x=x),
    }
    tf.saved_model.save(module, folder, signatures=signatures)


def write_wide(folder: str) -> None:
    """Operations whose cost grows with the square of the input's width; one takes nearly all."""
    import tensorflow as tf

    def square(x: Any) -> dict[str, Any]:
        return {"y": tf.reduce_sum(tf.math.lgamma(tf.matmul(x, x, transpose_a=True)))[None]}

    signature = _signature(square, x=tf.TensorSpec([None, None], tf.float32, "x"))
    tf.saved_model.save(tf.Module(), folder, signatures={"serving_default": signature})


def write_large(folder: str) -> None:
    """150 MB of variables in a graph of some thousand nodes, as a large convolutional net has."""
    import tensorflow as tf

    module = tf.Module()
    module.variables_list = [tf.Variable(tf.zeros([250, 250])) for _ in range(600)]

    def add_up(x: Any) -> dict[str, Any]:
        for variable in module.variables_list:
            x = x + variable[0, 0]
        return {"y": x}

    signature = _signature(add_up, x=tf.TensorSpec([None], tf.float32, "x"))
    tf.saved_model.save(module, folder, signatures={"serving_default": signature})


def write_constants(folder: str) -> None:
    """150 MB of constants in the graph itself, as a frozen graph has them."""
    import tensorflow as tf

    v1 = tf.compat.v1
    with v1.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, 1000], "x")
        table = np.ones((1000, 1000), np.float32)
        y = tf.add_n([tf.reduce_sum(tf.matmul(x, tf.constant(table)), 1) for _ in range(38)])
        v1.saved_model.simple_save(session, folder, {"x": x}, {"y": y})


def write_composite(folder: str) -> None:
    """A signature with a ragged output beside a plain one, one that counts, one like any other."""
    import tensorflow as tf

    x = tf.TensorSpec([None], tf.float32, "x")

    def ragged(x: Any) -> dict[str, Any]:
        return {"plain": x, "rows": tf.RaggedTensor.from_row_lengths(x, [tf.size(x)])}

    signatures = {
        "ragged": _signature(ragged, x=x),
        "count": _signature(lambda x: {"y": tf.reduce_sum(tf.range(x[0]))[None]}, x=x),
        "serving_default": _signature(lambda x: {"y": x * 2.0}, x=x),
    }
    tf.saved_model.save(tf.Module(), folder, signatures=signatures)


def write_batched(folder: str) -> None:
    """Signatures that may, or must not, be run together; each has one row for each value of `x`."""
    import tensorflow as tf

    x = tf.TensorSpec([None], tf.float32, "x")
    module = tf.Module()
    module.count = tf.Variable(0.0)

    def checked(x: Any) -> dict[str, Any]:
        with tf.control_dependencies([tf.debugging.assert_less(x, 1e6, message="too big")]):
            return {"y": tf.identity(x) * 2.0}

    signatures = {
        "serving_default": _signature(checked, x=x),
        "any_width": _signature(
            lambda x: {"y": x + 1.0}, x=tf.TensorSpec([None, None], tf.float32, "x")
        ),
        "text": _signature(
            lambda s: {"y": tf.strings.upper(s)}, s=tf.TensorSpec([None], tf.string, "s")
        ),
        "whole": _signature(lambda n: {"y": n + 1}, n=tf.TensorSpec([None], tf.int64, "n")),
        "two_shapes": _signature(
            lambda m, n: {"y": tf.reduce_sum(m, 1) + tf.cast(n, tf.float32)},
            m=tf.TensorSpec([None, None], tf.float32, "m"),
            n=tf.TensorSpec([None], tf.int32, "n"),
        ),
        "mixing_text": _signature(
            lambda s: {"y": tf.strings.join([s, tf.strings.as_string(tf.size(s))])},
            s=tf.TensorSpec([None], tf.string, "s"),
        ),
        "mixing_whole": _signature(
            lambda n: {"y": n - tf.reduce_max(n)}, n=tf.TensorSpec([None], tf.int64, "n")
        ),
        "mixing_shapes": _signature(
            lambda m, n: {"y": m[:, 0] + tf.cast(n - tf.reduce_max(n), tf.float32)},
            m=tf.TensorSpec([None, None], tf.float32, "m"),
            n=tf.TensorSpec([None], tf.int32, "n"),
        ),
        "scalar": _signature(lambda x: {"y": tf.reduce_sum(x)}, x=x),
        "mixing": _signature(lambda x: {"y": x - tf.reduce_mean(x)}, x=x),
        "counting": _signature(lambda x: {"y": x * 0.0 + module.count.assign_add(1.0)}, x=x),
        "random": _signature(lambda x: {"y": x + tf.random.uniform([1])}, x=x),
    }
    tf.saved_model.save(module, folder, signatures=signatures)


def write_all(base: Path) -> None:
    """Write each model into a folder of its name, version 1, 2 or 1 to 5."""
    write_toy(f"{base}/toy/1")
    write_slow(f"{base}/slow/1")
    write_convolution(f"{base}/convolution/1")
    write_two_outputs(f"{base}/two_outputs/2")
    write_odd(f"{base}/odd/1")
    write_trained(f"{base}/trained/1")
    write_wide(f"{base}/wide/1")
    write_composite(f"{base}/composite/1")
    write_batched(f"{base}/batched/1")
    write_numbered(f"{base}/numbered", 5)


def _signature(function: Callable[..., Any], **specs: Any) -> Any:
    import tensorflow as tf

    return tf.function(function).get_concrete_function(**specs)
