"""Features in the words of Feast, a feature store that many servers share."""

from mlops_mini.features.feature_set import FeatureSet


def feature_view(feature_set: FeatureSet, entity: str) -> str:
    """Write the windows of an entity as Feast's Python.

    Feast stores values and says for how long each stands; how a window is computed remains a job of
    one's own.

    Args:
        feature_set: Whose windows.
        entity: Which of them: those that are looked up by this column.

    Returns:
        Source of an `Entity` and a `FeatureView`.

    Source:
        https://docs.feast.dev/getting-started/concepts/feature-view
    """
    of_entity = [window for window in feature_set.windows if window.source.entity == entity]
    hours = max(window.source.window_s for window in of_entity) / 3600
    return "\n".join(
        [
            f'{entity} = Entity(name="{entity}", join_keys=["{entity}"])',
            f"{entity}_recent = FeatureView(",
            f'    name="{entity}_recent",',
            f"    entities=[{entity}],",
            "    schema=[",
            *(f'        Field(name="{window.name}", dtype=Float32),' for window in of_entity),
            "    ],",
            f"    ttl=timedelta(hours={hours:g}),",
            f'    source=FileSource(path="{entity}.parquet", timestamp_field="as_of"),',
            ")",
        ]
    )
