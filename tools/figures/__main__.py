"""Writes every figure.

Example: python -m tools.figures
"""

from pathlib import Path

from tools.figures import features, loop, serving

FIGURES = Path(__file__).resolve().parents[2] / "notebooks" / "figures"


def draw_all() -> dict[str, str]:
    """Draw every figure: SVG text by file name."""
    return {**loop.draw_all(), **features.draw_all(), **serving.draw_all()}


def main() -> None:
    """Write the figures."""
    FIGURES.mkdir(parents=True, exist_ok=True)
    for name, svg in draw_all().items():
        (FIGURES / name).write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()
