"""The inspector: a page that shows what a memory holds and how it came about.

It loads nothing but itself and talks to this server's routes alone. Its policy forbids any other
script, and its script writes texts as texts, never as HTML.
"""

import importlib.resources

from memr1_jax.evals.report.inline import event_styles, source_of


def page() -> tuple[str, str]:
    """Returns the page as HTML, and the policy that belongs to it as a header."""
    folder = importlib.resources.files("memr1_jax.service") / "page"
    html, style, script = (
        (folder / f"inspector.{kind}").read_text(encoding="utf-8") for kind in ("html", "css", "js")
    )
    style = event_styles() + style
    policy = (
        f"default-src 'none'; style-src '{source_of(style)}'; script-src '{source_of(script)}';"
        " connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none';"
        " frame-ancestors 'none'"
    )
    return html.replace("{{ style }}", style).replace("{{ script }}", script), policy
