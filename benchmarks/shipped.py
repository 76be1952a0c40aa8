"""A model that comes with the package, measured: `python benchmarks/shipped.py digits
[--data DIR]`.

Draws as many samples as there are real pictures to compare them with (at most 10,000)
by 50 steps of DDIM, and writes results/shipped-NAME.json."""

import argparse
import json
import resource
import shlex
import time
from pathlib import Path

from origin import ROOT, origin

from ddpm_lit import evaluate_run, load_images, load_pretrained
from ddpm_lit.report import table


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name", help="of the model")
    parser.add_argument("--data", type=Path, help="the folder above MNIST/raw")
    parser.add_argument(
        "--bits", type=int, default=450, help="held-out pictures for bits per dimension"
    )
    args = parser.parse_args()
    run, started = load_pretrained(args.name), time.perf_counter()
    config = run.model.config
    train, test = (
        load_images(
            run.facts.data, args.data, config.image_size, config.in_channels, split
        )
        for split in ("train", "test")
    )
    found = evaluate_run(
        run, train, test, n=min(10_000, len(train)), bits=args.bits, cas=True
    )
    record = (
        origin(
            f"python benchmarks/shipped.py {shlex.quote(args.name)}",
            found["seed"],
            "torchmetrics",
        )
        | found
    )
    record |= dict(
        seconds=round(time.perf_counter() - started, 1),
        peak_memory_MB=round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    )
    (ROOT / "results" / f"shipped-{args.name}.json").write_text(
        json.dumps(record) + "\n"
    )
    print(table(found))


if __name__ == "__main__":
    main()
