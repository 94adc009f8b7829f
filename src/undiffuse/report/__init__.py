"""The report of a run: one self-contained HTML page, and its metrics as JSON.

evaluate: metrics against held-out rows. denoising_error: error per noise level, and the lower bound of the loss.
sections: sections and captions as data. wording: sentences. formats: number formats.
page: rendering by Jinja2.
picture_findings: what is wrong with generated images.
figures: SVG charts. images: tiles, dots and GIF animations. trajectory: snapshots between noise and data.
plots: PNG figures of `tune` and `likelihood`. templates: page.html, figures.html and page.css, for designers.
"""

from undiffuse.report.evaluate import evaluate
from undiffuse.report.page import write_report

__all__ = ["evaluate", "write_report"]
