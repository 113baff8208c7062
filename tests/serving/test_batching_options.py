from pathlib import Path

import pytest

from mlops_mini.errors import InvalidArgumentError, NotFoundError
from mlops_mini.serving import batching_options
from mlops_mini.serving.batching_options import BatchingOptions
from mlops_mini.serving.config import ServerConfig

EVERYTHING = """
max_batch_size { value: 8 }
batch_timeout_micros { value: 500 }
max_enqueued_batches { value: 3 }
num_batch_threads { value: 5 }
thread_pool_name { value: "mine" }
allowed_batch_sizes: 2
allowed_batch_sizes: 8
pad_variable_length_inputs: true
enable_large_batch_splitting { value: true }
max_execution_batch_size { value: 4 }
"""


def common(file: Path | str = "", *, enable: bool | None = True) -> batching_options.Batching:
    flags = ServerConfig(
        model_base_path="/m", enable_batching=enable, batching_parameters_file=str(file)
    )
    return batching_options.common(flags)


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "parameters"
    file.write_text(text)
    return file


def test_every_parameter_is_read(tmp_path: Path) -> None:
    assert common(written(tmp_path, EVERYTHING)) == BatchingOptions(
        max_batch_size=8,
        batch_timeout_micros=500,
        max_enqueued_batches=3,
        num_batch_threads=5,
        allowed_batch_sizes=(2, 8),
        pad_variable_length_inputs=True,
        enable_large_batch_splitting=True,
        max_execution_batch_size=4,
    )


def test_what_is_not_said_is_as_in_tensorflow_serving(tmp_path: Path) -> None:
    options = common(written(tmp_path, ""))

    assert options == common() == BatchingOptions()
    assert isinstance(options, BatchingOptions)
    assert (options.max_batch_size, options.max_enqueued_batches) == (1000, 10)
    assert (options.batch_timeout_micros, options.enable_large_batch_splitting) == (0, False)


def test_to_switch_batching_off_is_not_to_leave_it_out() -> None:
    assert (common(enable=None), common(enable=False)) == ("unasked", "alone")


def test_an_unknown_parameter_is_refused_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = written(tmp_path, "max_batch_size { value: 8 }\nmax_batch: 3")
    with pytest.raises(InvalidArgumentError, match=f"^Invalid protobuf file: '{file}'$"):
        common(file)

    assert '2:1 : Message type "tensorflow.serving.BatchingParameters" has no field' in caplog.text
    assert '"max_batch"' in caplog.text


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"none; No such file or directory$"):
        common(tmp_path / "none")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("num_batch_threads { value: 0 }", "num_batch_threads must be positive; was 0"),
        ("num_batch_threads { value: -2 }", "num_batch_threads must be positive; was -2"),
        ("max_batch_size { value: -1 }", "max_batch_size must be positive; was -1"),
        ("batch_timeout_micros { value: -5 }", "batch_timeout_micros must be non-negative; was -5"),
        ("max_enqueued_batches { value: -1 }", "max_enqueued_batches must be non-negative; was -1"),
        (
            "max_enqueued_batches { value: 0 } enable_large_batch_splitting { value: true }",
            "max_enqueued_batches must be positive; was 0",
        ),
        (
            "max_batch_size { value: 4 } allowed_batch_sizes: 2 allowed_batch_sizes: 8",
            (
                "Last entry in allowed_batch_sizes must match max_batch_size; last entry was 8;"
                " expected 4"
            ),
        ),
        (
            "allowed_batch_sizes: 8",
            (
                "Last entry in allowed_batch_sizes must match max_batch_size; last entry was 8;"
                " expected 1000"
            ),
        ),
        (
            (
                "max_batch_size { value: 4 } enable_large_batch_splitting { value: true }"
                " max_execution_batch_size { value: 8 }"
            ),
            (
                "When enable_large_batch_splitting is true, input_batch_size_limit must be greater"
                " than or equal to max_execution_batch_size."
            ),
        ),
    ],
)
def test_parameters_that_cannot_be_are_refused_in_tensorflow_servings_words(
    tmp_path: Path, text: str, words: str
) -> None:
    with pytest.raises(InvalidArgumentError) as raised:
        common(written(tmp_path, text))

    assert str(raised.value) == words


def test_a_version_may_have_its_own_parameters(tmp_path: Path) -> None:
    all_models = common()
    (tmp_path / "batching_params.pbtxt").write_text("max_batch_size { value: 7 }")

    own = batching_options.of_version(all_models, tmp_path, is_per_model=True)

    assert own == BatchingOptions(max_batch_size=7)
    assert batching_options.of_version(all_models, tmp_path, is_per_model=False) is all_models


def test_a_version_without_its_file_is_not_batched_where_files_are_asked_for(
    tmp_path: Path,
) -> None:
    assert batching_options.of_version(common(), tmp_path, is_per_model=True) == "alone"
    assert batching_options.of_version("unasked", tmp_path, is_per_model=True) == "unasked"
