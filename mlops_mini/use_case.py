"""Describes a problem, so that it can go through the loop.

A use case is made of descriptions that the rooms define: tables, a calendar, a feature set. Engines
take these parts, never the whole; only the pipeline and what stands above it see one.
"""

import importlib
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any, cast

import pandas as pd
import pyarrow as pa

from mlops_mini.data.periods import Calendar
from mlops_mini.data.table import Table, duration
from mlops_mini.errors import InvalidArgumentError, MlopsMiniError, NotFoundError
from mlops_mini.features.feature_set import FeatureSet
from mlops_mini.features.sources import Dtype, Feature, Formula, as_stored

# Features and labels, with the keyword arguments `seed`, `epochs` and `parent`, to a Keras model;
# with `settings` too, if there are any.
Train = Callable[..., Any]


@dataclass(frozen=True)
class Label:
    """What a model learns to predict.

    Attributes:
        name: The column that holds it, stored or added by `prepare`: 1 or 0 (or True and False), or
            the name of a class; and missing where it isn't known.
        classes: The names of the classes, if it's one of several; models answer a probability for
            each, in this order. Of two, the answer is the probability of the second.
        corrected_in: Name of a table with corrected labels, one row each: the key of the examples,
            this column, and the time of the correction. The last one counts, from its own period
            on. Empty if labels aren't corrected.
        matures_after: How long after a row's time its label is known, such as "34h".

    >>> Label("churned", matures_after="30d").name
    'churned'
    >>> Label("leaves_for", classes=["nobody", "a rival", "no phone"]).n_classes
    3
    """

    name: str
    _: KW_ONLY
    classes: Sequence[str] = ()
    corrected_in: str = ""
    matures_after: str = "0s"

    def __post_init__(self) -> None:
        if not self.name:
            raise InvalidArgumentError(
                "the label names no column: name the one to predict, stored or added by `prepare`"
            )
        if duration(self.matures_after, f"label {self.name}: matures_after") < pd.Timedelta(0):
            raise InvalidArgumentError(
                f"label {self.name}: matures_after is {self.matures_after!r}; a label isn't known"
                " before its row: give 0s or more"
            )
        if self.classes and (len(self.classes) < 2 or len(set(self.classes)) < len(self.classes)):
            raise InvalidArgumentError(
                f"label {self.name}: classes are {list(self.classes)}; name two or more, each once"
            )

    @property
    def n_classes(self) -> int:
        """How many classes there are, 2 if they have no names."""
        return len(self.classes) or 2

    @property
    def column(self) -> str:
        """The column of examples that holds it as a number; models may be judged by its name."""
        return f"{self.name}_index" if self.classes else self.name


@dataclass(frozen=True)
class UseCase:
    """A problem: its tables, what to predict, from what, and how to look at the result.

    Attributes:
        name: Names the model and its folder; letters, digits, `_` and `-`.
        tables: The tables; one of them holds the examples.
        label: What to predict.
        features: What to predict it from. Names of columns are short for features that are these
            columns of the only table, known at the row's own time.
        calendar: How time is cut into periods.
        slices: Columns, stored or added by `prepare`, by whose values models are judged too.
        train: Makes the model, called as `model.training.train` is, which is the default.
        fallback: Names of the features that are there even if the feature store is not. A second,
            smaller model learns from these alone, and each version answers by it too, under the
            signature `fallback`. None if empty.
        settings: Name of a JSON file in the data folder that tells `train` how, such as a policy of
            augmentation. It's an input like the data, whose digest counts it: `train` is given what
            it holds as `settings`, and nothing if there's no such file.
        thresholds: File of what a candidate must keep, as `model.thresholds.read` takes it; the
            package's own by default.

    >>> from mlops_mini.data.rules import in_range
    >>> customers = Table(
    ...     name="customers", key=["customer"], time="since", rules=[in_range("usd", 0, 99)],
    ...     columns={"customer": "integer", "since": "instant", "plan": "text",
    ...              "usd": "number", "churned": "integer?"})
    >>> churn = UseCase("churn", tables=[customers], label=Label("churned"),
    ...                 features=["plan", "usd"], slices=["plan"])
    >>> churn.examples.name, churn.features.names
    ('customers', ('plan', 'usd'))
    """

    name: str
    _: KW_ONLY
    tables: Sequence[Table]
    label: Label
    features: FeatureSet | Sequence[str]
    calendar: Calendar = field(default_factory=Calendar)
    slices: Sequence[str] = ()
    train: Train | None = None
    fallback: Sequence[str] = ()
    settings: str = ""
    thresholds: Path | None = None

    def __post_init__(self) -> None:
        if not self.name.replace("_", "").replace("-", "").isalnum() or not self.name.isascii():
            raise InvalidArgumentError(
                f"{self.name!r} can't name a use case: use letters, digits, _ and - alone, for it"
                " names a folder and a model"
            )
        by_name = self.by_name
        if len(by_name) != len(self.tables):
            self._refuse(f"two tables have the same name: {[table.name for table in self.tables]}")
        if not isinstance(self.features, FeatureSet):
            if len(self.tables) != 1:
                self._refuse(
                    f"features are column names, and there are {len(self.tables)} tables:"
                    " give a FeatureSet, whose `of` names the table of the examples"
                )
            object.__setattr__(self, "features", self._of_columns(self.features, self.tables[0]))
        self._check_tables_of_features()
        self._check_columns()
        if self.settings and (not self.settings.endswith(".json") or self.train is None):
            self._refuse(
                f"settings in {self.settings!r}: they're a .json file in the data folder, for a"
                " `train` of your own"
            )
        unknown = [name for name in self.fallback if name not in self.feature_set.names]
        if unknown or (self.fallback and set(self.fallback) == set(self.feature_set.names)):
            what = f"names {unknown}, which are none" if unknown else "names all"
            self._refuse(
                f"the fallback {what} of the features {list(self.feature_set.names)}: name those"
                " that are known without the feature store, or none"
            )

    @property
    def by_name(self) -> Mapping[str, Table]:
        """The tables by name."""
        return {table.name: table for table in self.tables}

    @property
    def examples(self) -> Table:
        """The table whose rows are the examples."""
        return self.by_name[self.feature_set.of]

    def table(self, name: str = "") -> Table:
        """Find a table by its name, or the only one.

        Raises:
            InvalidArgumentError: There's no such table, or there are several and none is named.
        """
        if name in self.by_name:
            return self.by_name[name]
        if name or len(self.tables) > 1:
            asked = f"has no table {name!r}" if name else "has several tables"
            self._refuse(f"{asked}: name one of {sorted(self.by_name)} by --table")
        return self.tables[0]

    @property
    def feature_set(self) -> FeatureSet:
        """The features, whatever way they were given."""
        return cast("FeatureSet", self.features)

    def _of_columns(self, names: Sequence[str], table: Table) -> FeatureSet:
        """Make features that are columns of a table as they are, known at the row's own time."""
        unknown = [name for name in names if name not in table.columns]
        if unknown or not names:
            self._refuse(
                f"features name {unknown or 'no column'}; table {table.name} has"
                f" {list(table.columns)}: name some of these, or give a FeatureSet with formulas"
            )
        if table.time not in table.columns:
            self._refuse(
                f"`prepare` adds {table.time}, the time of table {table.name}, from columns that"
                " nobody names: give a FeatureSet, whose `inputs` name them"
            )
        if len(table.key) != 1:
            self._refuse(
                f"rows of table {table.name} are told apart by {list(table.key)}: give it a key of"
                " one column, or a FeatureSet that names one"
            )
        instants = [name for name in names if pa.types.is_timestamp(table.arrow.field(name).type)]
        if instants:
            self._refuse(
                f"features name {instants}, and an instant is no number or text: leave them out, or"
                " give a FeatureSet with a formula, such as of the hour"
            )
        features = [self._as_stored(name, table) for name in names]
        (key,) = table.key
        inputs = list(dict.fromkeys([*names, table.time]))
        return FeatureSet(of=table.name, key=key, time=table.time, inputs=inputs, features=features)

    def _as_stored(self, name: str, table: Table) -> Feature[Formula]:
        stored = table.arrow.field(name).type
        dtype: Dtype = "string" if pa.types.is_string(stored) else "float32"
        try:
            return as_stored(name, dtype="tensor" if pa.types.is_fixed_size_list(stored) else dtype)
        except InvalidArgumentError as exc:
            raise InvalidArgumentError(
                f"use case {self.name}: column {exc}, among the features of a FeatureSet"
            ) from exc

    def _check_tables_of_features(self) -> None:
        features = self.feature_set
        wanted = {features.of, *(event.table for event in features.events)}
        wanted |= {observation.table for observation in features.observations}
        unknown = sorted(wanted - set(self.by_name))
        if unknown:
            self._refuse(
                f"features ask for the tables {unknown}; there are {sorted(self.by_name)}:"
                " add them to `tables`"
            )

    def _check_columns(self) -> None:
        table, features = self.examples, self.feature_set
        missing_inputs = [name for name in features.inputs if name not in table.columns]
        if missing_inputs:
            self._refuse(
                f"features read {missing_inputs}, which table {table.name} doesn't have; it has"
                f" {sorted(table.columns)}"
            )
        if self.label.name in (*features.inputs, *features.names):
            self._refuse(
                f"the label {self.label.name} is among the features: what's to be predicted can't"
                " be known; take it out of them"
            )
        if features.key not in table.columns:
            self._refuse(f"the key {features.key!r} isn't a column of table {table.name}")
        corrections = self.by_name.get(self.label.corrected_in)
        if self.label.corrected_in and (
            corrections is None
            or corrections is table
            or not {features.key, self.label.name} <= set(corrections.columns)
            or self.label.name not in table.columns
        ):
            self._refuse(
                f"the label is corrected in {self.label.corrected_in!r}, which must be another"
                f" table, with the columns {features.key!r} and {self.label.name!r}, and the label"
                f" one that table {table.name} stores; there are {sorted(self.by_name)}"
            )
        derived = table.prepare is not None
        for column in (self.label.name, *self.slices):
            if not derived and column not in (*table.columns, *features.names):
                what = "label" if column == self.label.name else "slice"
                self._refuse(
                    f"the {what} {column!r} isn't a column of table {table.name}, which has"
                    f" {sorted(table.columns)}, and no `prepare` adds it"
                )

    def _refuse(self, reason: str) -> None:
        raise InvalidArgumentError(f"use case {self.name}: {reason}")


@contextmanager
def naming(use_case: UseCase) -> Iterator[None]:
    """Name the use case in errors about its tables and features, which know no use case."""
    try:
        yield
    except MlopsMiniError as exc:
        whose = f"use case {use_case.name}: "
        raise type(exc)(f"{whose}{str(exc).removeprefix(whose)}") from exc


def load(dotted_name: str) -> UseCase:
    """Import a use case by its name.

    Args:
        dotted_name: Module and name, such as `churn:CHURN`. The module is looked up on `sys.path`,
            as `import` does it.

    Returns:
        The use case.

    Raises:
        InvalidArgumentError: The name isn't of that form, or what it names isn't a use case, or the
            module raises an error; the message has its line.
        NotFoundError: There's no such module, or no such name in it.

    >>> load("churn")
    Traceback (most recent call last):
    mlops_mini.errors.InvalidArgumentError: 'churn' doesn't name a use case: write its module, a
    colon and its name in there, such as churn:CHURN for CHURN in churn.py
    """
    module_name, colon, name = dotted_name.partition(":")
    parts = module_name.split(".")
    if not colon or not name.isidentifier() or not all(part.isidentifier() for part in parts):
        raise InvalidArgumentError(
            f"{dotted_name!r} doesn't name a use case: write its module, a colon and its name in"
            " there, such as churn:CHURN for CHURN in churn.py"
        )
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as exc:
        if exc.name and module_name.startswith(exc.name):
            raise NotFoundError(
                f"no module {exc.name} for the use case {dotted_name}: it must lie in the current"
                f" folder, {Path.cwd()}, or be installed"
            ) from exc
        raise InvalidArgumentError(
            f"use case {dotted_name}: {module_name} imports {exc.name}, which isn't installed"
        ) from exc
    except MlopsMiniError as exc:
        raise type(exc)(f"{exc} ({_where(exc)})") from exc
    except Exception as exc:
        raise InvalidArgumentError(
            f"use case {dotted_name}: importing {module_name} fails in {_where(exc)}:"
            f" {type(exc).__name__}: {exc}"
        ) from exc
    known = sorted(key for key, value in vars(module).items() if isinstance(value, UseCase))
    if name not in vars(module):
        raise NotFoundError(f"{module.__file__} has no {name}; its use cases are {known or 'none'}")
    use_case = vars(module)[name]
    if not isinstance(use_case, UseCase):
        raise InvalidArgumentError(
            f"{dotted_name} is of type {type(use_case).__name__}, not a UseCase; those in"
            f" {module.__file__} are {known or 'none'}"
        )
    return use_case


def _where(exc: Exception) -> str:
    """Name the file and line of the reader's own code at which an import has failed."""
    ours = str(Path(__file__).parent)
    frames = traceback.extract_tb(exc.__traceback__)
    theirs = [each for each in frames if not each.filename.startswith((ours, "<"))]
    where = (theirs or frames)[-1]
    return f"{where.filename}, line {where.lineno}"
