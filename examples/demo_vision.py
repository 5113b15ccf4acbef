"""The main job with images, with the commands that a user would type.

Each image shows two handwritten digits: the left one is the class, and the right one is marked as
sensitive. A small vision transformer is trained under differential privacy, evaluated, audited and
served; then the server is asked about one image, with the right digit hidden from the model. All
files go to ``demo-vision/``.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from PIL import Image

from attnpriv.data import load_dataset
from demo import command, console, run, serving

DEMO = Path("demo-vision")
DATA = "digits:beside=1"
# Few images need large batches and few steps; docs/vision.md has what other settings reach.
TRAINING = (
    "--model vit --epsilon 8 --clip 2 --steps 150 --batch-size 700 --head-learning-rate 0.6 "
    "--decay linear --seed 0"
)
RIGHT_DIGIT = "8:0:16:8:DIGIT"


def main() -> None:
    """Run the demo, which leaves its run and its report in ``demo-vision/``."""
    shutil.rmtree(DEMO, ignore_errors=True)
    runs, image = DEMO / "runs", DEMO / "asked.png"
    private = str(runs / "private")
    command("attnpriv", "train", "--data", DATA, *TRAINING.split(), "--out", private)
    command("attnpriv", "evaluate", private, "--data", DATA)
    report = ["--data", DATA, "--out", str(DEMO / "report"), "--depth", "quick"]
    table = command("attnpriv", "audit", private, *report, capture=True)
    Image.fromarray(load_dataset(DATA).records[0][..., 0]).save(image)
    asked = ["--model", "private", "--image", str(image)]
    with serving(runs, DEMO / "server.log") as target:
        command("attnpriv-client", "predict", "--target", target, *asked)
        command("attnpriv-client", "explain", "--target", target, *asked, "--region", RIGHT_DIGIT)
    console.rule("What the audit found", align="left")
    console.out(table, highlight=False)


if __name__ == "__main__":
    run(main)
