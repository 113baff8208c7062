"""Draws the service mesh of notebook 13, and which proxy counts a request that is retried."""

from tools.figures.svg import BLUE, ORANGE, PLAIN, WHITE, Drawing


def draw_mesh() -> str:
    """Draw the gateway, pods with their proxies, who tells these, and who may read the bucket."""
    title = "A service mesh: proxies carry each request, and one place tells them where to"
    drawing = Drawing(900, 366, title=title)
    drawing.box(14, 84, 104, 56, "clients")
    drawing.box(172, 84, 144, 56, "ingress gateway\na proxy", fill=BLUE)
    drawing.arrow((118, 112), (170, 112))
    pods = ((24, "v1", 70), (136, "v4", 30))
    for y, version, percent in pods:
        drawing.box(420, y, 270, 84)
        drawing.text(555, y + 18, f"pods of {version}", anchor="middle", is_bold=True)
        drawing.box(434, y + 30, 84, 40, "proxy", fill=BLUE, is_bold=False)
        drawing.box(556, y + 30, 120, 40, "model server", fill=ORANGE, is_bold=False)
        drawing.arrow((518, y + 50), (554, y + 50))
        drawing.arrow((316, 112), (432, y + 50))
        drawing.text(352, y + 46 if version == "v1" else y + 62, f"{percent}%", anchor="middle")
        drawing.arrow((676, y + 50), (748, y + 50 + (32 if version == "v1" else -32)))
    drawing.box(750, 84, 138, 92, "bucket\ngs://shop-models", fill=WHITE)
    drawing.text(806, 214, "may they read?\nWorkload Identity\nsays who they are", anchor="middle")
    drawing.box(
        186, 280, 504, 64, "Istio's control plane\nvirtual service, destination rule, gateway"
    )
    for x, top in ((250, 142), (476, 222)):
        drawing.arrow((x, 280), (x, top), is_dashed=True)
    drawing.text(262, 252, "tells them the rules")
    drawing.box(14, 280, 104, 64, "release\nwrites one", fill=PLAIN)
    drawing.arrow((118, 312), (184, 312))
    return drawing.svg()


def draw_reporters() -> str:
    """Draw a request that fails, is tried again and succeeds, and what both sides have counted."""
    title = "The caller's proxy counts one success; the canary's proxy, one failure too"
    drawing = Drawing(900, 196, title=title)
    drawing.box(14, 56, 104, 60, "client\ngets a 200")
    drawing.box(200, 40, 180, 92, "the caller's proxy\ncounts: 1 answer,\n0 failures", fill=BLUE)
    drawing.box(520, 40, 190, 92, "the canary's proxy\ncounts: 2 attempts,\n1 failure", fill=BLUE)
    drawing.box(778, 56, 108, 60, "canary", fill=ORANGE)
    drawing.arrow((118, 86), (198, 86))
    drawing.arrow((710, 86), (776, 86))
    for y, text in ((64, "1st: 503"), (108, "2nd: 200")):
        drawing.arrow((380, y), (518, y))
        drawing.text(449, y - 8, text, anchor="middle")
    drawing.text(290, 164, 'reporter="source"', anchor="middle", is_code=True)
    drawing.text(615, 164, 'reporter="destination"', anchor="middle", is_code=True)
    return drawing.svg()


def draw_all() -> dict[str, str]:
    """Draw every figure of the room: SVG text by file name."""
    return {"13_mesh.svg": draw_mesh(), "13_reporters.svg": draw_reporters()}
