"""Sections of the page on tables: histograms, relations of columns, and scores beside those of real rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from numpy.typing import NDArray

from undiffuse.likelihood.column_surprise import column_surprise
from undiffuse.report import figures
from undiffuse.report.blocks import Block, ReportFigure, Section
from undiffuse.report.evaluate import Metrics, ReportData, mixed_columns, with_labels
from undiffuse.report.figures import GENERATED, REAL, canvas, chart, shorten
from undiffuse.report.formats import percent, short
from undiffuse.report.table_metrics import MixedColumns, associations

Array = NDArray[np.float64]

_COLUMNS, _WORDS = 24, 6  # columns, and words of a column, that are shown
_SCORED, _UNUSUAL, _SHOWN = 500, 8, 10  # rows that are scored and shown, and columns that are shown
_BOTH = (("real", "real"), ("generated", "generated"))


def histograms(data: ReportData, metrics: Metrics) -> tuple[Block, ...]:
    """Histograms of the columns, with words on the axis, and matrices of association."""
    columns = mixed_columns(data)
    real = with_labels(data.real.x, data.real.y if data.labels is not None else None)
    generated = with_labels(data.generated, data.labels)
    ks, names = metrics.numbers.get("ks") or {}, columns.names[:_COLUMNS]
    forms = {form.name: form for form in (data.train.schema.formats if data.train.schema else ())}
    charts = []
    for j, name in enumerate(names):
        alt = f"Histograms of column {name}, real and generated"
        title = f"{name} ({ks[name]:.2f})" if name in ks else name
        if columns.words[j]:
            charts.append(words(alt, real[:, j], generated[:, j], columns.words[j], title))
        else:
            text = forms[name].text if name in forms and forms[name].date else None
            charts.append(figures.column(alt, real[:, j], generated[:, j], title, text))
    listed = "all columns" if len(names) == len(columns.names) else f"the first {len(names)} columns"
    distances = (f", with Kolmogorov-Smirnov distances; for equal distributions 95 % are below "
                 f"{short(metrics.numbers.get('ks_critical'))}") if ks else ""
    figure = ReportFigure(charts, f"Values of {listed}{distances}.", _BOTH, "columns")
    return (figure, *_relations(columns, real, generated))


def scores_section(data: ReportData, metrics: Metrics) -> Section | None:
    """The scores of a table beside those of real rows; None for other data and without held-out rows."""
    n = metrics.numbers
    if data.kind != "table" or n.get("shapes") is None:
        return None
    rows = [(label, n.get(name), n.get(f"{name}_floor")) for label, name in (
        ("told apart by a forest (AUC)", "c2st_forest"), ("told apart linearly (AUC)", "c2st_logistic"),
        ("shapes of the columns", "shapes"), ("trends of pairs", "trends"),
        ("nearer to training rows", "nearest_share"))]
    rows = [row for row in rows if row[1] is not None]
    chart_of_scores = scores("Scores of generated rows, and of real rows", [r[0] for r in rows],
                             np.array([r[1:] for r in rows], float))
    utility = n.get("utility") or {}
    blocks: list[ReportFigure] = [ReportFigure(chart_of_scores, _explain(n), _BOTH)]
    if utility:
        values = np.array([[v["synthetic"], v["real"]] for v in utility.values()])
        blocks.append(ReportFigure(scores("Scores of forests trained on generated and on real rows", list(utility),
                                          values.clip(0)), (
            "Forests that predict a column from the others, trained on generated and on training rows, on held-out "
            "rows: accuracy for words, R² for numbers."), (("trained on real", "real"), ("on generated", "generated"))))
    return Section("Scores of the table", _impossible(n), (tuple(blocks),))


def unusual_section(data: ReportData) -> Section | None:
    """The most unusual real rows, and the columns that make them so; None for other data and a single column."""
    if data.kind != "table" or len(data.real.columns) < 2 or data.model.kind != "denoiser":
        return None
    rows = data.real.x[:_SCORED]
    surprise = column_surprise(data.model, rows, seed=data.seed)
    top = surprise.sum(1).argsort(descending=True)[:_UNUSUAL]
    columns = surprise[top].amax(0).argsort(descending=True, stable=True)[:_SHOWN].sort().values.tolist()
    forms = data.train.schema.formats if data.train.schema else ()
    names = [data.real.columns[j] for j in columns]
    texts = [[shorten(forms[j].text(v) if len(forms) == len(row) else short(v), 10)
              for j in columns for v in [float(row[j])]] for row in rows[top]]
    which = "held-out" if data.held_out is not None else "training"
    caption = (f"The values of the {len(top)} most unusual of {len(rows):,} {which} rows, coloured by the surprise of "
               "the column in nats above the model's own samples; the sum over all columns is at the left.")
    figure = surprises(f"Surprise of every column of unusual {which} rows", names, texts,
                       surprise[top][:, columns].numpy(), surprise[top].sum(1).numpy())
    return Section("Unusual rows", "", (ReportFigure(figure, caption, (("surprise", "generated"),)),))


def _explain(n: dict[str, Any]) -> str:
    """The caption of the scores."""
    worst = f"The column that fits worst is {n['shapes_worst']['column']} ({n['shapes_worst']['value']:.2f})"
    if "trends_worst" in n:
        first, second = n["trends_worst"]["columns"]
        worst += f", the pair {first} and {second} ({n['trends_worst']['value']:.2f})"
    return ("Told apart: ½ is perfect. Shapes and trends: 1 is perfect. Nearer to training than to held-out rows: ½ is "
            f"perfect, 1 are copies; no measure of privacy. Real: the same for training rows. {worst}.")


def _impossible(n: dict[str, Any]) -> str:
    """A sentence on pairs of words that no real row has."""
    if "impossible" not in n:
        return ""
    if not n["impossible"]:
        return "Every pair of words in the generated rows occurs in the data."
    named = "; ".join(f"{p['columns'][0]} {p['words'][0]} with {p['columns'][1]} {p['words'][1]} ({p['rows']})"
                      for p in n["impossible_pairs"][:5])
    return (f"{percent(n['impossible'])} of the generated rows hold a pair of words that no real row has, most often "
            f"{named}. Of the held-out rows, {percent(n['impossible_floor'])} hold a pair that no training row has.")


def _relations(columns: MixedColumns, real: Array, generated: Array) -> tuple[Block, ...]:
    """Matrices of association of the columns that are not constant."""
    varying = [j for j in range(min(len(columns.names), _COLUMNS))
               if np.ptp(real[:, j]) > 0 and np.ptp(generated[:, j]) > 0]
    if len(varying) < 2:
        return ()
    part = MixedColumns(tuple(columns.names[j] for j in varying), tuple(columns.words[j] for j in varying))
    matrices = {name: associations(part, x[:, varying]) for name, x in (("real", real), ("generated", generated))}
    difference = short(float(np.abs(matrices["real"] - matrices["generated"]).max()))
    suffix = {"real": ".", "generated": f"; the largest difference is {difference}."}
    kind = "Correlations, and for words the correlation ratio and Cramér's V," if any(part.words) else "Correlations"
    key = (("positive", "real"), ("negative", "generated"))
    return (tuple(ReportFigure(
        figures.correlations(f"Correlation matrix of {name} rows", part.names, values),
        f"{kind} of {name} rows{suffix[name]}", key) for name, values in matrices.items()),)


@chart
def words(real: Array, generated: Array, names: tuple[str, ...], title: str) -> Figure:
    """Frequencies of the most frequent words of a column, real (filled) and generated (line).

    Args:
        real: numbers of words (n,).
        generated: numbers of words (m,).
        names: the words.
        title: name of the column, shortened to 30 characters.
    """
    shares = np.stack([np.bincount(x.astype(np.int64), minlength=len(names)) / len(x) for x in (real, generated)])
    order = np.argsort(-shares.max(0), kind="stable")
    shown, labels = shares[:, order[:_WORDS]], [shorten(names[k], 14) for k in order[:_WORDS]]
    if len(names) > _WORDS:
        shown = np.concatenate([shown, shares[:, order[_WORDS:]].sum(1, keepdims=True)], 1)
        labels.append(f"{len(names) - _WORDS} others")
    figure, ax = canvas(max(128, 36 + 18 * len(labels)), width=230)
    places = np.arange(len(labels))
    ax.barh(places, shown[0], 0.75, color=to_rgba(REAL, 0.25), edgecolor=REAL, linewidth=1)
    ax.barh(places, shown[1], 0.75, color="none", edgecolor=GENERATED, linewidth=1.6)
    ax.set_yticks(places, labels)
    ax.invert_yaxis()
    ax.grid(False)
    ax.locator_params(axis="x", nbins=4)
    ax.set_title(shorten(title, 30))
    return figure


@chart
def surprises(names: list[str], texts: list[list[str]], values: Array, totals: Array) -> Figure:
    """Values of unusual rows, each on the colour of its surprise.

    Args:
        names: names of the columns.
        texts: the values of the rows, one text per column.
        values: the surprise of every column (n, D).
        totals: that of every row over all columns (n,).
    """
    figure, ax = canvas(90 + 26.0 * len(texts))
    figures.remove_frame(ax)
    full = max(1.0, float(values.max()))
    for i, row in enumerate(texts):
        for j, text in enumerate(row):
            strength = min(1.0, max(0.0, float(values[i, j])) / full)
            ax.bar(j, 0.92, 0.96, i - 0.46, color=to_rgba(GENERATED, 0.6 * strength), linewidth=0)
            ax.text(j, i, text, ha="center", va="center", fontsize=9)
    ax.set(xlim=(-0.5, len(names) - 0.5), ylim=(len(texts) - 0.5, -0.5))
    ax.set_xticks(range(len(names)), [shorten(name) for name in names])
    ax.tick_params(axis="x", labelrotation=90 if len(names) > 6 else 0, labelsize=9)
    ax.set_yticks(range(len(texts)), [f"{total:+.1f}" for total in totals.tolist()])
    return figure


@chart
def scores(names: list[str], values: Array) -> Figure:
    """Values from 0 to 1 of generated and of real rows, one line per score.

    Args:
        names: names of the scores.
        values: values of generated and of real rows (n, 2), NaN where there is none.
    """
    figure, ax = canvas(60 + 26.0 * len(names))
    places = np.arange(len(names))
    for k, role in ((1, REAL), (0, GENERATED)):
        ax.plot(values[:, k], places, "o", color=role, markersize=8 if k else 6)
    for place, (generated, real) in enumerate(values.tolist()):
        ax.text(1.04, place, f"{generated:.2f} ({real:.2f})", va="center", fontsize=11)
    ax.set_yticks(places, [shorten(name, 30) for name in names])
    ax.set(xlim=(0, 1.45), ylim=(len(names) - 0.5, -0.5), xticks=(0, 0.5, 1))
    ax.grid(True, axis="x")
    ax.grid(False, axis="y")
    return figure
