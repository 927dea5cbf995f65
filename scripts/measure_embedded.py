"""Measure the embedded model on held-out prompts and write the results as JSON, optionally with a contact sheet.

``python scripts/measure_embedded.py MODEL --out metrics.json`` takes a few minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from PIL import Image

from scripts.embedded import measure

# Subjects that a person should recognize at first sight, and prompts for order, counting, locations and gradients.
SHEET = (
    "a red circle on a blue background",
    "a yellow star on a purple background",
    "a pink heart on a white background",
    "a green triangle on an orange background",
    "a white ring on a black background",
    "a blue cross on a yellow background",
    "a gray diamond, pink background",
    "a white cloud on a blue background",
    "a red square to the left of a green circle on a white background",
    "a yellow moon above a blue square on a gray background",
    "a white star inside a red circle on a black background",
    "three orange hearts on a green background",
    "a house at night",
    "a boat on the sea",
    "a cat in a meadow",
    "a tree in the snow",
    "an orange fish under water",
    "a red car on a road",
    "a red balloon at sunset",
    "mountains",
    "a red mushroom in a meadow",
    "a pink flower on a green background",
    "a black cat on a yellow background",
    "a house on the beach",
)


def contact_sheet(folder: Path, size: int, seed: int, guidance: float) -> Image.Image:
    """Generate the sheet's images, eight in a row."""
    pictures = list(measure.paint(measure.load(folder), list(SHEET), size, seed, guidance=guidance))
    sheet = Image.new("RGB", (8 * (size + 2), -(-len(pictures) // 8) * (size + 2)))
    for index, picture in enumerate(pictures):
        sheet.paste(picture, (index % 8 * (size + 2), index // 8 * (size + 2)))
    return sheet


def main() -> None:
    """Measure at every requested size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    parser.add_argument(
        "--sheet", type=Path, help="PNG file for a contact sheet of the first size; no measurement is made"
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 256])
    parser.add_argument("--count", type=int, default=96, help="images of one shape; half as many pairs and figures")
    parser.add_argument("--guidance", type=float, default=4.0)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.sheet:
        contact_sheet(args.model, args.sizes[0], args.seed, args.guidance).save(args.sheet)
        return
    figures = {
        str(size): measure.measure(
            args.model,
            args.count,
            size,
            args.seed,
            steps=args.steps,
            guidance=args.guidance,
            figures=args.count // 2,
        )
        for size in args.sizes
    }
    text = json.dumps(figures, indent=2)
    print(text)
    if args.out:
        args.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
