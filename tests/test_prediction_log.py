"""The files of the request log, read back whatever has become of them."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from mlops_mini import prediction_log
from mlops_mini.errors import InvalidArgumentError, NotFoundError
from mlops_mini.prediction_log import Reader, Record, files, frame
from mlops_mini.wire import ModelSpec, PredictRequest, PredictResponse, fill_spec
from mlops_mini.wire_messages import EXACT

SPEC = ModelSpec(name="m", version=3, signature_name="s")


def predict_record(number: float, request_id: bytes = b"a") -> bytes:
    """Make the record of a request that asked a number, without its frame."""
    log = EXACT["PredictionLog"]()
    arrays = {"x": np.float32([number])}
    log.predict_log.request = PredictRequest(model_spec=SPEC, inputs=arrays).to_bytes()
    log.predict_log.response = PredictResponse(model_spec=SPEC, outputs=arrays).to_bytes()
    fill_spec(log.log_metadata.model_spec, SPEC)
    log.log_metadata.request_id = request_id
    log.log_metadata.time_us = 1_500_000
    return bytes(log.SerializeToString())


FRAMED = [frame(predict_record(number)) for number in range(5)]


def numbers(log: Path) -> list[float]:
    return [float(record.inputs["x"][0]) for record in Reader(log)]


def named(folder: Path, second: int, prefix: str = "m", end: str = "") -> Path:
    return folder / f"{prefix}-20261129T2215{second:02}.000042Z-4711.tfrecord{end}"


def test_a_record_says_who_asked_what_when_and_who_answered() -> None:
    record = Record.from_bytes(predict_record(2, b"me"))

    assert (record.method, record.request_id, record.time_s) == ("predict", "me", 1.5)
    assert (record.model, record.version, record.signature_name) == ("m", 3, "s")
    assert record.inputs["x"].tolist() == record.outputs["x"].tolist() == [2]


def test_all_files_of_a_prefix_are_read_oldest_first_also_unfinished_ones(tmp_path: Path) -> None:
    for second, end in ((2, ".unfinished"), (0, ""), (1, "")):
        named(tmp_path, second, end=end).write_bytes(FRAMED[second])
    named(tmp_path, 3, prefix="m-2").write_bytes(FRAMED[3])  # another log
    (tmp_path / "m-notes.tfrecord").write_bytes(FRAMED[3])

    assert numbers(tmp_path / "m") == [0, 1, 2]
    assert numbers(named(tmp_path, 1)) == [1]
    assert [file.suffix for file in files(tmp_path / "m")] == [".tfrecord"] * 2 + [".unfinished"]


def test_another_reader_goes_on_where_one_has_ended(tmp_path: Path) -> None:
    """The file was being written, and its last record was cut off: it's read once it's whole."""
    unfinished = named(tmp_path, 0, end=".unfinished")
    unfinished.write_bytes(FRAMED[0] + FRAMED[1] + FRAMED[2][:-3])
    first = Reader(tmp_path / "m")
    read = [[float(record.inputs["x"][0]) for record in first]]
    named(tmp_path, 0).write_bytes(b"".join(FRAMED[:3]))
    unfinished.unlink()
    named(tmp_path, 1).write_bytes(FRAMED[3])

    second = Reader(tmp_path / "m", positions=first.positions)
    read.append([float(record.inputs["x"][0]) for record in second])

    assert read == [[0, 1], [2, 3]]
    assert list(Reader(tmp_path / "m", positions=second.positions)) == []


def test_a_file_that_is_finished_meanwhile_is_found_under_its_name(tmp_path: Path) -> None:
    named(tmp_path, 0).write_bytes(FRAMED[0])
    unfinished = named(tmp_path, 1, end=".unfinished")
    unfinished.write_bytes(FRAMED[1])

    records = iter(Reader(tmp_path / "m"))
    next(records)
    unfinished.rename(named(tmp_path, 1))

    assert [record.inputs["x"][0] for record in records] == [1]


def test_a_log_without_files_is_not_found(tmp_path: Path) -> None:
    for log in (tmp_path / "m", tmp_path / "none" / "m"):
        with pytest.raises(NotFoundError, match=r"m-\*\.tfrecord"):
            Reader(log)


def test_a_record_cut_anywhere_costs_that_record_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = named(tmp_path, 0, end=".unfinished")
    for n_bytes in range(1, len(FRAMED[1])):
        file.write_bytes(FRAMED[0] + FRAMED[1][:n_bytes])
        reader = Reader(tmp_path / "m")
        assert [record.inputs["x"][0] for record in reader] == [0]
        assert (reader.n_skipped, reader.n_skipped_bytes) == (1, n_bytes)
        # And if somebody has put files together, the others are still read.
        file.write_bytes(FRAMED[1][:n_bytes] + FRAMED[2] + FRAMED[3])
        assert numbers(tmp_path / "m") == [2, 3]
    assert "skipped 1 stretches that are no records" in caplog.messages[0]
    assert str(file) in caplog.messages[0]


def test_one_wrong_bit_costs_one_record(tmp_path: Path) -> None:
    file = named(tmp_path, 0)
    whole = b"".join(FRAMED)
    start, end = len(FRAMED[0]), len(FRAMED[0]) + len(FRAMED[1])
    for position in range(start, end):
        damaged = bytearray(whole)
        damaged[position] ^= 1
        file.write_bytes(damaged)
        reader = Reader(file)
        assert [record.inputs["x"][0] for record in reader] == [0, 2, 3, 4]
        assert (reader.n_skipped, reader.n_skipped_bytes) == (1, len(FRAMED[1]))


@pytest.mark.parametrize(
    "garbage",
    [b"\0" * 200_000, b"\xff" * 200_000, np.random.default_rng(7).bytes(200_000), b"x"],
    ids=["zeros", "ones", "noise", "one byte"],
)
def test_garbage_between_records_is_skipped(tmp_path: Path, garbage: bytes) -> None:
    file = named(tmp_path, 0)
    file.write_bytes(garbage.join(FRAMED))

    reader = Reader(file)

    assert [record.inputs["x"][0] for record in reader] == [0, 1, 2, 3, 4]
    assert (reader.n_skipped, reader.n_skipped_bytes) == (4, 4 * len(garbage))


def test_a_whole_record_that_is_no_prediction_log_is_skipped(tmp_path: Path) -> None:
    session_run = b"\x2a\x00"  # session_run_log {}
    unreadable = EXACT["PredictionLog"]()
    unreadable.predict_log.request = EXACT["PredictRequest"]().SerializeToString()
    unreadable.predict_log.response = b"\xff"
    others = [b"\xff\xff", b"", session_run, unreadable.SerializeToString()]
    file = named(tmp_path, 0)
    file.write_bytes(b"".join(itertools.chain(map(frame, others), [FRAMED[1]])))

    reader = Reader(file)

    assert [record.inputs["x"][0] for record in reader] == [1]
    assert reader.n_skipped_bytes == sum(len(frame(other)) for other in others)
    for other in others:
        with pytest.raises(InvalidArgumentError):
            Record.from_bytes(other)


def test_what_is_written_while_a_file_is_read_is_left_to_the_next_reader(tmp_path: Path) -> None:
    file = named(tmp_path, 0, end=".unfinished")
    file.write_bytes(FRAMED[0] + FRAMED[1])
    reader = Reader(tmp_path / "m")
    records = iter(reader)
    next(records)

    with file.open("ab") as more:
        more.write(FRAMED[2])

    assert len(list(records)) == 1
    assert reader.n_skipped == 0
    assert numbers(tmp_path / "m") == [0, 1, 2]


def test_requests_alone_are_read_as_in_a_file_to_warm_up_with() -> None:
    log = EXACT["PredictionLog"]()
    asked = ModelSpec(name="m", version=1)
    arrays = {"x": np.float32([1])}
    log.predict_log.request = PredictRequest(model_spec=asked, inputs=arrays).to_bytes()

    record = Record.from_bytes(log.SerializeToString())

    assert (record.model, record.version, record.request_id, record.time_s) == ("m", 1, "", 0)
    assert record.inputs["x"] == [1]
    assert record.outputs == {}


def test_the_crc_is_tensorflows() -> None:
    # RFC 3720, B.4: the CRC of 32 zeros is 8a9136aa; masked as TensorFlow does.
    expected = ((0x8A9136AA >> 15 | 0x8A9136AA << 17) + 0xA282EAD8) & 0xFFFFFFFF

    assert frame(bytes(32))[-4:] == expected.to_bytes(4, "little")
    assert prediction_log.frame(b"")[:8] == bytes(8)
