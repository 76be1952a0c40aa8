"""Pages of the first edition lay in one folder. Quarto runs this after rendering: each old address leads to the
page where its text is now."""

import os
from pathlib import Path

MOVED = {
    "notation.html": "1_mathematics/notation.html",
    "gaussian.html": "1_mathematics/gaussian.html",
    "schedule.html": "1_mathematics/schedule.html",
    "forward.html": "1_mathematics/forward.html",
    "posterior.html": "1_mathematics/posterior.html",
    "prediction.html": "1_mathematics/prediction.html",
    "elbo.html": "1_mathematics/elbo.html",
    "oracle.html": "1_mathematics/oracle.html",
    "ddpm.html": "2_sampling/ddpm.html",
    "ddim.html": "2_sampling/ddim.html",
    "solvers.html": "2_sampling/solvers.html",
    "guidance.html": "2_sampling/guidance.html",
    "editing.html": "2_sampling/editing.html",
    "data.html": "3_images/images.html",
    "files.html": "3_images/image_files.html",
    "sets.html": "3_images/datasets.html",
    "unet.html": "4_training/unet.html",
    "runs.html": "4_training/runs.html",
    "training.html": "4_training/training.html",
    "interop.html": "4_training/diffusers.html",
    "start.html": "4_training/finetuning.html",
    "evaluation.html": "5_quality/evaluation.html",
    "features.html": "5_quality/distances.html",
    "likelihood.html": "5_quality/likelihood.html",
    "drawing.html": "6_using/generating.html",
    "report.html": "6_using/report.html",
    "summary.html": "7_command/run_page.html",
    "terminal.html": "7_command/terminal.html",
    "flags.html": "7_command/flags.html",
    "cli.html": "7_command/main.html",
    "digits.html": "8_cases/digits.html",
    "mnist.html": "8_cases/mnist.html",
    "celeba.html": "8_cases/faces.html",
    "equations.html": "reference/equations.html",
    "pitfalls.html": "reference/pitfalls.html",
}
PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>This page has moved</title>
<link rel="canonical" href="{target}">
<meta http-equiv="refresh" content="0; url={target}">
<script>location.replace("{target}" + location.hash)</script>
<p>This page has moved to <a href="{target}">{target}</a>.</p>
</html>
"""


def write(site: Path) -> list[Path]:
    "A small page for each old address, in the folder of the rendered site."
    made = []
    for old, target in MOVED.items():
        path = site / old
        path.write_text(PAGE.format(target=target), encoding="utf-8")
        made.append(path)
    return made


if __name__ == "__main__":
    write(Path(os.environ["QUARTO_PROJECT_OUTPUT_DIR"]))
