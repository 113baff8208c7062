"""Flights with a label, their features and days, side by side."""

from mlops_mini.flights import datasets, year


def test_all_parts_have_the_flights_that_have_a_label():
    january = datasets.flights("2013-01")

    known = year.read(["2013-01"])

    assert len(known.flights) == january["arr_delay"].notna().sum()
    for part in (known.features, known.late, known.leaking):
        assert part.index.equals(known.flights.index)
    assert (known.days == known.flights["day"] - 1).all()
    late = january.set_index("flight_id")["arr_delay"].loc[known.late.index] > 15
    assert (known.late == late).all()
    first = known.days < 2
    assert known.recompute(known.features[first], period="2013-01", n_rows=5).n_different == 0
    assert known.recompute(known.leaking[first], period="2013-01", n_rows=5).n_different == 5
