"""The pages of a finished run: each lesson as one HTML file, and the map of the course.

The pages load nothing from elsewhere, for a room of laptops with bad Wi-Fi: figures are embedded,
and formulas are MathML, which browsers draw by themselves.
"""

import os
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pruninglib.course.runner import Lesson

_LESSON = """{% extends "lab/index.html.j2" %}
{% block html_head_js_requirejs %}{% endblock %}
{% block html_head_js_mathjax %}{% endblock %}
{% block html_head_js_mermaidjs %}{% endblock %}
{% block jupyter_widgets %}{% endblock %}
{% block extra_css %}<style>
main { max-width: 62rem; margin: 0 auto; }
.jp-OutputArea-output img { max-width: 100%; height: auto; }
.course-map { font-family: system-ui, sans-serif; padding: 1rem; }
details.folded > summary { font: .8rem system-ui, sans-serif; color: #555; cursor: pointer;
                           padding-left: 64px; }
</style>{% endblock %}
{% block input_group %}
{%- if cell.metadata.get("jupyter", {}).get("source_hidden") -%}
<details class="folded"><summary>code of this text</summary>{{ super() }}</details>
{%- else -%}{{ super() }}{%- endif -%}
{% endblock %}
{% block data_png scoped %}
{%- set alt = output | get_metadata("alt", "image/png") -%}
{%- if alt is none -%}{{ super() }}{%- else -%}
<div class="jp-RenderedImage jp-OutputArea-output"><img alt="{{ alt | escape_html }}"
src="data:image/png;base64,{{ output.data["image/png"] | escape_html }}"></div>
{%- endif -%}
{% endblock %}
{% block body_header %}{{ super() }}
<p class="course-map"><a href="index.html">← Course map</a></p>{% endblock %}
"""

_INDEX = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Course map</title>
<style>
body {{ font: 1.15rem/1.5 system-ui, sans-serif; color: #1b1b1b; background: #fff;
       max-width: 72rem; margin: 2.5rem auto; padding: 0 1.5rem; }}
h1 {{ font-size: 2.2rem; margin: 0; }}
p {{ margin: .3rem 0 1.6rem; color: #555; }}
table {{ border-collapse: collapse; width: 100%; }}
th {{ text-align: left; font-weight: 600; color: #555; border-bottom: 2px solid #1b1b1b; }}
th, td {{ padding: .6rem 2rem .6rem 0; vertical-align: top; }}
td {{ border-bottom: 1px solid #ddd; }}
.number {{ text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }}
a {{ color: #0b5cad; font-weight: 600; text-decoration: none; }}
a:hover {{ text-decoration: underline; }}
.ok {{ color: #00694d; white-space: nowrap; }}
.failed {{ color: #a8320a; }}
.none {{ color: #777; }}
</style>
</head>
<body>
<h1>Course map</h1>
<p>{summary}</p>
<table>
<thead><tr><th>Lesson</th><th>Question</th><th class="number">Run time</th><th>Claims</th></tr></thead>
<tbody>
{rows}
</tbody>
</table>
</body>
</html>
"""


def write_lesson(notebook: Path, title: str) -> Path:
    """Write the page of an executed notebook beside it."""
    # Imported here: a run needs these only when its first lesson is done.
    import nbformat
    from jinja2 import pass_context
    from latex2mathml.converter import convert
    from nbconvert import HTMLExporter
    from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

    class Renderer(IPythonRenderer):
        def inline_math(self, body: str) -> str:
            return self._mathml(body, "inline") or super().inline_math(body)

        def block_math(self, body: str) -> str:
            return self._mathml(body, "block") or super().block_math(body)

        def latex_environment(self, name: str, body: str) -> str:
            latex = f"\\begin{{{name}}}{body}\\end{{{name}}}"
            return self._mathml(latex, "block") or super().latex_environment(name, body)

        def _mathml(self, latex: str, display: str) -> str | None:
            try:
                return convert(latex.strip(), display=display)
            except Exception:
                return None  # what it cannot convert stays readable as LaTeX

    class Exporter(HTMLExporter):
        @pass_context
        def markdown2html(self, context: Any, source: str) -> str:
            attachments = context.get("cell", {}).get("attachments", {})
            folder = context.get("resources", {}).get("metadata", {}).get("path", "")
            renderer = Renderer(
                escape=False, attachments=attachments, embed_images=True, path=folder
            )
            return MarkdownWithMath(renderer=renderer).render(source)

    node = nbformat.read(notebook, as_version=4)
    node.metadata["title"] = title
    exporter = Exporter(raw_template=_LESSON, embed_images=True)
    source = node.metadata.get("papermill", {}).get("input_path", str(notebook))
    html, _ = exporter.from_notebook_node(
        node, resources={"metadata": {"path": os.path.dirname(source)}}
    )
    page = notebook.with_suffix(".html")
    new = page.with_name(f".{page.name}.new")
    new.write_text(html, encoding="utf-8")
    os.replace(new, page)
    return page


def index(
    rows: Sequence[tuple["Lesson", dict | None]],
    report: Mapping[str, Any],
    parameters: Mapping[str, Any],
) -> str:
    """The map of the course: one row a lesson, with the result it has or without.

    report: what results.json holds.
    """
    results = [result for _, result in rows if result]
    claims = [claim["held"] for result in results for claim in result["claims"]]
    summary = (
        f"{sum(result['status'] == 'ok' for result in results)} of {len(rows)} lessons ok, "
        f"{sum(claims)} of {len(claims)} claims held, "
        f"{_duration(report['total_seconds'])} in all, on a machine that takes "
        f"{report['factor']:.2g} times the seconds that lessons state."
    )
    if parameters:
        given = ", ".join(f"{name} = {value!r}" for name, value in parameters.items())
        summary += f" Run with {given}."
    return _INDEX.format(
        summary=escape(summary), rows="\n".join(_row(lesson, result) for lesson, result in rows)
    )


def _row(lesson: "Lesson", result: dict | None) -> str:
    title = escape(lesson.title)
    if lesson.number is not None:
        title = f"{lesson.number:02d} · {title}"
    if result is None:
        seconds, verdict = "", '<span class="none">not run</span>'
    else:
        title = f'<a href="{escape(lesson.path.stem)}.html">{title}</a>'
        seconds, verdict = _duration(result["seconds"]), _verdict(result)
        if result["expected_seconds"] is not None:
            expected = _duration(result["expected_seconds"])
            seconds += f'<br><span class="none">expected {expected}</span>'
    return (
        f"<tr><td>{title}</td><td>{escape(lesson.question)}</td>"
        f'<td class="number">{seconds}</td><td>{verdict}</td></tr>'
    )


def _verdict(result: dict) -> str:
    held = sum(claim["held"] for claim in result["claims"])
    if result["status"] == "ok":
        kind, words = "ok", f"✓ {held} held" if result["claims"] else "✓ no claims"
    else:
        broke = len(result["claims"]) - held
        kind, words = "failed", f"✗ {held} held, {broke} broke<br>{escape(result['error'])}"
    if not result["claims"]:
        return f'<span class="{kind}">{words}</span>'
    rests = "".join(f"<li>{escape(_claim(claim))}</li>" for claim in result["claims"])
    return f'<details><summary class="{kind}">{words}</summary><ul>{rests}</ul></details>'


def _claim(claim: dict) -> str:
    """A claim with the value that it rests on and its bound."""
    mark = "✓" if claim["held"] else "✗"
    bounds = [f"{side} {claim[side]:g}" for side in ("above", "below") if claim[side] is not None]
    if not bounds:
        return f"{mark} {claim['text']}"
    value = "none" if claim["value"] is None else f"{claim['value']:.3g}"
    return f"{mark} {claim['text']}: {value}, bound: {bounds[0]}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
