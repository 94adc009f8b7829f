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
