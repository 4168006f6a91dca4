"""The site of these pages: `make docs` builds it into docs/_build."""

import sys
from pathlib import Path

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS.parent), str(DOCS / "extensions")]

from nrms import __version__ as release  # noqa: E402, F401

project = "nrms"
author = "the authors of nrms"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "from_code",
]
exclude_patterns = ["_build"]

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
smartquotes = False  # of two hyphens it makes a dash, and flags have two

# Docstrings write `code` as Markdown does.
default_role = "code"
autodoc_typehints = "description"

html_theme = "pydata_sphinx_theme"
html_title = "nrms"
html_static_path = []
html_show_sourcelink = False
html_theme_options = {
    "navbar_align": "left",
    "show_prev_next": True,
    "navigation_with_keys": False,
    "footer_start": ["copyright"],
    "footer_end": [],
}
copyright = "the authors of nrms, MIT licence"
