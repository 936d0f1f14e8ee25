"""How Sphinx makes the site; `make docs` calls it, and every warning is an error."""

import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent))

import docs.tools.executed  # noqa: E402, F401  (chooses the device, before tripy is imported)
import tripy  # noqa: E402

project, author, copyright = "tripy", "the tripy authors", "the tripy authors"
version = release = tripy.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "myst_nb",
    "docs.tools.sphinx_extension",
]
# tensorrt.md is shown by guides/tensorrt.md, which runs it; tools are no pages.
exclude_patterns = ["_build", "tools", "tensorrt.md", "**/.ipynb_checkpoints"]
nitpicky = True
nitpick_ignore = [("py:mod", "tripy.quantization.knapsack")]  # Named in a docstring, not public.

myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # Their stored outputs are shown; tests run them and compare.
nb_render_markdown_format = "myst"

autodoc_typehints = "none"  # Docstrings and tables of data types say more, and shorter.
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_attr_annotations = False
napoleon_use_rtype = False

html_theme = "furo"
pygments_dark_style = "github-dark"
html_title = "tripy"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
# Prompts and results of examples are not copied.
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
copybutton_selector = "div:not(.output) > div.highlight > pre"
