"""Writes a first description of a table, guessed from a file, to be reviewed by its owner."""

import json
import keyword
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlops_mini.errors import AlreadyExistsError, InvalidArgumentError
from mlops_mini.scaffold import guesses
from mlops_mini.scaffold.guesses import Column, Guess

_WIDTH = 96
_NOT_GUESSED = ""  # which no column is named, so that the file doesn't load


@dataclass(frozen=True, kw_only=True)
class Scaffold:
    """A description that was guessed.

    Attributes:
        source: The Python module, as text.
        use_case: The dotted name of the use case in it, such as churn:CHURN.
        open_questions: What couldn't be guessed, a sentence each. The file says so too, and doesn't
            load until its owner has answered.
    """

    source: str
    use_case: str
    open_questions: tuple[str, ...]


def write(name: str, table_file: Path, folder: Path) -> Scaffold:
    """Write `NAME.py`, a description guessed from a file.

    Args:
        name: Names the use case and its module.
        table_file: Parquet or CSV.
        folder: Where to write it.

    Returns:
        What was written.

    Raises:
        AlreadyExistsError: There's a file of that name, which stays as it is.
        InvalidArgumentError: The name can't name a module.
        NotFoundError: There's no such table file.
        DataIntegrityError: It can't be read, or has no rows.
    """
    guessed = guess(name, table_file)
    target = folder / f"{name}.py"
    try:
        with target.open("x", encoding="utf-8") as file:
            file.write(guessed.source)
    except FileExistsError as exc:
        raise AlreadyExistsError(
            f"{target} is there already, and stays as it is: choose another name, or move it away"
        ) from exc
    return guessed


def guess(name: str, table_file: Path) -> Scaffold:
    """Guess a description from a file, without writing it; see `write`."""
    if not name.isidentifier() or not name.isascii() or keyword.iskeyword(name):
        raise InvalidArgumentError(
            f"{name!r} can't name a Python module: use letters, digits and _, such as churn"
        )
    columns = guesses.read(table_file)
    zone = "UTC"
    time = guesses.time(columns)
    label = guesses.label(columns)
    instants = guesses.instants(columns[time.column], zone) if time else None
    rest = {each: column for each, column in columns.items() if not _is(label, each)}
    key = guesses.key(rest, instants)
    weeks = instants is not None and instants.dt.strftime("%Y-%m").nunique() < 3
    stem = re.sub(r"\W+", "_", table_file.stem, flags=re.ASCII).strip("_")
    parts = _Parts(
        name=name,
        table=stem if stem.isidentifier() else name,
        file=table_file.name,
        columns=columns,
        time=time,
        label=label,
        key=key,
        unit="week" if weeks else "month",
    )
    open_questions = [question for part, question in _QUESTIONS.items() if not getattr(parts, part)]
    features = parts.features()
    if not features:
        open_questions.append("No column is left to predict from: add some to `features`.")
    module = [
        *_head(parts, open_questions),
        *_prepare(parts),
        *_table(parts),
        *_use_case(parts, features),
    ]
    return Scaffold(
        source="\n".join(module) + "\n",
        use_case=f"{name}:{parts.variable}",
        open_questions=tuple(open_questions),
    )


_QUESTIONS = {
    "time": "No column has a date or a time in all rows: add one, and name it as `time`.",
    "label": (
        "No column has two values such as 0 and 1, or yes and no: say what's to be predicted. Name"
        " a column as the label, or let `prepare` add one."
    ),
    "key": (
        "No column tells rows apart (texts or whole numbers, none missing, none twice): add one,"
        " such as a row number, and name it as `key`."
    ),
}


@dataclass(frozen=True, kw_only=True)
class _Parts:
    """What was guessed."""

    name: str
    table: str
    file: str
    columns: Mapping[str, Column]
    time: Guess | None
    label: Guess | None
    key: Guess | None
    unit: str

    @property
    def variable(self) -> str:
        return self.name.upper()

    @property
    def table_variable(self) -> str:
        upper = self.table.upper()
        return f"{upper}_TABLE" if upper == self.variable else upper

    @property
    def local_time(self) -> str:
        """The column of local times that `prepare` makes instants of; empty if it needn't."""
        return self.time.column if self.time and self.columns[self.time.column].written_as else ""

    @property
    def time_name(self) -> str:
        if self.local_time:
            return f"{_identifier(self.local_time)}_utc"
        return self.time.column if self.time else _NOT_GUESSED

    @property
    def yes(self) -> str:
        """The text that stands for 1 in a label of texts; empty for other labels."""
        return guesses.positive(self.columns[self.label.column]) if self.label else ""

    @property
    def label_name(self) -> str:
        if self.label and self.yes:
            return f"{_identifier(self.label.column)}_is_{_identifier(self.yes)}"
        return self.label.column if self.label else _NOT_GUESSED

    @property
    def candidates(self) -> dict[str, Column]:
        """The columns that play no other part."""
        taken = (self.time, self.label, self.key)
        return {
            name: column
            for name, column in self.columns.items()
            if not any(_is(guess, name) for guess in taken)
        }

    def unfit(self, column: Column) -> str:
        """Say why a column isn't worth a feature; empty if it is."""
        return guesses.unfit(column, self.columns[self.label.column] if self.label else None)

    def features(self) -> list[str]:
        """The columns that are worth a feature."""
        return [name for name, column in self.candidates.items() if not self.unfit(column)]


def _head(parts: _Parts, open_questions: Sequence[str]) -> list[str]:
    needs_utc = bool(parts.local_time)
    needs_prepare = needs_utc or bool(parts.yes)
    is_short = _is_short(parts)
    lines = [
        f'"""{parts.name}: a first description, guessed from {parts.file}. Review each guess."""',
        "",
        *(["import pandas as pd", ""] if needs_prepare else []),
        *(["from mlops_mini.data.local_times import to_utc"] if needs_utc else []),
        "from mlops_mini.data.periods import Calendar",
        "from mlops_mini.data.rules import in_range, is_in  # and others: see there",
        "from mlops_mini.data.table import Table",
    ]
    if not is_short:
        lines += [
            "from mlops_mini.features.feature_set import FeatureSet",
            "from mlops_mini.features.sources import as_stored",
        ]
    lines += ["from mlops_mini.use_case import Label, UseCase", ""]
    for question in open_questions:
        lines += _comment(f"NOT GUESSED: {question}")
    why = "has no zone. Whose clocks are they?" if needs_utc else "is cut in this zone."
    lines += _comment(f'A guess: time {why} Such as "Europe/Berlin".')
    return [*lines, 'ZONE = "UTC"', ""]


def _prepare(parts: _Parts) -> list[str]:
    if not parts.local_time and not parts.yes:
        return []
    lines = [
        "",
        "def prepare(rows: pd.DataFrame) -> pd.DataFrame:",
        '    """Add what follows from the stored columns, for training and for serving alike."""',
        "    added = {}",
    ]
    if parts.local_time:
        column = parts.columns[parts.local_time]
        form = (
            "" if column.written_as == "ISO8601" else f", written_as={_quoted(column.written_as)}"
        )
        others = [each for each in guesses.formats(column.data)[1:] if each.startswith("%d/")]
        if others:
            lines += _comment(f"A guess: it could be written as {' or '.join(others)} too.", 4)
        value = f"to_utc(rows[{_quoted(parts.local_time)}], ZONE{form})"
        lines.append(f"    added[{_quoted(parts.time_name)}] = {value}")
    if parts.label and parts.yes:
        stored = _quoted(parts.label.column)
        lines += [
            f"    if {stored} in rows:  # it isn't when a prediction is asked for",
            f"        is_yes = rows[{stored}] == {_quoted(parts.yes)}",
            f"        is_yes = is_yes.astype(float).where(rows[{stored}].notna())",
            f"        added[{_quoted(parts.label_name)}] = is_yes",
        ]
    return [*lines, "    return rows.assign(**added)", ""]


def _table(parts: _Parts) -> list[str]:
    key = _quoted(parts.key.column if parts.key else _NOT_GUESSED)
    lines = [
        "",
        f"{parts.table_variable} = Table(",
        f"    name={_quoted(parts.table)},",
        *_reason(parts.key),
        f"    key=[{key}],",
        *_reason(parts.time),
        f"    time={_quoted(parts.time_name)},",
        *_comment("Kinds as in the file; a ? where values are missing.", 4),
        "    columns={",
    ]
    for name, column in parts.columns.items():
        if not column.kind:
            lines += _comment(f"{_quoted(name)} {parts.unfit(column)}: left out.", 8)
            continue
        missing = "?" if column.has_missing else ""
        lines.append(f"        {_quoted(name)}: {_quoted(column.kind + missing)},")
    lines += [
        "    },",
        *_comment("What was seen, ranges rounded outward: write what's possible instead.", 4),
        "    rules=[",
    ]
    for name, column in parts.candidates.items():
        if found := guesses.limits(column):
            low, high = found
            lines.append(f"        in_range({_quoted(name)}, {low:_}, {high:_}),")
        if texts := guesses.texts(column):
            listed = ", ".join(map(_quoted, texts))
            lines += _wrapped(f"is_in({_quoted(name)}, [{listed}]),", 8)
    lines.append("    ],")
    if parts.local_time or parts.yes:
        lines.append("    prepare=prepare,")
    return [*lines, ")", ""]


def _use_case(parts: _Parts, features: Sequence[str]) -> list[str]:
    slices = [name for name in features if 0 < len(guesses.texts(parts.columns[name])) <= 10][:2]
    lines = [
        f"{parts.variable} = UseCase(",
        f"    {_quoted(parts.name)},",
        f"    tables=[{parts.table_variable}],",
        *_comment("A guess: a model is judged on a period after those that it learns from.", 4),
        f"    calendar=Calendar({_quoted(parts.unit)}, zone=ZONE),",
        *_reason(parts.label),
        *_comment("A guess: it's known at the row's time. How long after it, such as \"30d\"?", 4),
        f'    label=Label({_quoted(parts.label_name)}, matures_after="0s"),',
        *_comment(
            "A guess: all of these are known when a prediction is due, at the row's time. Take out"
            " what becomes known only later.",
            4,
        ),
    ]
    for name, column in parts.candidates.items():
        if column.kind and (reason := parts.unfit(column)):
            lines += _comment(f"Not among them: {_quoted(name)} {reason}.", 4)
    if _is_short(parts):
        lines += _wrapped(f"features=[{', '.join(map(_quoted, features))}],", 4)
    else:
        lines += _feature_set(parts, features)
    if slices:
        lines += _comment("A guess: models are judged for each value of these too.", 4)
        lines += _wrapped(f"slices=[{', '.join(map(_quoted, slices))}],", 4)
    return [*lines, ")"]


def _feature_set(parts: _Parts, features: Sequence[str]) -> list[str]:
    time = parts.time.column if parts.time else _NOT_GUESSED
    inputs = list(dict.fromkeys([time, *features]))
    lines = [
        "    features=FeatureSet(",
        f"        of={_quoted(parts.table)},",
        f"        key={_quoted(parts.key.column if parts.key else _NOT_GUESSED)},",
        f"        time={_quoted(parts.time_name)},",
        *_comment('A guess: predictions are due at that time. Or later, such as "24h"?', 8),
        '        due="0h",',
        *_wrapped(f"inputs=[{', '.join(map(_quoted, inputs))}],", 8),
        "        features=[",
    ]
    for name in features:
        alias = _identifier(name)
        named = f", name={_quoted(alias)}" if alias != name else ""
        dtype = ', dtype="string"' if parts.columns[name].kind == "text" else ""
        lines.append(f"            as_stored({_quoted(name)}{named}{dtype}),")
    return [*lines, "        ],", "    ),"]


def _is_short(parts: _Parts) -> bool:
    """Whether names of columns say all of the features: time is stored, and names are usable."""
    return not parts.local_time and all(_identifier(name) == name for name in parts.features())


def _is(guess: Guess | None, name: str) -> bool:
    return guess is not None and guess.column == name


def _reason(guess: Guess | None) -> list[str]:
    if guess is None:
        return _comment("NOT GUESSED: see the top of this file.", 4)
    others = f" It could be {' or '.join(guess.others)} too." if guess.others else ""
    return _comment(f"A guess: {guess.why}.{others}", 4)


def _identifier(name: str) -> str:
    """Make a name that a feature can have, such as price_usd of `price (USD)`."""
    if name.isascii() and name.isidentifier() and not keyword.iskeyword(name):
        return name
    made = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_").lower() or "column"
    return f"x_{made}" if made[0].isdigit() or keyword.iskeyword(made) else made


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _comment(text: str, indent: int = 0) -> list[str]:
    start = " " * indent + "# "
    return textwrap.wrap(text, _WIDTH, initial_indent=start, subsequent_indent=start)


def _wrapped(text: str, indent: int) -> list[str]:
    """Break a call or a list that's too long for a line after its commas."""
    if len(text) + indent <= _WIDTH:
        return [" " * indent + text]
    opening = text.index("[") + 1
    closing = text.rindex("]")
    items = json.loads(f"[{text[opening:closing]}]")
    lines = [" " * indent + text[:opening]]
    lines += [f"{' ' * (indent + 4)}{_quoted(item)}," for item in items]
    return [*lines, " " * indent + text[closing:]]
