"""Digests of models: equal for exports of the same weights, different where an answer could be."""

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


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: rows.assign(origin=rows["origin"].replace("LGA", "LGB")),
        lambda rows: rows.assign(origin=rows["origin"].replace({"LGA": "JFK", "JFK": "LGA"})),
        lambda rows: rows.assign(mins=rows["mins"] * 2),
    ],
    ids=["another word", "another order of words", "another mean"],
)
def test_other_preprocessing_of_equal_weights_makes_another_digest(
    features, labels, tmp_path: Path, change: Callable[[Any], Any]
) -> None:
    few = features.head(500).assign(origin=features["origin"].head(500).replace("", "JFK"))
    models = [training.train(rows, labels[:500], epochs=1) for rows in (few, change(few))]
    for name, model in zip("ab", models, strict=True):
        training.export(model, tmp_path / name)

    weights = [model.get_weights() for model in models]
    assert all(map(np.array_equal, *weights))
    assert model_digest(tmp_path / "a") != model_digest(tmp_path / "b")


def test_names_and_their_order_have_no_say(saved: Path, tmp_path: Path) -> None:
    assert model_digest(save(tmp_path / "renamed", scope="other/names")) == model_digest(saved)


def _rewrite(source: Path, target: Path, change: Callable[[Any], None]) -> Path:
    """Copy a SavedModel and change its graph."""
    from tensorflow.core.protobuf import saved_model_pb2

    shutil.copytree(source, target)
    message = saved_model_pb2.SavedModel.FromString((source / "saved_model.pb").read_bytes())
    change(message.meta_graphs[0])
    (target / "saved_model.pb").write_bytes(message.SerializeToString())
    return target


def _reverse(graph: Any) -> None:
    functions = graph.graph_def.library.function
    for nodes in (graph.graph_def.node, functions, *(f.node_def for f in functions)):
        nodes.reverse()


def test_the_order_of_nodes_and_functions_has_no_say(exported: Path, saved: Path, tmp_path) -> None:
    for folder in (exported, saved):
        reversed_ = _rewrite(folder, tmp_path / folder.name, _reverse)

        assert model_digest(reversed_) == model_digest(folder)


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


def _rename_signature(graph: Any) -> None:
    graph.signature_def["other"].CopyFrom(graph.signature_def.pop("serving_default"))


@pytest.mark.parametrize(
    "change",
    [
        _rename_signature,
        lambda graph: setattr(_input_of(graph), "dtype", 2),
        lambda graph: setattr(_input_of(graph).tensor_shape.dim[0], "size", 3),
        lambda graph: setattr(_signature_of(graph), "method_name", "other"),
        lambda graph: (
            _signature_of(graph).outputs["z"].CopyFrom(_signature_of(graph).outputs.pop("y"))
        ),
        lambda graph: _signature_of(graph).defaults["x"].float_val.append(1.0),
    ],
    ids=["name", "dtype", "shape", "method", "output", "default"],
)
def test_what_a_signature_asks_for_and_answers_counts(saved: Path, tmp_path, change) -> None:
    changed = _rewrite(saved, tmp_path / "changed", change)

    assert model_digest(changed) != model_digest(saved)


def _signature_of(graph: Any) -> Any:
    return graph.signature_def["serving_default"]


def _input_of(graph: Any) -> Any:
    return _signature_of(graph).inputs["x"]


def test_the_bodies_of_two_signatures_do_not_change_places_unseen(tmp_path: Path) -> None:
    import tensorflow as tf

    def save_two(name: str, steps: tuple[float, float]) -> str:
        spec = tf.TensorSpec([None], tf.float32, "x")
        signatures = {
            signature: tf.function(lambda x, step=step: {"y": x + step}).get_concrete_function(spec)
            for signature, step in zip("ab", steps, strict=True)
        }
        tf.saved_model.save(tf.Module(), str(tmp_path / name), signatures=signatures)
        return model_digest(tmp_path / name)

    assert save_two("one", (1.0, 2.0)) == save_two("again", (1.0, 2.0))
    assert save_two("one", (1.0, 2.0)) != save_two("changed", (2.0, 1.0))


def test_values_of_two_variables_do_not_change_places_unseen(tmp_path: Path) -> None:
    import tensorflow as tf

    def save_two(name: str, values: tuple[float, float]) -> str:
        module = tf.Module()
        module.a, module.b = (tf.Variable(value) for value in values)
        spec = tf.TensorSpec([None], tf.float32, "x")
        signature = tf.function(lambda x: {"y": x * module.a + module.b})
        tf.saved_model.save(
            module, str(tmp_path / name), signatures=signature.get_concrete_function(spec)
        )
        return model_digest(tmp_path / name)

    assert save_two("one", (1.0, 2.0)) == save_two("again", (1.0, 2.0))
    assert save_two("one", (1.0, 2.0)) != save_two("changed", (2.0, 1.0))


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
    with pytest.raises(DataIntegrityError, match=r"lacks the assets \['two.txt'\]"):
        model_digest(tmp_path / "two")


def save_tf1(
    folder: Path, *, scope: str, weight: float = 2.0, step: float = 1.0, word: str = "a"
) -> str:
    """Save as TensorFlow 1 does: reference variables, a loop made of nodes, a table to fill."""
    import tensorflow as tf

    v1 = tf.compat.v1
    v1.disable_control_flow_v2()
    try:
        with tf.Graph().as_default(), v1.Session() as session, v1.variable_scope(scope):
            x = v1.placeholder(tf.string, [None], name="x")
            w = v1.get_variable("w", initializer=weight, use_resource=False)
            _, total = v1.while_loop(
                lambda i, _: i < 3, lambda i, total: (i + 1, total + step), [0, w]
            )
            fill = tf.lookup.KeyValueTensorInitializer([word], [2.0])
            y = tf.lookup.StaticHashTable(fill, 0.0).lookup(x) * total
            assert any(op.type == "NextIteration" for op in session.graph.get_operations())
            session.run(v1.global_variables_initializer())
            v1.saved_model.simple_save(
                session, str(folder), {"x": x}, {"y": y}, legacy_init_op=v1.tables_initializer()
            )
    finally:
        v1.enable_control_flow_v2()
    return model_digest(folder)


def test_models_of_tensorflow_1_are_digested_too(tmp_path: Path) -> None:
    digest = save_tf1(tmp_path / "a", scope="first")

    assert save_tf1(tmp_path / "b", scope="another/name") == digest
    for change in ({"weight": 2.5}, {"step": 1.5}, {"word": "b"}):
        assert save_tf1(tmp_path / str(change), scope="first", **change) != digest


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
            "lacks the variables",
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
