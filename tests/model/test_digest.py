"""Digests of models: equal for the same answers, different for whatever could change one."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlops_mini.errors import DataIntegrityError, NotFoundError
from mlops_mini.model import training
from mlops_mini.model.digest import check_digest, model_digest


def save(
    folder: Path,
    *,
    weight: float = 2.0,
    constant: float = 0.5,
    activation: str = "relu",
    words: tuple[str, ...] = ("EWR", "JFK"),
    step: float = 1.0,
    assertion: float = 99.0,
    unused: float = 0.0,
    alias: str = "y",
    name: str = "serving_default",
    scope: str = "",
    options: Any = None,
) -> Path:
    """Save a module with all that a digest must see: variable, constant, table, loop, assertion."""
    import tensorflow as tf

    module = tf.Module()
    with tf.name_scope(scope or "a"):
        module.weights = tf.Variable([weight, 3.0])
        module.unused = tf.Variable(unused)
        fill = tf.lookup.KeyValueTensorInitializer(
            list(words), [float(i) for i in range(len(words))]
        )
        module.table = tf.lookup.StaticHashTable(fill, -1.0)

    @tf.function(
        input_signature=[tf.TensorSpec([None], tf.float32), tf.TensorSpec([None], tf.string)]
    )
    def answer(x: Any, word: Any) -> dict[str, Any]:
        with tf.name_scope(scope or "a"):
            tf.debugging.Assert(tf.reduce_all(x < assertion), ["too big"])
            y = getattr(tf.nn, activation)(x * module.weights[0] + constant) + module.table.lookup(
                word
            )
            _, total = tf.while_loop(
                lambda i, _: i < 3, lambda i, total: (i + 1, total + step), [0, module.weights[1]]
            )
            return {alias: y + total}

    tf.saved_model.save(module, str(folder), signatures={name: answer}, options=options)
    return folder


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("digests") / "saved")


def test_exports_of_one_model_differ_in_bytes_and_not_in_digest(
    exported: Path, model: Any, tmp_path: Path
) -> None:
    training.export(model, tmp_path / "again")

    bytes_of = [
        (folder / "saved_model.pb").read_bytes() for folder in (exported, tmp_path / "again")
    ]
    assert bytes_of[0] != bytes_of[1]
    assert model_digest(exported) == model_digest(tmp_path / "again")
    check_digest(exported, model_digest(tmp_path / "again"))


def test_a_model_loaded_from_its_keras_file_has_the_digest_of_its_export(
    exported: Path, tmp_path: Path
) -> None:
    import keras

    loaded = keras.models.load_model(exported / training.KERAS_FILE, compile=False)
    training.export(loaded, tmp_path / "again")

    assert model_digest(exported) == model_digest(tmp_path / "again")


def test_one_weight_in_its_last_digit_makes_another_digest(exported: Path, tmp_path: Path) -> None:
    import keras

    changed = keras.models.load_model(exported / training.KERAS_FILE, compile=False)
    weights = changed.get_weights()
    weights[-1][0] = np.nextafter(weights[-1][0], np.float32(1))
    changed.set_weights(weights)
    training.export(changed, tmp_path / "changed")

    assert model_digest(exported) != model_digest(tmp_path / "changed")


def test_a_word_of_the_vocabulary_makes_another_digest_of_equal_weights(
    features, labels, tmp_path: Path
) -> None:
    few = features.head(500).assign(origin=features["origin"].head(500).replace("", "JFK"))
    renamed = few.assign(origin=few["origin"].replace("LGA", "LGB"))
    models = [training.train(each, labels[:500], epochs=1) for each in (few, renamed)]
    for name, model in zip("ab", models, strict=True):
        training.export(model, tmp_path / name)

    weights = [model.get_weights() for model in models]
    assert all(map(np.array_equal, *weights))
    assert model_digest(tmp_path / "a") != model_digest(tmp_path / "b")


def test_names_and_their_order_have_no_say(saved: Path, tmp_path: Path) -> None:
    assert model_digest(save(tmp_path / "renamed", scope="other/names")) == model_digest(saved)


def test_the_order_of_nodes_and_functions_has_no_say(exported: Path, saved: Path, tmp_path) -> None:
    from tensorflow.core.protobuf import saved_model_pb2

    for i, folder in enumerate((exported, saved)):
        shutil.copytree(folder, tmp_path / str(i))
        message = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
        graph = message.meta_graphs[0].graph_def
        for listed in (graph.node, graph.library.function):
            listed.reverse()
        for function in graph.library.function:
            function.node_def.reverse()
        (tmp_path / str(i) / "saved_model.pb").write_bytes(message.SerializeToString())

        assert model_digest(tmp_path / str(i)) == model_digest(folder)


def test_how_the_checkpoint_is_cut_has_no_say(saved: Path, tmp_path: Path) -> None:
    import tensorflow as tf

    policy = tf.train.experimental.MaxShardSizePolicy(max_shard_size=8)
    options = tf.saved_model.SaveOptions(experimental_sharding_callback=policy)
    save(tmp_path / "cut", options=options)

    assert len(list((tmp_path / "cut" / "variables").glob("*.data*"))) > 1
    assert model_digest(tmp_path / "cut") == model_digest(saved)


@pytest.mark.parametrize(
    "change",
    [
        {"weight": 2.0000002},
        {"constant": 0.50000006},
        {"activation": "relu6"},
        {"words": ("EWR", "LGA")},
        {"words": ("JFK", "EWR")},
        {"step": 1.5},
        {"assertion": 98.0},
        {"unused": 1.0},
        {"alias": "z"},
        {"name": "other"},
    ],
    ids=str,
)
def test_whatever_could_change_an_answer_changes_the_digest(saved, tmp_path, change) -> None:
    assert model_digest(save(tmp_path / "changed", **change)) != model_digest(saved)


def test_a_vocabulary_in_an_asset_counts_by_its_contents(tmp_path: Path) -> None:
    import tensorflow as tf

    def save_with(words: str, name: str) -> str:
        file = tmp_path / f"{name}.txt"
        file.write_text(words)
        module = tf.Module()
        fill = tf.lookup.TextFileInitializer(
            str(file), tf.string, tf.lookup.TextFileIndex.WHOLE_LINE, tf.int64, -1
        )
        module.table = tf.lookup.StaticHashTable(fill, -1)
        spec = tf.TensorSpec([None], tf.string, "x")
        signature = tf.function(lambda x: {"y": module.table.lookup(x)}).get_concrete_function(spec)
        tf.saved_model.save(module, str(tmp_path / name), signatures=signature)
        return model_digest(tmp_path / name)

    assert save_with("a\nb\n", "one") == save_with("a\nb\n", "other_name")
    assert save_with("a\nb\n", "one") != save_with("a\nc\n", "two")
    (tmp_path / "two" / "assets" / "two.txt").unlink()
    with pytest.raises(DataIntegrityError, match=r"lacks the asset 'two.txt'"):
        model_digest(tmp_path / "two")


def save_tf1(folder: Path, scope: str, weight: float, step: float) -> str:
    """Save as TensorFlow 1 does: a graph with reference variables and a loop made of nodes."""
    import tensorflow as tf

    v1 = tf.compat.v1
    v1.disable_control_flow_v2()
    try:
        with tf.Graph().as_default(), v1.Session() as session, v1.variable_scope(scope):
            x = v1.placeholder(tf.float32, [None], name="x")
            w = v1.get_variable("w", initializer=weight, use_resource=False)
            _, total = v1.while_loop(
                lambda i, _: i < 3, lambda i, total: (i + 1, total + step), [0, w]
            )
            y = x * total
            assert any(op.type == "NextIteration" for op in session.graph.get_operations())
            session.run(v1.global_variables_initializer())
            v1.saved_model.simple_save(session, str(folder), {"x": x}, {"y": y})
    finally:
        v1.enable_control_flow_v2()
    return model_digest(folder)


def test_models_of_tensorflow_1_are_digested_too(tmp_path: Path) -> None:
    digest = save_tf1(tmp_path / "a", "first", 2.0, 1.0)

    assert save_tf1(tmp_path / "b", "another/name", 2.0, 1.0) == digest
    assert save_tf1(tmp_path / "c", "first", 2.5, 1.0) != digest
    assert save_tf1(tmp_path / "d", "first", 2.0, 1.5) != digest


def test_a_deep_graph_is_digested_without_recursion(tmp_path: Path) -> None:
    import tensorflow as tf

    def deep(x: Any) -> dict[str, Any]:
        for _ in range(3_000):
            x = x + 1.0
        return {"y": x}

    signature = tf.function(deep).get_concrete_function(tf.TensorSpec([None], tf.float32, "x"))
    tf.saved_model.save(tf.Module(), str(tmp_path), signatures=signature)

    assert len(model_digest(tmp_path)) == 64


def test_toy_models_of_the_servers_tests_differ_from_each_other(toy_models: Path) -> None:
    folders = [path.parent for path in toy_models.rglob("saved_model.pb")]

    assert len(folders) >= 9
    assert len({model_digest(folder) for folder in folders}) == len(folders)


def _cut(folder: Path) -> None:
    file = folder / "saved_model.pb"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def _damage(folder: Path) -> None:
    (data,) = (folder / "variables").glob("variables.data*")
    data.write_bytes(bytes(len(data.read_bytes())))


@pytest.mark.parametrize(
    ("harm", "error", "message"),
    [
        (_cut, DataIntegrityError, "saved_model.pb is no SavedModel"),
        (_damage, DataIntegrityError, "variables is damaged"),
        (
            lambda folder: shutil.rmtree(folder / "variables"),
            DataIntegrityError,
            "lacks the tensor",
        ),
        (lambda folder: (folder / "saved_model.pb").unlink(), NotFoundError, "no SavedModel in"),
    ],
    ids=["cut", "damaged", "without variables", "without graph"],
)
def test_damaged_models_have_no_digest(
    saved: Path, tmp_path: Path, harm: Callable[[Path], None], error: type, message: str
) -> None:
    shutil.copytree(saved, tmp_path / "harmed")
    harm(tmp_path / "harmed")

    with pytest.raises(error, match=message):
        model_digest(tmp_path / "harmed")


def test_another_model_is_not_the_one_that_was_meant(saved: Path) -> None:
    with pytest.raises(
        DataIntegrityError, match=r"does not have the digest 'abc': it was replaced"
    ):
        check_digest(saved, "abc")
