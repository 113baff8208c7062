"""The photos go where the flights go: examples, pipeline, gate, registry, server."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlops_mini.data import rules, table_files, tensors
from mlops_mini.data_centric import policy, transforms
from mlops_mini.errors import DataIntegrityError, InvalidArgumentError
from mlops_mini.lineage import compare, lineage
from mlops_mini.local_server import LocalServer
from mlops_mini.model import evaluation, gate, publish
from mlops_mini.photos import camera, datasets, deployment, network, tables
from mlops_mini.photos.use_case import PHOTOS
from mlops_mini.pipeline import definition, examples, scoring
from mlops_mini.runner.runner import Runner
from mlops_mini.statistics import drift, mergeable
from tests.once import made_once

NAME = "mlops_mini.photos.use_case:PHOTOS"


def week(number: int):
    return PHOTOS.calendar.period(f"2026-W{number:02}")


@pytest.fixture(scope="module")
def photos() -> pd.DataFrame:
    """Never change it."""
    return deployment.photos(n_photos=3_000)


def of_week(photos: pd.DataFrame, number: int) -> pd.DataFrame:
    is_in = (photos["taken_at"] >= week(number).start) & (photos["taken_at"] < week(number).end)
    return photos[is_in].reset_index(drop=True)


def test_photos_are_told_apart_and_taken_over_twelve_weeks(photos) -> None:
    again = deployment.photos(n_photos=3_000)
    other = deployment.photos(n_photos=3_000, seed=1)

    assert (photos["photo"].is_unique, photos["taken_at"].is_monotonic_increasing) == (True, True)
    assert photos["taken_at"].iloc[-1] - photos["taken_at"].iloc[0] > pd.Timedelta("80d")
    hours = photos["taken_at"].dt.tz_convert("Europe/Berlin").dt.hour
    assert hours.between(9, 19).all()
    pixels = tensors.to_numpy(photos["image"])
    assert (pixels == tensors.to_numpy(again["image"])).all()
    assert (again["taken_at"] == photos["taken_at"]).all()
    assert (other["taken_at"] != photos["taken_at"]).any()


def test_each_week_keeps_the_rules(photos) -> None:
    for number in range(1, 13):
        split = rules.split(tables.PHOTOS, of_week(photos, number), week(number))
        assert split.quarantined.empty


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda pixels: pixels / np.float32(255), r"is float32\[28,28\], expected uint8\[28,28\]"),
        (lambda pixels: pixels[:, :20], r"is uint8\[20,28\], expected uint8\[28,28\]"),
        (
            lambda pixels: (pixels / 255).astype(np.uint8),
            r"contrast: in_range\(8, 255\), found [01]",
        ),
        (lambda pixels: 255 - pixels, r"median brightness \(image\) is 0.7.* expected 0.08 to 0.5"),
    ],
)
def test_a_week_of_other_images_is_refused_in_one_line(photos, change, message) -> None:
    rows = of_week(photos, 3)
    rows["image"] = tensors.column(change(tensors.to_numpy(rows["image"]))).array

    with pytest.raises(DataIntegrityError, match=message) as refused:
        rules.split(tables.PHOTOS, rows, week(3))

    assert "\n" not in str(refused.value)


def test_brightness_drifts_when_the_lamps_are_off(photos) -> None:
    def statistics(rows: pd.DataFrame):
        return mergeable.add(mergeable.create(), tables.prepare(rows)[["brightness"]])

    weeks = [of_week(photos, number) for number in range(1, 13)]
    limits = drift.calibrate([statistics(rows) for rows in weeks], quantile=1.0)
    dark = weeks[-1].copy()
    clean = datasets.fashion_mnist().train_images[: len(dark)]
    taken = camera.photograph(clean, dark["photo"], seed=0, conditions="dim")
    dark["image"] = tensors.column(taken).array

    as_usual, dimmed = (
        drift.compare(statistics(weeks[-2]), statistics(rows), thresholds=limits)
        for rows in (weeks[-1], dark)
    )

    assert (as_usual.moved, dimmed.moved) == ((), ("brightness",))


@pytest.fixture
def stored(photos, tmp_path) -> Path:
    deployment.write(photos[photos["taken_at"] < week(4).end], tmp_path / "data")
    return tmp_path / "data"


def relabel(data: Path, rows: pd.DataFrame, clothing: str | list[str], at: str) -> None:
    corrections = pd.DataFrame(
        {
            "photo": rows["photo"],
            "relabeled_at": at,
            "clothing": clothing,
            "annotator": "anna",
            "kind": "recorded",
        }
    )
    corrections.to_csv(data / "relabeled.csv", index=False, mode="a", header=False)


def test_the_last_correction_of_a_label_counts_from_its_own_week_on(photos, stored) -> None:
    first = of_week(photos, 1).head(3)
    relabel(stored, first, "Bag", "2026-01-16T10:00:00Z")
    relabel(stored, first.head(1), "Coat", "2026-01-30T10:00:00Z")

    def told(*numbers: int) -> list[float]:
        known = examples.read(PHOTOS, list(map(week, numbers)), data_folder=stored)
        return known.periods[0].labels.loc[first["photo"]].tolist()

    before = [float(datasets.CLASSES.index(each)) for each in first["clothing"]]
    assert told(1) == before
    assert told(1, 2) == [8.0, 8.0, 8.0]
    assert told(1, 2, 3, 4) == [4.0, 8.0, 8.0]


def test_a_correction_to_no_class_is_set_aside_or_refused(photos, stored, tmp_path) -> None:
    relabel(stored, of_week(photos, 1).head(3), "Hat", "2026-01-09T10:00:00Z")

    with pytest.raises(DataIntegrityError, match=r"relabeled of 2026-W01 refused.*found Hat"):
        examples.clean(
            PHOTOS,
            [week(1), week(2)],
            tmp_path / "clean",
            quarantine_file=tmp_path / "quarantine.csv",
            partitions_file=tmp_path / "partitions.json",
            data_folder=stored,
        )


def test_a_class_that_is_missing_is_named(photos, tmp_path) -> None:
    no_bags = photos[(photos["clothing"] != "Bag") & (photos["taken_at"] < week(4).end)]
    deployment.write(no_bags, tmp_path / "data")

    with pytest.raises(InvalidArgumentError, match=r"clothing is never 'Bag' in \d+ rows of .*"):
        examples.write(
            PHOTOS,
            [week(number) for number in range(1, 4)],
            week(4),
            holdout_days=14,
            train_file=tmp_path / "train.parquet",
            test_file=tmp_path / "test.parquet",
            arrivals_file=tmp_path / "arrivals.json",
            data_folder=tmp_path / "data",
        )
    with pytest.raises(InvalidArgumentError, match="none of 3 photos shows 'Trouser', 'Pullover'"):
        network.train(photos[["image"]].head(3), [0, 0, 8])


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.zeros((2, 28, 28), np.float32), r"got \['image'\] with float32\[28, 28\]"),
        (np.zeros((2, 32, 32), np.uint8), r"got \['image'\] with uint8\[32, 32\]"),
    ],
)
def test_the_network_refuses_other_images(pixels, message) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        network.train(pd.DataFrame({"image": tensors.column(pixels)}), [0, 1])


def test_a_policy_of_augmentation_is_trained_with_and_refused_if_it_is_none(photos) -> None:
    rows = photos.head(60)
    labels = rows["clothing"].map(datasets.CLASSES.index)
    chosen = {"flip": transforms.candidates()["flip"]}
    flipped = policy.uniform(chosen, made_from={"training": "any"})

    def trained(**settings):
        return network.train(rows[["image"]], labels, epochs=1, **settings).get_weights()

    plain, augmented = trained(), trained(settings=flipped.document())
    assert not np.array_equal(plain[-1], augmented[-1])
    with pytest.raises(DataIntegrityError, match="the policy in the data folder is no policy"):
        trained(settings={"flip": 1})


def test_settings_are_an_input_like_the_data(stored, tmp_path) -> None:
    asked = [week(1), week(2)]
    before = examples.digest(PHOTOS, asked, data_folder=stored)
    (stored / "augmentation.json").write_text('{"flip": 1}')

    after = examples.digest(PHOTOS, asked, data_folder=stored)
    examples.copy(PHOTOS, asked, tmp_path / "raw", data_digest=after, data_folder=stored)

    assert after != before
    assert (tmp_path / "raw" / "augmentation.json").read_text() == '{"flip": 1}'
    (stored / "augmentation.json").write_text("flip: 1")
    with pytest.raises(DataIntegrityError, match=r"augmentation\.json is no JSON \(Expecting"):
        examples.digest(PHOTOS, asked, data_folder=stored)


def test_the_challenger_cannot_learn_from_images(stored, tmp_path) -> None:
    with pytest.raises(InvalidArgumentError, match=r"photos: the challenger.*--no-challenger"):
        definition.arguments(
            NAME,
            "2026-W04",
            models_folder=tmp_path / "models",
            verdicts_folder=tmp_path / "verdicts",
            data_folder=stored,
        )


def run(workspace: Path, judged_on: str):
    arguments = definition.arguments(
        NAME,
        judged_on,
        models_folder=workspace / "models" / "photos",
        verdicts_folder=workspace / "verdicts",
        data_folder=workspace / "data",
        with_challenger=False,
    )
    with Runner(workspace / "runs") as runner:
        return runner.run(
            definition.continuous_training, arguments, run_id=f"judged-on-{judged_on}"
        )


@pytest.fixture(scope="module")
def played(photos, tmp_path_factory) -> Path:
    """Two releases: the first weeks have labels that are wrong, and the second one corrects them.

    The second is judged two weeks after the first, so the two have learned from the same days:
    labels and the policy of augmentation are all that's new.
    """

    def make(workspace: Path) -> None:
        is_shirt = photos["clothing"] == "Shirt"
        wrong = photos[is_shirt & (photos["taken_at"] < week(3).end)].iloc[::2]
        clothing = photos["clothing"].mask(photos["photo"].isin(wrong["photo"]), "T-shirt/top")
        deployment.write(photos.assign(clothing=clothing), workspace / "data")
        run(workspace, "2026-W05")
        relabel(workspace / "data", wrong, "Shirt", "2026-02-20T10:00:00Z")
        turned = {
            name: transforms.candidates()[name] for name in ("rotate middle", "darken middle")
        }
        policy.uniform(turned, made_from={"training": "any"}).save(
            workspace / "data" / "augmentation.json"
        )
        run(workspace, "2026-W07")

    return made_once(tmp_path_factory, "photos_played", make)


@pytest.mark.slow
def test_a_relabeled_file_is_published_as_a_new_version_with_its_lineage(played, photos) -> None:
    first, second = (lineage.of_version(played, version) for version in (1, 2))

    def relabeled(known) -> int:
        return sum(part.n_rows for part in known.partitions if part.table == "relabeled")

    assert (first.problems, second.problems) == ((), ())
    assert relabeled(first) == 0
    assert [part.table for part in first.partitions if part.role == "trained with"] == []
    (augmentation,) = (part for part in second.partitions if part.role == "trained with")
    assert (augmentation.table, augmentation.n_rows) == ("augmentation", 1)
    assert relabeled(second) == len((played / "data/relabeled.csv").read_text().splitlines()) - 1
    assert second.parents[0].version == 1
    data = {each.name: each.b for each in compare.compare(first, second) if each.kind == "data"}
    assert data["relabeled of 2026-W07"].startswith("judged at its end, 39 rows")
    assert data["augmentation of all"].startswith("trained with")
    learned = pd.read_parquet(
        second.artifact("train_examples"), columns=["photo", "clothing", "clothing_index"]
    ).set_index("photo")
    truth = photos.set_index("photo")["clothing"].loc[learned.index]
    assert (learned["clothing"] == truth).all()
    assert (learned["clothing_index"] == truth.map(datasets.CLASSES.index)).all()


@pytest.mark.slow
def test_the_gate_compares_by_class_and_condition(played) -> None:
    verdict = gate.read(lineage.of_version(played, 2).artifact("verdict"))

    judged = {rule.slice for rule in verdict.rules if rule.rule == "slice"}
    assert verdict.decision == "blessed"
    assert verdict.rules[0].reason.endswith("the same days, with other rows, labels or settings")
    assert {"condition=dim", "condition=tilted", "clothing=Shirt", "clothing=Coat"} <= judged
    (difference,) = (rule.value for rule in verdict.rules if rule.rule == "log loss")
    assert difference < -0.05


@pytest.mark.slow
def test_photos_are_served_over_both_transports(played, photos, tmp_path) -> None:
    published = publish.latest_version(played / "models" / "photos")
    newest = of_week(photos, 12).head(20)
    own = evaluation.predict(published.path, newest[["image"]])

    assert own.shape == (20, 10)
    assert (own.argmax(axis=1) == newest["clothing"].map(datasets.CLASSES.index)).mean() > 0.4
    with LocalServer(published.path.parent, tmp_path / "server") as server:
        server.wait_until_served(published.version)
        for transport in ("rest", "grpc"):
            with server.client(transport) as client:
                answer = client.predict({"image": tensors.to_numpy(newest["image"])})
                np.testing.assert_allclose(answer["probability"], own, atol=1e-5)
                with pytest.raises(InvalidArgumentError):
                    client.predict({"image": np.zeros((1, 32, 32), np.uint8)})


@pytest.mark.slow
def test_a_file_of_photos_gets_a_probability_for_each_class(played, photos, tmp_path) -> None:
    asked = of_week(photos, 12).head(5)
    tensors.write_parquet(asked.drop(columns="clothing"), tmp_path / "new.parquet")

    scored = scoring.score(PHOTOS, played / "models" / "photos", tmp_path / "new.parquet")

    assert list(scored) == ["photo", *datasets.CLASSES]
    np.testing.assert_allclose(scored[list(datasets.CLASSES)].sum(axis=1), 1, atol=1e-5)


def test_files_of_a_week_hold_what_was_written(photos, stored) -> None:
    read = table_files.load(tables.PHOTOS, week(2), calendar=PHOTOS.calendar, folder=stored)

    written = of_week(photos, 2)
    assert (tensors.to_numpy(read["image"]) == tensors.to_numpy(written["image"])).all()
    assert json.loads(read["clothing"].to_json()) == json.loads(written["clothing"].to_json())
