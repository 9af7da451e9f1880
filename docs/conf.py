"""How Sphinx builds the documentation: ``sphinx-build -W --keep-going docs build/docs``."""

from __future__ import annotations

import os
import re
from pathlib import Path

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

import embgeom

# Tutorials run torch. On a shared machine its threads had better sleep than spin while they wait.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

project = "embgeom"
author = "The embgeom developers"
copyright = author
version = release = embgeom.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "myst_nb",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["_build", "figures"]
templates_path = ["_templates"]

# Pages are Markdown. A tutorial's code runs when the site is built, and its output is shown as it came out.
myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 900
nb_merge_streams = True
nb_output_stderr = "remove"

# The reference is what the docstrings say.
autosummary_generate = True
autosummary_ignore_module_all = False
autodoc_typehints = "none"
autodoc_member_order = "bysource"
toc_object_entries_show_parents = "hide"
numpydoc_show_class_members = False
numpydoc_xref_param_type = False
default_role = "py:obj"

# Every reference to a name of this package must lead somewhere; names of other packages are only shown.
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(?!embgeom\b).*")]

html_math_renderer = "mathml"
html_theme = "pydata_sphinx_theme"
html_title = "embgeom"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_theme_options = {
    "navbar_align": "left",
    "show_toc_level": 2,
    "header_links_before_dropdown": 6,
    "footer_start": ["copyright"],
    "footer_end": ["theme-version"],
    "secondary_sidebar_items": ["page-toc"],
    "show_prev_next": True,
    "pygments_light_style": "tango",
    "pygments_dark_style": "monokai",
}
if repository := os.environ.get("GITHUB_REPOSITORY"):
    html_theme_options["github_url"] = f"https://github.com/{repository}"
copybutton_prompt_text = r"\$ |>>> |\.\.\. "
copybutton_prompt_is_regexp = True
copybutton_only_copy_prompt_lines = True

# Files elsewhere in the repository that have a page here. They link to each other as files.
PAGES = {
    "benchmarks/results/avx2/against_others.md": "reference/against-others-avx2.md",
    "benchmarks/results/avx512/against_others.md": "reference/against-others-avx512.md",
    "benchmarks/results/cluster.md": "reference/cluster.md",
    "benchmarks/results/compare_share.md": "reference/compare-share.md",
    "benchmarks/results/growth.md": "reference/growth.md",
    "benchmarks/results/map_fit.md": "reference/map-fit.md",
    "benchmarks/results/steering.md": "reference/transfer.md",
    "cpp/README.md": "reference/kernels.md",
    "training/README.md": "reference/training.md",
    "CHANGELOG.md": "reference/changelog.md",
    "CONTRIBUTING.md": "reference/contributing.md",
    "README.md": "index.md",
}
ROOT = Path(__file__).resolve().parents[1]


def link_pages(folder: Path, text: str) -> str:
    """Turn links from a file in `folder` to files of the repository into links to their pages here."""

    def link(found: re.Match[str]) -> str:
        target = (folder / found[1]).resolve()
        if not target.is_relative_to(ROOT):
            return found[0]
        path = target.relative_to(ROOT).as_posix()
        page = PAGES.get(path, path.removeprefix("docs/") if path.startswith("docs/") else None)
        return f"](/{page}{found[2] or ''})" if page else found[0]

    return re.sub(r"\]\(((?!https?:)[^()#\s]+\.md)(#[^()\s]*)?\)", link, text)


def math(writer, node: nodes.Element) -> None:
    """Write a formula as MathML, which browsers show without a script from elsewhere."""
    block = isinstance(node, nodes.math_block)
    formula = tex2mathml(node.astext(), as_block=block)
    writer.body.append(f'<div class="formula">{formula}</div>' if block else formula)
    raise nodes.SkipNode


def setup(app) -> None:
    """Rewrite links of pages, and of the files that they include; show formulas."""
    app.add_html_math_renderer("mathml", (math, None), (math, None))

    def of_page(app, docname: str, content: list[str]) -> None:
        content[0] = link_pages(Path(app.env.doc2path(docname)).parent, content[0])

    def of_included(app, relative: Path, docname: str, content: list[str]) -> None:
        content[0] = link_pages((Path(app.srcdir) / relative).resolve().parent, content[0])

    app.connect("source-read", of_page)
    app.connect("include-read", of_included)
