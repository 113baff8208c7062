"""Configuration files: what reads, and what is refused in TensorFlow Serving's words."""

from pathlib import Path

import pytest

from mlops_mini.errors import FailedPreconditionError, InvalidArgumentError, NotFoundError
from mlops_mini.serving import model_config
from mlops_mini.serving.model_config import LogConfig, ModelConfig, VersionPolicy


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config"


def test_models_with_policies_and_labels_are_read_commas_between_them_or_not(file: Path) -> None:
    file.write_text("""
        model_config_list: {
          config: { name: "a" base_path: "/models/a" model_platform: "tensorflow"
                    model_version_policy { specific { versions: 1 versions: 3 } }
                    version_labels { key: "stable" value: 1 },
                    version_labels { key: "canary" value: 3 } },
          config: { name: "b" base_path: "file:///models/b" model_type: TENSORFLOW
                    model_version_policy: { all: {} } }
          config { name: "c" base_path: "/c" model_platform: "tensorflow"
                   model_version_policy { latest { num_versions: 2 } } },
          config { name: "d" base_path: "/d" model_platform: "tensorflow"
                   model_version_policy { latest {} } }
        }""")

    a, b, c, d = model_config.read(file)

    assert a == ModelConfig(
        name="a",
        base_path="/models/a",
        policy=VersionPolicy(specific=frozenset({1, 3})),
        labels={"stable": 1, "canary": 3},
    )
    assert (b.name, b.folder, b.policy) == ("b", Path("/models/b"), VersionPolicy(n_latest=0))
    assert c.policy == VersionPolicy(n_latest=2)
    assert d.policy == VersionPolicy(n_latest=1)


@pytest.mark.parametrize(
    ("rules", "rate"),
    [
        ("", 0.5),
        ('per_task_sampling_configs { dc: "eu" sampling_rate: 0.9 }', 0.5),
        ("per_task_sampling_configs { task_index: 1 sampling_rate: 0.9 }", 0.5),
        ("per_task_sampling_configs { sampling_rate: 0.25 }", 0.25),
        (
            (
                "per_task_sampling_configs { task_index: 3 sampling_rate: 0.9 }"
                " per_task_sampling_configs { task_index: 0 sampling_rate: 0.125 }"
                " per_task_sampling_configs { sampling_rate: 1 }"
            ),
            0.125,
        ),
    ],
)
def test_the_first_sampling_rule_for_task_0_of_no_data_center_counts(
    rules: str, rate: float, file: Path
) -> None:
    file.write_text(f"""model_config_list {{ config {{
        name: "a" base_path: "/a" model_platform: "tensorflow" logging_config {{
            log_collector_config {{ filename_prefix: "/logs/a" }}
            sampling_config {{ sampling_rate: 0.5 {rules} }} }} }} }}""")

    (config,) = model_config.read(file)

    assert config.request_log == LogConfig(prefix=Path("/logs/a"), sampling_rate=rate)


TENSORFLOW = 'model_platform: "tensorflow"'
TYPES = "ModelServerConfig::model_type (deprecated)"


@pytest.mark.parametrize(
    ("models", "text"),
    [
        (
            f'config {{ name: "a" base_path: "/a" {TENSORFLOW} }}' * 2,
            "Illegal to list model a multiple times in config list",
        ),
        (
            f'config {{ name: "a" base_path: "rel/x" {TENSORFLOW} }}',
            "Expected model a to have an absolute path or URI; got base_path()=rel/x",
        ),
        (
            f'config {{ name: "a" {TENSORFLOW} }}',
            "Expected model a to have an absolute path or URI; got base_path()=",
        ),
        (
            f'config {{ name: "a" base_path: "gs://b" {TENSORFLOW} }}',
            "model a is at gs://b, but only local folders are served: mount it, or copy it to one",
        ),
        (
            'config { name: "a" base_path: "/a" }',
            f"Illegal setting neither {TYPES} nor {TYPES[:19]}model_platform, model name is a",
        ),
        (
            'config { name: "a" base_path: "/a" model_type: TENSORFLOW model_platform: "x" }',
            f"Illegal setting both {TYPES} and {TYPES[:19]}model_platform, model name is a",
        ),
        (
            'config { name: "a" base_path: "/a" model_type: OTHER }',
            "ModelServerConfig::model_type choice 2 not supported.",
        ),
        (
            f'config {{ name: "a" base_path: "/a" {TENSORFLOW} logging_config {{}} }}',
            "No request-logger-creator provided.",
        ),
        # Of several faults: the names of all models, then all paths, all platforms, and logging.
        (
            'config { name: "a" base_path: "rel/x" } config { name: "b" } config { name: "b" }',
            "Illegal to list model b multiple times in config list",
        ),
        (
            'config { name: "a" base_path: "/a" } config { name: "b" base_path: "rel/x" }',
            "Expected model b to have an absolute path or URI; got base_path()=rel/x",
        ),
        (
            (
                f'config {{ name: "a" base_path: "/a" {TENSORFLOW} logging_config {{}} }}'
                ' config { name: "b" base_path: "/b" }'
            ),
            f"Illegal setting neither {TYPES} nor {TYPES[:19]}model_platform, model name is b",
        ),
    ],
)
def test_what_cannot_be_served_is_refused_in_tensorflow_servings_words(
    models: str, text: str, file: Path
) -> None:
    file.write_text(f"model_config_list {{ {models} }}")

    with pytest.raises(InvalidArgumentError) as raised:
        model_config.read(file)

    assert str(raised.value) == text
    assert ("filename_prefix" in raised.value.hint) == ("request-logger" in text)


@pytest.mark.parametrize("content", [b"bogus", b"\xff\xfe", b"model_config_list {"])
def test_a_file_that_does_not_parse_is_logged_and_refused(
    content: bytes, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file.write_bytes(content)

    with pytest.raises(InvalidArgumentError) as raised:
        model_config.read(file, is_first=True)

    assert str(raised.value) == f"Invalid protobuf file: '{file}'"
    begin = "Error parsing text-format tensorflow.serving.ModelServerConfig: "
    assert caplog.messages[0].startswith(begin)
    caplog.clear()
    with pytest.raises(InvalidArgumentError) as raised_later:  # a server that runs logs it once
        model_config.read(file)
    assert raised_later.value.hint.startswith(begin)
    assert not caplog.messages


def test_a_missing_file_is_not_found(file: Path) -> None:
    with pytest.raises(NotFoundError) as raised:
        model_config.read(file)

    assert str(raised.value) == f"{file}; No such file or directory"


def test_an_empty_list_serves_nothing_and_an_empty_file_only_starts(file: Path) -> None:
    file.write_text("model_config_list {}")
    assert model_config.read(file) == []

    file.write_text("")
    assert model_config.read(file, is_first=True) == []
    with pytest.raises(FailedPreconditionError, match="Cannot transition to requested config"):
        model_config.read(file)


def test_a_custom_configuration_is_refused(file: Path) -> None:
    file.write_text("custom_model_config {}")

    with pytest.raises(InvalidArgumentError, match="Missing custom_model_config_loader"):
        model_config.read(file)


def test_an_ssl_configuration_holds_pem_text(file: Path) -> None:
    file.write_text('server_key: "KEY\\nx" server_cert: "CERT" client_verify: true')

    ssl = model_config.read_ssl(file)

    assert (ssl.server_key, ssl.server_cert, ssl.custom_ca) == ("KEY\nx", "CERT", "")
    assert ssl.client_verify is True


def test_an_ssl_configuration_that_does_not_parse_is_refused(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file.write_text("server_keys: 1")

    with pytest.raises(InvalidArgumentError, match="Invalid protobuf file"):
        model_config.read_ssl(file)

    assert "tensorflow.serving.SSLConfig" in caplog.text
