"""TFX's eight components on one machine, with a module of ours, and what came of them."""

import base64
import json
import sys
from pathlib import Path
from typing import Any

import keras
import ml_metadata
import pandas as pd
import tensorflow as tf
import tensorflow_model_analysis as tfma
import tfx as tfx_package
from ml_metadata.proto import metadata_store_pb2
from tfx import v1 as tfx

LABEL = "late"
N_ASKED = 20
# Wide of what the model reaches: it must be better than a guess.
LOWEST_AUC = 0.6


def components(folder: Path, pushed: Path) -> list[Any]:
    """Put the components together."""
    module = str(folder / "module" / "flights_tfx.py")
    examples = tfx.components.CsvExampleGen(input_base=str(folder / "data"))
    rows = examples.outputs["examples"]
    statistics = tfx.components.StatisticsGen(examples=rows)
    counted = statistics.outputs["statistics"]
    schema = tfx.components.SchemaGen(statistics=counted, infer_feature_shape=False)
    inferred = schema.outputs["schema"]
    validator = tfx.components.ExampleValidator(statistics=counted, schema=inferred)
    transform = tfx.components.Transform(examples=rows, schema=inferred, module_file=module)
    trainer = tfx.components.Trainer(
        module_file=module,
        examples=transform.outputs["transformed_examples"],
        transform_graph=transform.outputs["transform_graph"],
        schema=inferred,
        train_args=tfx.proto.TrainArgs(),
        eval_args=tfx.proto.EvalArgs(),
    )
    threshold = tfma.MetricThreshold(
        value_threshold=tfma.GenericValueThreshold(lower_bound={"value": LOWEST_AUC})
    )
    metrics = [tfma.MetricConfig(class_name="AUC", threshold=threshold)]
    evaluator = tfx.components.Evaluator(
        examples=rows,
        model=trainer.outputs["model"],
        eval_config=tfma.EvalConfig(
            model_specs=[tfma.ModelSpec(signature_name="serving_default", label_key=LABEL)],
            slicing_specs=[tfma.SlicingSpec(), tfma.SlicingSpec(feature_keys=["origin"])],
            metrics_specs=[tfma.MetricsSpec(metrics=metrics)],
        ),
    )
    pusher = tfx.components.Pusher(
        model=trainer.outputs["model"],
        model_blessing=evaluator.outputs["blessing"],
        push_destination=tfx.proto.PushDestination(
            filesystem=tfx.proto.PushDestination.Filesystem(base_directory=str(pushed))
        ),
    )
    return [examples, statistics, schema, validator, transform, trainer, evaluator, pusher]


def serialized(row: dict[str, Any]) -> bytes:
    """Write a row as a `tf.Example`, without its label and what is missing."""
    example = tf.train.Example()
    for name, value in row.items():
        if name == LABEL or pd.isna(value):
            continue
        feature = example.features.feature[name]
        if isinstance(value, str):
            feature.bytes_list.value.append(value.encode())
        else:
            feature.float_list.value.append(value)
    return bytes(example.SerializeToString())


def main(folder: Path, export: str) -> None:
    """Run the pipeline, ask the pushed model, and write what was found."""
    pushed = folder / export / "pushed" / "flights"
    database = str(folder / "metadata.sqlite")
    connection = tfx.orchestration.metadata.sqlite_metadata_connection_config(database)
    store = ml_metadata.MetadataStore(connection)
    before = {execution.id for execution in store.get_executions()}
    tfx.orchestration.LocalDagRunner().run(
        tfx.dsl.Pipeline(
            pipeline_name="flights",
            pipeline_root=str(folder / "pipeline"),
            metadata_connection_config=connection,
            components=components(folder, pushed),
            enable_cache=True,
            beam_pipeline_args=["--direct_running_mode=in_memory", "--direct_num_workers=1"],
        )
    )
    types = {each.id: each.name.rpartition(".")[2] for each in store.get_execution_types()}
    states = {
        types[execution.type_id]: metadata_store_pb2.Execution.State.Name(
            execution.last_known_state
        )
        for execution in store.get_executions()
        if execution.id not in before
    }
    blessings = sorted(store.get_artifacts_by_type("ModelBlessing"), key=lambda each: each.id)
    evaluations = sorted(store.get_artifacts_by_type("ModelEvaluation"), key=lambda each: each.id)
    evaluated = dict(tfma.load_eval_result(evaluations[-1].uri).slicing_metrics)
    rows = pd.read_csv(folder / "data" / "flights.csv", nrows=N_ASKED).to_dict("records")
    asked = [serialized(row) for row in rows]
    answers = []
    if pushed.exists():
        newest = max(pushed.iterdir(), key=lambda version: int(version.name))
        answer = tf.saved_model.load(str(newest)).signatures["serving_default"]
        (probabilities,) = answer(examples=tf.constant(asked)).values()
        answers = [float(each) for each in probabilities.numpy()]
    found = {
        "versions": [tfx_package.__version__, tf.__version__, keras.__version__],
        "states": states,
        "is_blessed": (Path(blessings[-1].uri) / "BLESSED").exists(),
        "auc": evaluated[()][""][""]["auc"]["doubleValue"],
        "asked": [base64.b64encode(each).decode() for each in asked],
        "answers": answers,
    }
    (folder / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
