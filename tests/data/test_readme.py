import re

import pandas as pd

from mlops_mini import files
from mlops_mini.flights import datasets
from mlops_mini.photos import datasets as photos


def test_rows_and_checksums_of_the_readme_are_those_of_the_files():
    folder = datasets.data_folder()
    n_rows = datasets.count_rows() | photos.count_rows()
    readme = (folder / "README.md").read_text()
    lines = re.findall(
        r"^\| `(\S+)` \| ([0-9,]+) \| `([0-9a-f]{64})` \|$",
        readme,
        re.MULTILINE,
    )

    assert {name: int(n.replace(",", "")) for name, n, _ in lines} == n_rows
    assert {name: sha256 for name, _, sha256 in lines} == {
        name: files.file_sha256(folder / name) for name in n_rows
    }


def test_columns_of_the_readme_are_those_of_the_tables(year):
    readme = (datasets.data_folder() / "README.md").read_text()
    flights, weather = (
        readme.partition(f"## {title}")[2].partition("\n## ")[0] for title in ("Flights", "Weather")
    )

    for section, table in ((flights, year), (weather, datasets.weather())):
        first_cells = re.findall(r"^\| (`[^|]*`) \|", section, re.MULTILINE)
        assert set(re.findall(r"`(\w+)`", " ".join(first_cells))) == set(table.columns)


def test_counts_in_the_readme_are_those_of_the_data(year):
    readme = (datasets.data_folder() / "README.md").read_text()
    canceled = year["dep_delay"].isna()
    diverted = ~canceled & year["arr_delay"].isna()
    counts = pd.Series(photos.fashion_mnist().train_labels).value_counts()

    for text in (
        f"{year['arr_delay'].isna().sum():,} flights that never get a label",
        f"{year['tailnum'].isna().sum():,} missing tail numbers, all of canceled",
        f"{counts.min():,} to {counts.max():,} images of each class",
    ):
        assert text in " ".join(readme.split())
    assert canceled[year["tailnum"].isna()].all()
    assert diverted.sum() == 1_175
