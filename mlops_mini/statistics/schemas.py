"""Schemas of tables: inferred from one month, reviewed by a person, compared.

A schema here is tensorflow-metadata's message, in text as `schema.pbtxt`, so TFDV reads it too. A
machine can see what one month looks like, not what is true of all: `infer` therefore claims little,
and `reviewed` is the file in which a person has added what no month shows. `anomalies` validates
statistics against either.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2

from mlops_mini.errors import DataIntegrityError, NotFoundError
from mlops_mini.statistics.mergeable import ColumnStatistics, TableStatistics

# A text column with more different values than this names things one by one, as a plane's tailnum.
MAX_VOCABULARY = 200
MIN_DOMAIN_MASS = 0.99

TYPES = {
    schema_pb2.TYPE_UNKNOWN: "any values",
    schema_pb2.BYTES: "texts",
    schema_pb2.INT: "whole numbers",
    schema_pb2.FLOAT: "numbers",
}
_Aspect = str | frozenset[str]


def infer(statistics: TableStatistics, *, literal: bool = False) -> schema_pb2.Schema:
    """Infer a schema from statistics, as a start for a review.

    What one month shows and the next denies is left out: no range of numbers (January's `month` is
    always 1), no vocabulary of identifiers. What is inferred is loose: a column that has missing
    values need only not be wholly empty, and 1 % of texts may be outside the vocabulary.

    Args:
        statistics: Of the rows to learn from.
        literal: Take the rows at their word instead, to see the false alarms of the next month:
            ranges are their least and greatest number, vocabularies complete, and no column may
            have more missing than here.

    Returns:
        The schema; edit and review it before it guards anything.

    >>> import pandas as pd
    >>> from mlops_mini.statistics import mergeable
    >>> table = pd.DataFrame({"plan": ["gold", "basic"], "month": [1, 1]})
    >>> print(to_text(infer(mergeable.add(mergeable.create(), table))))
    feature {
      name: "plan"
      type: BYTES
      string_domain {
        value: "basic"
        value: "gold"
      }
      presence {
        min_fraction: 1.0
        min_count: 1
      }
      distribution_constraints {
        min_domain_mass: 0.99
      }
    }
    feature {
      name: "month"
      type: INT
      presence {
        min_fraction: 1.0
        min_count: 1
      }
    }
    <BLANKLINE>
    """
    schema = schema_pb2.Schema()
    for name, column in statistics.columns.items():
        feature = schema.feature.add(name=name)
        feature.presence.min_count = 1
        if literal or not column.n_missing:
            n_rows = column.n_present + column.n_missing
            feature.presence.min_fraction = column.n_present / max(n_rows, 1)
        if column.kind == "text":
            feature.type = schema_pb2.BYTES
            if literal or column.n_distinct <= MAX_VOCABULARY:
                feature.string_domain.value.extend(column.counts.index)
                feature.distribution_constraints.min_domain_mass = (
                    1.0 if literal else MIN_DOMAIN_MASS
                )
        else:
            # An INT of a schema has 64 bits.
            is_int = not column.n_fractional and (
                (column.maximum < 2**63 and column.minimum >= -(2**63)) or not column.n_finite
            )
            feature.type = schema_pb2.INT if is_int else schema_pb2.FLOAT
            if literal and column.n_finite:
                _set_range(feature, column)
    return schema


def _set_range(feature: Any, column: ColumnStatistics) -> None:
    domain, number = (
        (feature.float_domain, float)
        if feature.type == schema_pb2.FLOAT
        else (feature.int_domain, int)
    )
    domain.min, domain.max = number(column.minimum), number(column.maximum)


def to_text(schema: schema_pb2.Schema) -> str:
    """Write a schema as text, one line per entry, for a file `schema.pbtxt`."""
    return text_format.MessageToString(schema)


def read(path: Path) -> schema_pb2.Schema:
    """Read a schema from a text file.

    Args:
        path: Such as `schema.pbtxt`.

    Returns:
        The schema.

    Raises:
        NotFoundError: There is no such file.
        DataIntegrityError: It is no schema; the message tells the line.
    """
    try:
        return text_format.Parse(path.read_text(encoding="utf-8"), schema_pb2.Schema())
    except FileNotFoundError as exc:
        there = sorted(other.name for other in path.parent.glob("*.pbtxt"))
        raise NotFoundError(
            f"no schema {path}; in its folder there is {there}: write schemas.to_text there"
        ) from exc
    except (text_format.ParseError, UnicodeDecodeError) as exc:
        raise DataIntegrityError(
            f"{path} holds no schema ({exc}); correct it or write schemas.to_text there"
        ) from exc


def diff(inferred: schema_pb2.Schema, reviewed: schema_pb2.Schema) -> list[str]:
    """Tell what a review has changed.

    Args:
        inferred: The schema before.
        reviewed: The schema after.

    Returns:
        One line per change, in the order of the columns; none if both say the same.

    >>> before, after = schema_pb2.Schema(), schema_pb2.Schema()
    >>> _ = before.feature.add(name="distance", type="INT")
    >>> _ = after.feature.add(name="distance", type="INT", int_domain={"min": 50, "max": 5000})
    >>> diff(before, after)
    ['distance: range, now 50 to 5000']
    """
    before, after = (
        {f.name: _aspects(schema, f) for f in schema.feature} for schema in (inferred, reviewed)
    )
    lines = []
    for name in dict.fromkeys([*before, *after]):
        if name not in after:
            lines.append(f"{name}: column, no longer")
        elif name not in before:
            lines.append(f"{name}: column, now {', '.join(map(_text, after[name].values()))}")
        else:
            lines.extend(_changes(name, before[name], after[name]))
    return lines


def _changes(name: str, before: Mapping[str, _Aspect], after: Mapping[str, _Aspect]) -> list[str]:
    lines = []
    for aspect in dict.fromkeys([*before, *after]):
        old, new = before.get(aspect), after.get(aspect)
        if old == new:
            continue
        if new is None:
            lines.append(f"{name}: {aspect}, no longer")
        elif old is None:
            lines.append(f"{name}: {aspect}, now {_text(new)}")
        elif isinstance(old, frozenset) and isinstance(new, frozenset):
            signed = [f"+{text}" for text in sorted(new - old)]
            signed += [f"-{text}" for text in sorted(old - new)]
            lines.append(f"{name}: {aspect}, {' '.join(signed)}")
        else:
            lines.append(f"{name}: {aspect}, {old} becomes {new}")
    return lines


def _aspects(schema: schema_pb2.Schema, feature: Any) -> dict[str, "_Aspect"]:
    """Describe in words what a schema says about a column."""
    aspects: dict[str, _Aspect] = {"type": TYPES[feature.type]}
    if feature.HasField("presence"):
        least = feature.presence.min_fraction
        share = "all rows" if least == 1 else f"at least {least:.4g} of the rows"
        aspects["presence"] = f"in {share}" if least else "not wholly empty"
    domain = number_domain(feature)
    if domain is not None:
        aspects["range"] = range_text(domain)
    if feature.HasField("string_domain") or feature.HasField("domain"):
        aspects["vocabulary"] = vocabulary(schema, feature)
        mass = feature.distribution_constraints.min_domain_mass
        aspects["vocabulary's share"] = f"at least {mass:.4g}"
    for role in ("drift_comparator", "skew_comparator"):
        comparator = getattr(feature, role)
        for distance in ("infinity_norm", "jensen_shannon_divergence"):
            if comparator.HasField(distance):
                aspects[role] = f"{distance} at most {getattr(comparator, distance).threshold:.4g}"
    return aspects


def vocabulary(schema: schema_pb2.Schema, feature: Any) -> frozenset[str]:
    """List the texts that a column may hold, its own or those of the schema's domain that it names.

    Returns:
        The texts; none if the schema names none.
    """
    named = {domain.name: domain for domain in schema.string_domain}
    domain = named[feature.domain] if feature.HasField("domain") else feature.string_domain
    return frozenset(domain.value)


def _text(aspect: _Aspect) -> str:
    return aspect if isinstance(aspect, str) else " ".join(sorted(aspect))


def number_domain(feature: Any) -> Any:
    """Find the `int_domain` or `float_domain` of a column, None if it has neither."""
    kind = feature.WhichOneof("domain_info")
    return getattr(feature, kind) if kind in {"int_domain", "float_domain"} else None


def range_text(domain: Any) -> str:
    """Tell the range of a domain, open where it sets no limit."""
    low = f"{domain.min:g}" if domain.HasField("min") else "any"
    high = f"{domain.max:g}" if domain.HasField("max") else "any"
    return f"{low} to {high}"
