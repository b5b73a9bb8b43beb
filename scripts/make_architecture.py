"""Draw docs/architecture.svg: the rooms of the package, the files in each, and from which rooms they import.

The rooms are named here and nowhere else: tests/test_layout.py holds the imports to this order, and make_site.py lists
the modules by it.
"""

from __future__ import annotations

import ast
import textwrap
from pathlib import Path

from diffkit.io import write_atomic

ROOT = Path(__file__).resolve().parent.parent

# In the order in which data flows: a file imports only from files before it. A new file gets its place here.
ROOMS = {
    "Language and data": "shipped doors draws stories tokenizer tables language corpus chunks data",
    "Noise and processes": "noise diffusion transitions d3pm sedd wordvectors gaussian latents",
    "Networks": "labels attention backbone autoregressive blocks baselines seal model checkpoint",
    "Training": "objectives recipe muon parallel state train",
    "Sampling": "rules filters sample fast remasking blockwise guidance lengths",
    "Evaluation": "evaluate reveal scaling metrics judge infilling leaderboard",
    "What is shown": "plot report widgets exercises",
    "Settings and commands": "plainyaml config terminal doctor runs commands cli __main__",
}
ORDER = " ".join(ROOMS.values()).split()
ROOM_OF = {name: number for number, names in enumerate(ROOMS.values(), 1) for name in names.split()}

# What every room hands to those below it.
HANDED_ON = [
    "x0 (B, L): ids of clean text",
    "corrupt: xt (B, L) and is_masked (B, L)",
    "model(xt, t): logits (B, L, V)",
    "fit: records; then a folder with the trained model",
    "denoise_frames: frames, each with tokens (B, L)",
    "bounds, distances and shares, the exact ones beside them",
    "figures, players, verdicts",
]
WIDTH, LEFT, NAMES, LINE, GAP, COLUMNS = 860, 20, 285, 21, 34, 62  # pixels; characters of a line of names
STYLE = (
    "text{font:14px system-ui,sans-serif;fill:#24292f}.title{font-weight:bold;font-size:16px}"
    ".names{font:14px ui-monospace,Menlo,Consolas,monospace}.quiet{fill:#57606a}.panel{fill:#f6f8fa}"
    ".room{fill:#fff;stroke:#0072b2;stroke-width:1.5}.arrow{stroke:#0072b2;stroke-width:2;fill:none}.head{fill:#0072b2}"
    "@media(prefers-color-scheme:dark){text{fill:#e6edf3}.quiet{fill:#9da7b3}.panel{fill:#161b22}"
    ".room{fill:#0d1117;stroke:#56b4e9}.arrow{stroke:#56b4e9}.head{fill:#56b4e9}}"
)


def imported_rooms(names: str) -> list[int]:
    """The other rooms that the files of a room import from."""
    found = set()
    for path in (ROOT / "diffkit").rglob("*.py"):
        if path.relative_to(ROOT / "diffkit").parts[0].removesuffix(".py") in names.split():
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "diffkit":
                    modules = str(node.module).split(".")[1:2] or [alias.name for alias in node.names]
                    found |= {ROOM_OF[module] for module in modules if module in ROOM_OF}
    return sorted(found - {ROOM_OF[names.split()[0]]})


def text(x: int, y: int, words: str, kind: str = "") -> str:
    return f'<text x="{x}" y="{y}" class="{kind}" xml:space="preserve">{words}</text>'


def draw() -> str:
    """The picture as SVG: a box for each room, and between two boxes what is handed on."""
    parts, y = [], LEFT
    for number, (room, names) in enumerate(ROOMS.items(), 1):
        lines = textwrap.wrap(names.replace(" ", "  "), COLUMNS)
        height, rooms = LINE * max(2, len(lines)) + 18, ", ".join(map(str, imported_rooms(names)))
        parts.append(f'<rect class="room" x="{LEFT}" y="{y}" width="{WIDTH - 2 * LEFT}" height="{height}" rx="8"/>')
        parts.append(text(LEFT + 14, y + 24, f"{number}  {room}", "title"))
        parts.append(
            text(LEFT + 14, y + 24 + LINE, f"imports from {rooms}" if rooms else "imports from no other", "quiet")
        )
        parts += [text(NAMES, y + 24 + LINE * i, line, "names") for i, line in enumerate(lines)]
        y += height
        if number < len(ROOMS):
            parts.append(
                f'<path class="arrow" d="M60 {y}v{GAP - 8}"/><path class="head" d="M54 {y + GAP - 10}h12l-6 10z"/>'
            )
            parts.append(text(80, y + 22, HANDED_ON[number - 1], "quiet"))
            y += GAP
    said = "; ".join(f"{number} {room}: {names}" for number, (room, names) in enumerate(ROOMS.items(), 1))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y + LEFT}" role="img" aria-labelledby="t d">'
        f'<title id="t">The rooms of diffkit, in the order in which data flows</title><desc id="d">{said}</desc>'
        f'<style>{STYLE}</style><rect class="panel" width="100%" height="100%" rx="10"/>{"".join(parts)}</svg>\n'
    )


if __name__ == "__main__":
    write_atomic(ROOT / "docs" / "architecture.svg", draw())
