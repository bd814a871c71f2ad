"""Settings of the documentation site; `make docs` builds it into `site/`."""

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(Path(__file__).parent), str(ROOT)]

project = "portfolio-env"
author = "The portfolio-env developers"
copyright = author
version = release = "0.1.0"

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "myst_nb",
    "sphinx_copybutton",
    "site_pages",
]
exclude_patterns = ["_static"]
root_doc = "index"
default_role = "literal"
suppress_warnings = [
    "myst.header",  # the headings of a notebook may begin anywhere
    "ref.python",  # attributes of one name in several classes
]

# Markdown that a code host shows as it is.
myst_enable_extensions = ["dollarmath"]
myst_fence_as_directive = ["math"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # outputs are stored; the tests execute the notebooks
nb_number_source_lines = False

# Docstrings.
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 80
napoleon_numpy_docstring = False
napoleon_use_ivar = True
add_module_names = False

# The look: fonts of the reader's system, nothing from other hosts.
html_theme = "pydata_sphinx_theme"
html_title = "portfolio-env"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_favicon = "_static/icon.svg"
html_context = {"default_mode": "auto"}
html_sidebars = {name: [] for name in ("quickstart", "faq", "glossary")}  # pages of no section
html_show_sourcelink = False
html_copy_source = False
html_show_sphinx = False
html_last_updated_fmt = None
html_theme_options = {
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "navbar_align": "left",
    "header_links_before_dropdown": 6,
    "footer_start": ["copyright"],
    "footer_center": [],
    "footer_end": [],
    "secondary_sidebar_items": ["page-toc"],
    "back_to_top_button": False,
    "show_prev_next": True,
    "search_bar_text": "Search",
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
