"""Writes every figure.

Example: python -m tools.figures
"""

from pathlib import Path

from tools.figures import (
    automation,
    clusters,
    containers,
    features,
    gate,
    lineage,
    loop,
    pipelines,
    services,
    serving,
    triggers,
    validation,
)

FIGURES = Path(__file__).resolve().parents[2] / "notebooks" / "figures"


def draw_all() -> dict[str, str]:
    """Draw every figure: SVG text by file name."""
    rooms = (
        loop,
        automation,
        validation,
        features,
        pipelines,
        gate,
        serving,
        containers,
        services,
        clusters,
        triggers,
        lineage,
    )
    return {name: svg for room in rooms for name, svg in room.draw_all().items()}


def main() -> None:
    """Write the figures."""
    FIGURES.mkdir(parents=True, exist_ok=True)
    for name, svg in draw_all().items():
        (FIGURES / name).write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()
