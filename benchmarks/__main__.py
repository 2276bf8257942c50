"""Measurements against peers: `make bench`.

Each row runs ours and the peer in turn in one process, so that both meet the same machine, and
gives the medians and their ratio. Writes build/bench/results.json and prints the table.
"""

import json
from pathlib import Path

import click
import pandas as pd
import torch

from . import channels, gradients, reconstruction, selection

OUT = Path(__file__).parents[1] / "build" / "bench" / "results.json"
BENCHES = {
    f.__name__: f
    for f in (
        selection.global_selection,
        selection.ways_of_selection,
        selection.large_selection,
        reconstruction.depth_of_reconstruction,
        gradients.masked_step,
        gradients.fisher_mlp,
        gradients.fisher_cnn,
        gradients.sensitivity_scan,
        channels.removed_channels,
    )
}


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(list(BENCHES)))
def main(names: tuple[str, ...]) -> None:
    """Run the benchmarks called NAMES, or all of them."""
    rows = []
    for name in names or BENCHES:
        print(f"measuring: {BENCHES[name].__doc__.splitlines()[0]}", flush=True)
        rows += BENCHES[name]()
    for row in rows:
        known = row["ours"] is not None and row["peer"] is not None
        row["ratio"] = row["ours"] / row["peer"] if known else None
        row["reached"] = row["ratio"] <= row["to reach"] if known and row["to reach"] else None
    OUT.parent.mkdir(parents=True, exist_ok=True)
    about = {"torch": torch.__version__, "threads": torch.get_num_threads()}
    OUT.write_text(json.dumps({**about, "rows": rows}, indent=2) + "\n")
    columns = ["work", "peer is", "ours", "peer", "ratio", "to reach", "reached"]
    table = pd.DataFrame(rows)[columns].set_index(["work", "peer is"])
    print(table.to_string(float_format="{:.3g}".format, na_rep="-"))
    for row in rows:
        if "note" in row:
            print(f"- {row['work']}, against {row['peer is']}: {row['note']}")
    print(f"A ratio below 1: ours takes less. Written to {OUT}")


if __name__ == "__main__":
    main()
