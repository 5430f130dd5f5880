"""Draw the figures that come as JSON on standard input into a PNG."""

import json
import sys
import textwrap

import matplotlib as mpl
from matplotlib import pyplot as plt

mpl.use("Agg")
OWN, OTHERS = "#c0392b", "#7f8c8d"

tables = json.load(sys.stdin)
heights = [0.35 * len(rows) + 0.9 for rows in tables.values()]
drawing, places = plt.subplots(
    len(tables), 1, figsize=(9, sum(heights)), squeeze=False, gridspec_kw={"height_ratios": heights}
)
for place, (title, rows) in zip(places[:, 0], tables.items(), strict=True):
    names = [textwrap.fill(name, 50) for name in rows][::-1]
    figures = list(rows.values())[::-1]
    medians = [figure["median"] for figure in figures]
    below = [figure["median"] - figure["lowest"] for figure in figures]
    above = [figure["highest"] - figure["median"] for figure in figures]
    bars = place.barh(
        names, medians, xerr=[below, above], color=[OWN if name == "Chiffon" else OTHERS for name in names]
    )
    labels = [f"{row['median']:{',.0f' if row['median'] >= 100 else '.3g'}} {row['unit']}" for row in rows.values()]
    place.bar_label(bars, labels[::-1], padding=4, fontsize=8)
    place.margins(x=0.2)
    place.set_title(title, loc="left", fontsize=10)
drawing.tight_layout()
drawing.savefig(sys.argv[1], dpi=120)
