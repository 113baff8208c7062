"""Counters and histograms in Prometheus' text format, cheap enough to be fed for every request.

A `Family` is everything under one name; a series is one combination of its labels. Whoever counts
keeps the series, so that a request costs an addition or a search in a list and no look-up of texts.
Nothing here locks: a series that several threads feed is guarded by whoever feeds it.

Names, labels and buckets of TensorFlow Serving's families are those that its `PrometheusExporter`
prints, which no client library writes: colons in names, counters without `_total`, and buckets
that don't hold their upper limit.

Source: https://prometheus.io/docs/instrumenting/exposition_formats/,
tensorflow_serving/util/prometheus_exporter.cc
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, Protocol, TypeVar


class _Series(Protocol):
    def lines(self, name: str, labels: str) -> Iterator[str]: ...


S = TypeVar("S", bound=_Series)


class Counter:
    """A number that only grows; add to its `value`.

    >>> n_requests = Counter()
    >>> n_requests.value += 1
    >>> list(n_requests.lines("requests_total", 'model_name="m"'))
    ['requests_total{model_name="m"} 1']
    """

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0

    def lines(self, name: str, labels: str) -> Iterator[str]:
        """Write it."""
        yield f"{name}{{{labels}}} {self.value}"


class Histogram:
    """How many values lie between each two limits, and their sum.

    A value that equals a limit counts above it, as in TensorFlow Serving.

    >>> histogram = Histogram([1.0, 2.5])
    >>> histogram.observe(1)
    >>> histogram.observe(7, n=2)
    >>> for line in histogram.lines("s", 'a="b"'):
    ...     print(line)
    s_bucket{a="b",le="1"} 0
    s_bucket{a="b",le="2.5"} 1
    s_bucket{a="b",le="+Inf"} 3
    s_sum{a="b"} 15
    s_count{a="b"} 3
    """

    __slots__ = ("_counts", "_limits", "_sum")

    def __init__(self, limits: Sequence[float]) -> None:
        """Start empty; `limits` rise."""
        self._limits = limits
        self._counts = [0] * (len(limits) + 1)
        self._sum = 0.0

    def observe(self, value: float, n: int = 1) -> None:
        """Count a value that has come `n` times."""
        self._counts[bisect_right(self._limits, value)] += n
        self._sum += value * n

    def lines(self, name: str, labels: str) -> Iterator[str]:
        """Write it; buckets are cumulative."""
        counts, total = [*self._counts], self._sum
        bucket = f"{name}_bucket{{{labels}{',' if labels else ''}le="
        cumulative = list(itertools.accumulate(counts))
        for limit, count in zip(self._limits, cumulative, strict=False):
            yield f'{bucket}"{limit:g}"}} {count}'
        yield f'{bucket}"+Inf"}} {cumulative[-1]}'
        yield f"{name}_sum{{{labels}}} {total:.17g}"
        yield f"{name}_count{{{labels}}} {cumulative[-1]}"


class Family(Generic[S]):
    r"""All series of one name.

    >>> loads = Family("loads_total", "counter", ("model_name",), Counter, "Loads of versions.")
    >>> loads.series("m").value += 2
    >>> print("\n".join(loads.lines()))
    # HELP loads_total Loads of versions.
    # TYPE loads_total counter
    loads_total{model_name="m"} 2
    """

    def __init__(
        self,
        name: str,
        kind: str,
        label_names: Sequence[str],
        make: Callable[[], S],
        help_text: str = "",
        *,
        most: int | None = None,
    ) -> None:
        """Describe the family; it has no series yet.

        Args:
            name: As Prometheus shows it.
            kind: `counter` or `histogram`.
            label_names: In the order in which `series` takes their values.
            make: Makes an empty series.
            help_text: One line; TensorFlow Serving has none.
            most: Drop the oldest series beyond that many. Only for series that nobody keeps.
        """
        self.name = name
        self._head = head(name, kind, help_text)
        self._label_names = label_names
        self._make = make
        self._most = most
        self._series: dict[tuple[str, ...], S] = {}

    def series(self, *label_values: str) -> S:
        """Return the series of these labels, made at the first question."""
        series = self._series.get(label_values)
        if series is None:
            if self._most is not None and len(self._series) >= self._most:
                del self._series[next(iter(self._series))]
            series = self._series.setdefault(label_values, self._make())
        return series

    def lines(self) -> Iterator[str]:
        """Write all series; nothing at all while there is none."""
        series = list(self._series.items())
        if series:
            yield from self._head
        for values, one in series:
            yield from one.lines(self.name, labels(self._label_names, values))


def exponential(first: float, factor: float, n: int) -> list[float]:
    """List limits of buckets as TensorFlow's `Buckets::Exponential` does.

    >>> exponential(1, 2, 4)
    [1, 2, 4, 8]
    """
    return [first * factor**power for power in range(n)]


def gauge_lines(
    name: str,
    help_text: str,
    label_names: Sequence[str],
    values: Sequence[tuple[tuple[str, ...], float]],
) -> Iterator[str]:
    """Write numbers that are read when they are asked for, each with the values of its labels."""
    if values:
        yield from head(name, "gauge", help_text)
    for label_values, value in values:
        yield f"{name}{{{labels(label_names, label_values)}}} {value:g}"


def head(name: str, kind: str, help_text: str) -> list[str]:
    """Write the lines before the series of a family."""
    help_lines = [f"# HELP {name} {help_text}"] if help_text else []
    return [*help_lines, f"# TYPE {name} {kind}"]


def labels(names: Sequence[str], values: Sequence[str]) -> str:
    r"""Write labels; a name may have any characters.

    >>> print(labels(["model_name"], ['a "b"\n']))
    model_name="a \"b\"\n"
    """
    escaped = [v.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") for v in values]
    return ",".join(f'{name}="{value}"' for name, value in zip(names, escaped, strict=True))
