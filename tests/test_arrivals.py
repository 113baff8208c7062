"""What arrives is either used or set aside with a reason, and features know what came before."""

from mlops_mini import arrivals
from mlops_mini.data.periods import Period


def test_every_row_is_used_or_set_aside_with_a_reason() -> None:
    (july,) = arrivals.read([Period.parse("2013-07")]).partitions

    assert july.n_arrived == 29_425
    assert len(july.flights) + july.n_quarantined == july.n_arrived
    assert july.refused == {"distance: in_range(50, 5000), found 17": 1}
    assert july.n_without_label == july.labels.isna().sum()
    features, labels = july.labeled()
    assert len(features) == len(labels) == len(july.flights) - july.n_without_label


def test_impossible_weather_never_becomes_a_feature() -> None:
    arrived = arrivals.read([Period.parse("2013-02")])
    (february,) = arrived.partitions

    (line,) = arrived.quarantined.to_dict("records")
    assert (line["period"], line["table"], line["column"]) == ("2013-02", "weather", "wind_speed")
    assert february.refused == {"wind_speed: in_range(0, 100), found 1048.36058": 1}
    assert february.features["wind_speed"].max() < 100
    assert "EWR lacks 3 of 672 hours of 2013-02, at most 1 in a row" in february.findings


def test_the_first_hours_of_a_month_know_the_end_of_the_month_before() -> None:
    alone = arrivals.read([Period.parse("2013-02")]).partitions[0]
    together = arrivals.read([Period.parse("2013-01"), Period.parse("2013-02")]).partitions[1]

    assert alone.features.equals(together.features)
    assert alone.features["car_dep_mean_24h"].notna().iloc[0]


def test_the_stream_tells_things_in_the_order_in_which_they_become_known() -> None:
    stream = arrivals.read([Period.parse("2013-03")]).stream
    known_s = [event.available_s for event in stream]

    assert known_s == sorted(known_s)
