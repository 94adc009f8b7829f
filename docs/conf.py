"""How the documentation is built: `make docs`."""

project = "undiffuse"
author = "The undiffuse developers"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = "undiffuse"
myst_enable_extensions = ["dollarmath", "colon_fence"]
nb_execution_mode = "off"
autodoc_member_order = "bysource"
exclude_patterns = ["_build"]
html_static_path: list[str] = []
suppress_warnings = ["ref.python"]
default_role = "code"


def _as_written(app, what, name, obj, options, lines):  # type: ignore[no-untyped-def]
    """Docstrings are plain text: |x| and *shape mean themselves outside `code`."""
    for i, line in enumerate(lines):
        parts = line.split("`")
        parts[::2] = [part.replace("|", r"\|").replace("*", r"\*") for part in parts[::2]]
        lines[i] = "`".join(parts)


def setup(app):  # type: ignore[no-untyped-def]
    """Sphinx calls this."""
    app.connect("autodoc-process-docstring", _as_written)
