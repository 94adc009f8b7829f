"""How the documentation is built: `make docs`. Nothing is fetched, and a warning is an error."""

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

project = "undiffuse"
author = "The undiffuse developers"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "mathml"]
html_theme = "furo"
html_title = "undiffuse"
html_math_renderer = "mathml"
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # the chapters come with the outputs of a run, see course.py
autodoc_member_order = "bysource"
exclude_patterns = ["_build"]
html_static_path: list[str] = []
suppress_warnings = ["ref.python"]
default_role = "code"


def _as_written(app, what, name, obj, options, lines):  # type: ignore[no-untyped-def]
    """Docstrings are plain text: |x| and *shape mean themselves outside `code`, and indented maps keep their lines."""
    written: list[str] = []
    for i, line in enumerate(lines):
        indented = what == "module" and line.startswith("    ")
        if indented and (i == 0 or not lines[i - 1].startswith("    ")):
            written += ["::", ""]
        parts = line.split("`")
        parts[::2] = [part.replace("|", r"\|").replace("*", r"\*") for part in parts[::2]]
        written.append(line if indented else "`".join(parts))
    lines[:] = written


def _generate(app):  # type: ignore[no-untyped-def]
    """The generated pages: chapters with their outputs, the index from papers to code, and the Python interface."""
    import api_pages
    import course
    import papers

    course.write(Path(app.srcdir) / "course")
    papers.write(Path(app.srcdir) / "papers.md")
    api_pages.write(Path(app.srcdir) / "api")


def _explorer(app):  # type: ignore[no-untyped-def]
    """The explorer beside the pages that show it."""
    from pathlib import Path

    from undiffuse.explorer import write_page

    Path(app.outdir).mkdir(parents=True, exist_ok=True)
    write_page(Path(app.outdir) / "explorer.html")


def _to_explorer(app, name, source):  # type: ignore[no-untyped-def]
    """Links to scenes of the explorer, which is no source of these pages but lies beside them."""
    source[0] = re.sub(r"\[([^\]]+)\]\((explorer\.html[^)]*)\)",
                       lambda m: f'<a href="scenes/{m[2].replace("|", "%7C")}">{m[1]}</a>', source[0])
    source[0] = source[0].replace('src="explorer.html', 'src="scenes/explorer.html')


def _add_explorer(app, error):  # type: ignore[no-untyped-def]
    """The explorer itself."""
    from undiffuse.explorer import write_page

    if error is None:
        folder = Path(app.outdir) / "scenes"  # the page about it has its name
        folder.mkdir(exist_ok=True)
        write_page(folder / "explorer.html")


def setup(app):  # type: ignore[no-untyped-def]
    """Sphinx calls this."""
    app.connect("builder-inited", _explorer)
    app.connect("autodoc-process-docstring", _as_written)
    app.connect("builder-inited", _generate)
    app.connect("source-read", _to_explorer)
    app.connect("build-finished", _add_explorer)
