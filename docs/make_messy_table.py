"""Writes docs/messy.csv, trains on it, and draws docs/figures/messy_table.png: `python docs/make_messy_table.py`.

The table is invented: 400 sales of a bicycle shop as a spreadsheet of central Europe exports them.
"""

from __future__ import annotations

import csv
import sys
import tempfile
from datetime import datetime
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from undiffuse.cli import main

HERE = Path(__file__).parent
REAL, MADE = "#4c6ef5", "#e8590c"
TYPES = {"city bike": (640, 90), "e-bike": (2400, 380), "child's bike": (260, 40), "café racer": (1500, 260)}
REMARKS = ("customer asked for", "second visit, wants", "paid later,", "saw it on the web:", "for the family:")


def rows(n: int = 400) -> list[list[str]]:
    """Sales: prices follow the type, child's bikes are sold before Christmas, and only members get a discount."""
    rng = np.random.default_rng(11)
    table = []
    for k in range(n):
        kind = str(rng.choice(list(TYPES), p=[0.4, 0.3, 0.2, 0.1]))
        mean, std = TYPES[kind]
        month = rng.choice([11, 12]) if kind == "child's bike" and rng.random() < 0.6 else rng.choice([3, 4, 5, 6, 7])
        day = datetime(2025, int(month), int(rng.integers(1, 28)))
        member = rng.random() < 0.35
        price = max(99.0, rng.normal(mean, std))
        discount = f"{rng.choice([5, 10, 15])} %" if member else "0 %"
        rating = "-" if rng.random() < 0.15 else str(min(5, max(1, round(rng.normal(4.4 if member else 3.5, 0.8)))))
        code = f"{rng.choice([1001, 1067, 4109, 9111]):05d}"
        money = f"{price:,.2f} €".replace(",", "'").replace(".", ",").replace("'", ".")
        table.append([str(k + 1), day.strftime("%d.%m.%Y"), code, kind, money, discount,
                      "n.s." if rng.random() < 0.06 else rating, "yes" if member else "no",
                      f"{REMARKS[k % len(REMARKS)]} order {7000 + 13 * k}"])
    return table


def write(path: Path) -> None:
    """The file: Windows' code page, semicolons, decimal commas, and a line above the names."""
    names = ["no", "date", "zip", "type", "price", "discount", "rating", "member", "remark"]
    lines = [";".join(line) for line in [names, *rows()]]
    path.write_bytes("\r\n".join(["Velo Nord, sales of 2025;;;;;;;;", *lines, ""]).encode("cp1252"))


def columns(path: Path, encoding: str) -> dict[str, list[str]]:
    """The texts of every column of a file with semicolons or commas."""
    lines = path.read_text(encoding).splitlines()
    lines = lines[lines[0].startswith("Velo"):]
    head, *body = csv.reader(lines, delimiter=";" if ";" in lines[0] else ",")
    return {name: [row[j] for row in body] for j, name in enumerate(head)}


def picture(real: dict[str, list[str]], made: dict[str, list[str]]) -> Figure:
    """Prices by type, sales by month, and the discount of members, real and generated."""
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    for table, color, label, shift in ((real, REAL, "in the file", -0.2), (made, MADE, "generated", 0.2)):
        prices = np.array([float(p.removesuffix(" €").replace(".", "").replace(",", ".")) for p in table["price"]])
        for k, kind in enumerate(TYPES):
            y = prices[np.array(table["type"]) == kind]
            left.plot(k + shift + np.linspace(-0.12, 0.12, len(y)), y, ".", color=color, markersize=3,
                      label=label if k == 0 else None)
        months = [datetime.strptime(d, "%d.%m.%Y").month for d in table["date"]]
        middle.bar(np.arange(1, 13) + shift, np.bincount(months, minlength=13)[1:] / len(months), 0.4, color=color)
        share = [np.mean([d != "0 %" for d, m in zip(table["discount"], table["member"], strict=True) if m == who])
                 for who in ("yes", "no")]
        right.bar(np.arange(2) + shift, share, 0.4, color=color)
    left.set(xticks=range(4), ylabel="price in €", yscale="log")
    left.set_xticklabels(TYPES, rotation=20, ha="right")
    left.legend(frameon=False)
    middle.set(xlabel="month", ylabel="share of the sales", xticks=range(1, 13))
    right.set(xticks=range(2), ylabel="share with a discount", xticklabels=["members", "others"])
    for ax in (left, middle, right):
        _plain(ax)
    return figure


def _plain(ax: Axes) -> None:
    ax.spines[["top", "right"]].set_visible(False)


def run(*words: str) -> None:
    """One command; the script ends if it fails."""
    print("$ undiffuse", *words)
    if main(words):
        sys.exit(1)


if __name__ == "__main__":
    torch.set_num_threads(1)
    write(HERE / "messy.csv")
    with tempfile.TemporaryDirectory() as folder:
        model, sales = f"{folder}/sales", f"{folder}/new.csv"
        run("show", str(HERE / "messy.csv"), "--missing", "n.s.")
        run("train", str(HERE / "messy.csv"), "--missing", "n.s.", "--out", model)
        run("sample", model, "--n", "2000", "--out", sales)
        print(*Path(sales).read_text().splitlines()[:6], sep="\n")
        run("evaluate", model)
        run("report", model)
        picture(columns(HERE / "messy.csv", "cp1252"), columns(Path(sales), "utf-8")).savefig(
            HERE / "figures" / "messy_table.png", dpi=110)
