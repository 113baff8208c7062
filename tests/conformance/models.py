"""The models that the conformance suite asks, written by a process that may import TensorFlow.

`python -m tests.conformance.models BASE` writes them for any other server, and `BASE/models.config`
to start it by: `tensorflow_model_server --model_config_file=BASE/models.config --rest_api_port=8501
--allow_version_labels_for_unavailable_models`. Then ask it with
`pytest tests/conformance -m real --rest-address=HOST:8501 --grpc-address=HOST:8500`.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Models of the configuration: name, and what follows its base path.
CONFIGS = {
    "m": "",
    "half_plus_two": 'version_labels { key: "stable" value: 123 }',
    "examples": 'version_labels { key: "stable" value: 1 }',
    "kinds": "",
    "edges": "",
    "photos": "",
    "toy": "",
    "numbered": (
        "model_version_policy { specific { versions: 1 versions: 2 versions: 3 } }"
        ' version_labels { key: "stable" value: 2 } version_labels { key: "canary" value: 3 }'
        ' version_labels { key: "gone" value: 9 }'
    ),
}


def write_recorded(folder: str) -> None:
    """The model of the recorded exchanges: a signature for each type and each kind of answer."""
    import tensorflow as tf

    def spec(dtype: Any = tf.float32, *, name: str = "x", inner: tuple[int, ...] = ()) -> Any:
        return tf.TensorSpec([None, *inner], dtype, name)

    def two(a: Any, b: Any, s: Any) -> dict[str, Any]:
        return {
            "sum": tf.reduce_sum(a, 1) + tf.cast(b, tf.float32),
            "s_out": tf.strings.join([s, s]),
            "s_out_bytes": s,
            "b2": b * 2,
        }

    def div(x: Any) -> dict[str, Any]:
        with tf.control_dependencies([tf.debugging.assert_less(x, 10.0, message="too big")]):
            return {"y": tf.identity(x)}

    def slow(x: Any) -> dict[str, Any]:
        counted = tf.while_loop(
            lambda i, _: i < 20_000_000,
            lambda i, total: (i + 1, total + 1.0),
            [tf.constant(0), tf.constant(0.0)],
        )
        return {"y": x + counted[1]}

    def same(x: Any) -> dict[str, Any]:
        return {"y": x}

    functions: dict[str, tuple[Callable[..., Any], list[Any]]] = {
        "two": (
            two,
            [spec(name="a", inner=(2,)), spec(tf.int64, name="b"), spec(tf.string, name="s")],
        ),
        "dbl": (same, [spec(tf.float64)]),
        "flt": (same, [spec()]),
        "i32": (same, [spec(tf.int32)]),
        "u8": (same, [spec(tf.uint8)]),
        "u16": (same, [spec(tf.uint16)]),
        "boo": (same, [spec(tf.bool)]),
        "u64": (same, [spec(tf.uint64)]),
        "i64": (same, [spec(tf.int64)]),
        "half": (lambda x: {"y": tf.cast(x, tf.float16)}, [spec()]),
        "scalar": (lambda x: {"y": tf.reduce_sum(x)}, [spec()]),
        "mixb": (lambda x: {"y": x, "z": tf.concat([x, x], 0)}, [spec()]),
        "stri": (same, [spec(tf.string)]),
        "div": (div, [spec()]),
        "slow": (slow, [spec()]),
        "mat": (lambda x: {"y": tf.matmul(x, tf.ones([3, 2]))}, [spec(inner=(3,))]),
        "noin": (lambda: {"y": tf.constant([1.0])}, []),
    }
    signatures = {
        name: tf.function(function, input_signature=specs).get_concrete_function()
        for name, (function, specs) in functions.items()
    }
    signatures["serving_default"] = signatures["two"]
    tf.saved_model.save(tf.Module(), folder, signatures=signatures)


def write_half_plus_two(folder: str) -> None:
    """A TF1 SavedModel with the signatures and tensor names of TensorFlow Serving's test model.

    Its `x:0` is no placeholder: the same tensor is fed by Predict and parsed from tf.Examples by
    Classify and Regress.
    """
    import tensorflow as tf

    v1 = tf.compat.v1
    with v1.Graph().as_default(), v1.Session() as session:
        tf_example = v1.placeholder(tf.string, name="tf_example")
        parsed = tf.raw_ops.ParseExample(
            serialized=tf_example,
            names=[],
            sparse_keys=[],
            dense_keys=["x", "x2"],
            dense_defaults=[tf.constant([], tf.float32), tf.constant([0.0])],
            sparse_types=[],
            dense_shapes=[[1], [1]],
            name="ParseExample/ParseExample",
        ).dense_values
        a, b, c, a2, c2 = (
            v1.get_variable(name, initializer=value, use_resource=False)
            for name, value in {"a": 0.5, "b": 2.0, "c": 3.0, "a2": 0.5, "c2": 3.0}.items()
        )
        x, x2 = tf.identity(parsed[0], "x"), tf.identity(parsed[1], "x2")
        y = tf.identity(tf.add(tf.multiply(a, x), b), "y")
        y2 = tf.identity(tf.add(tf.multiply(a, x), c), "y2")
        y3 = tf.identity(tf.add(tf.multiply(a2, x2), c2), "y3")
        session.run(v1.global_variables_initializer())

        def signature(method: str, inputs: dict[str, Any], outputs: dict[str, Any]) -> Any:
            info = v1.saved_model.build_tensor_info
            return v1.saved_model.build_signature_def(
                {alias: info(tensor) for alias, tensor in inputs.items()},
                {alias: info(tensor) for alias, tensor in outputs.items()},
                f"tensorflow/serving/{method}",
            )

        builder = v1.saved_model.Builder(folder)
        builder.add_meta_graph_and_variables(
            session,
            ["serve"],
            signature_def_map={
                "serving_default": signature("predict", {"x": x}, {"y": y}),
                "regress_x_to_y": signature("regress", {"inputs": tf_example}, {"outputs": y}),
                "regress_x_to_y2": signature("regress", {"inputs": tf_example}, {"outputs": y2}),
                "regress_x2_to_y3": signature("regress", {"inputs": x2}, {"outputs": y3}),
                "classify_x_to_y": signature("classify", {"inputs": tf_example}, {"scores": y}),
            },
        )
        builder.save()


def write_examples(folder: str) -> None:
    """TF2 functions over tf.Examples: every shape of answer that Classify and Regress refuse."""
    import tensorflow as tf

    features = {
        "x": tf.io.FixedLenFeature([], tf.float32),
        "n": tf.io.FixedLenFeature([], tf.int64, 0),
        "text": tf.io.FixedLenFeature([], tf.string, b""),
    }
    names = tf.constant([[b"low", b"high"]])

    def parse(inputs: Any) -> tuple[Any, Any]:
        parsed = tf.io.parse_example(inputs, features)
        x = parsed["x"] + tf.cast(parsed["n"], tf.float32)
        return x, tf.repeat(names, tf.shape(x)[0], 0)

    def answers(inputs: Any) -> dict[str, dict[str, Any]]:
        x, classes = parse(inputs)
        scores = tf.stack([1.0 - x, x], 1)
        return {
            "serving_default": {"classes": classes, "scores": scores},
            "classes": {"classes": classes},
            "scores": {"scores": scores},
            "regress": {"outputs": x},
            "flat_classes": {"classes": classes[:, 0]},
            "flat_scores": {"scores": x},
            "wide_regress": {"outputs": scores},
            "double_scores": {"scores": tf.cast(scores, tf.float64)},
            "double_regress": {"outputs": tf.cast(x, tf.float64)},
            "number_classes": {"classes": scores},
            "short_scores": {"scores": scores[:1]},
            "short_regress": {"outputs": x[:1]},
            "uneven": {"classes": classes, "scores": scores[:, :1]},
            "three": {"classes": classes, "scores": scores, "more": x},
        }

    spec = tf.TensorSpec([None], tf.string, "inputs")
    signatures = {
        name: tf.function(
            lambda inputs, name=name: answers(inputs)[name], input_signature=[spec]
        ).get_concrete_function()
        for name in answers(tf.constant([], tf.string))
    }
    tf.saved_model.save(tf.Module(), folder, signatures=signatures)


def write_kinds(folder: str) -> None:
    """What TensorFlow's own exporters do not write: an input with a default, and bfloat16."""
    import tensorflow as tf

    v1 = tf.compat.v1
    with v1.Graph().as_default(), v1.Session() as session:
        x, step = v1.placeholder(tf.float32, [None], "x"), v1.placeholder(tf.float32, [], "step")
        brain = v1.placeholder(tf.bfloat16, [None], "brain")

        def signature(inputs: dict[str, Any], y: Any) -> Any:
            info = v1.saved_model.build_tensor_info
            return v1.saved_model.build_signature_def(
                {alias: info(tensor) for alias, tensor in inputs.items()},
                {"y": info(y)},
                "tensorflow/serving/predict",
            )

        stepped = signature({"x": x, "step": step}, x + step)
        stepped.defaults["step"].CopyFrom(tf.make_tensor_proto(1.0))
        builder = v1.saved_model.Builder(folder)
        builder.add_meta_graph_and_variables(
            session,
            ["serve"],
            signature_def_map={
                "serving_default": stepped,
                "bfloat16": signature({"x": brain}, tf.identity(brain)),
            },
        )
        builder.save()


def write_edges(folder: str) -> None:
    """Signatures that REST has rules of its own for; the default one has no input."""
    import tensorflow as tf

    def spec(dtype: Any, name: str = "x") -> Any:
        return tf.TensorSpec([None], dtype, name)

    number, text = spec(tf.float32), spec(tf.string)
    functions: dict[str, tuple[Callable[..., Any], list[Any]]] = {
        "serving_default": (lambda: {"y": tf.constant([1.0])}, []),
        "bytes_out": (lambda x: {"y_bytes": x}, [text]),
        "bytes_in": (lambda x_bytes: {"y": x_bytes}, [spec(tf.string, "x_bytes")]),
        "bytes_inside": (lambda x: {"y_bytes_z": x}, [text]),
        "bytes_of_numbers": (lambda x: {"y_bytes": x}, [number]),
        "with_half": (lambda x, h: {"y": x, "z": h}, [number, spec(tf.float16, "h")]),
        "half_scalar": (lambda x: {"y": tf.cast(tf.reduce_sum(x), tf.float16)}, [number]),
        "half_uneven": (
            lambda x: {"y": x, "z": tf.cast(tf.concat([x, x], 0), tf.float16)},
            [number],
        ),
        "two_texts": (lambda v, w: {"y": v + w}, [spec(tf.string, "v"), spec(tf.string, "w")]),
    }
    for dtype in (tf.uint16, tf.bfloat16, tf.complex64, tf.complex128):
        functions[f"to_{dtype.name}"] = (lambda x, dtype=dtype: {"y": tf.cast(x, dtype)}, [number])
    signatures = {
        name: tf.function(function, input_signature=specs).get_concrete_function()
        for name, (function, specs) in functions.items()
    }
    tf.saved_model.save(tf.Module(), folder, signatures=signatures)


def write_photos(folder: str) -> None:
    """What TensorFlow Serving's own example clients ask: encoded images, and digits as floats."""
    import tensorflow as tf

    def classify(image_bytes: Any) -> dict[str, Any]:
        images = tf.map_fn(
            lambda data: tf.reduce_mean(tf.cast(tf.io.decode_png(data, 1), tf.float32)) / 255.0,
            image_bytes,
            fn_output_signature=tf.float32,
        )
        probabilities = tf.stack([1.0 - images, images], 1)
        return {"classes": tf.argmax(probabilities, 1), "probabilities": probabilities}

    def digits(images: Any) -> dict[str, Any]:
        return {"scores": tf.nn.softmax(images[:, :10] * 100.0)}

    spec = tf.TensorSpec([None], tf.string, "image_bytes")
    pixels = tf.TensorSpec([None, 784], tf.float32, "images")
    signatures = {
        "serving_default": tf.function(classify, input_signature=[spec]).get_concrete_function(),
        "predict_images": tf.function(digits, input_signature=[pixels]).get_concrete_function(),
    }
    tf.saved_model.save(tf.Module(), folder, signatures=signatures)


def write_retyped(base: str) -> None:
    """Versions 1 to 3 with the same names, of which only the type of the answer changes."""
    import tensorflow as tf

    for version, dtype in enumerate((tf.float32, tf.float64, tf.int64), 1):
        signature = tf.function(
            lambda x, dtype=dtype: {"y": tf.cast(x, dtype)},
            input_signature=[tf.TensorSpec([None], tf.float32, "x")],
        ).get_concrete_function()
        folder = f"{base}/{version}"
        tf.saved_model.save(tf.Module(), folder, signatures={"serving_default": signature})


def write_records(file: str, records: list[bytes]) -> None:
    """A TFRecord file, such as the one for warm-up."""
    import tensorflow as tf

    with tf.io.TFRecordWriter(file) as writer:
        for record in records:
            writer.write(record)


def write_all(base: Path) -> None:
    """Write all models and `models.config`, which serves them under the names of the tables."""
    from tests.serving.models import write_numbered, write_toy

    write_recorded(f"{base}/m/1")
    write_half_plus_two(f"{base}/half_plus_two/00000123")
    write_examples(f"{base}/examples/1")
    write_kinds(f"{base}/kinds/1")
    write_edges(f"{base}/edges/1")
    write_photos(f"{base}/photos/1")
    write_toy(f"{base}/toy/1")
    write_numbered(f"{base}/numbered", 4)
    (base / "models.config").write_text(
        "model_config_list {\n"
        + "".join(
            f'  config {{ name: "{name}" base_path: "{base}/{name}"'
            f' model_platform: "tensorflow" {more} }}\n'
            for name, more in CONFIGS.items()
        )
        + "}\n"
    )


if __name__ == "__main__":
    write_all(Path(sys.argv[1]).resolve())
