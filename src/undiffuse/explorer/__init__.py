"""The SDE explorer: a page in which every picture shows the exact law and the simulated particles on the same axes."""

from undiffuse.explorer.laws import law
from undiffuse.explorer.page import page, url, write_page

__all__ = ["law", "page", "url", "write_page"]
