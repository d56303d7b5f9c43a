"""Puts the program's own help into the page of the command line, so that no flag is written down twice."""

import re
from typing import Any


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    if page.file.src_uri != "cli.md":
        return markdown
    from online_tapir.cli.app import app

    text = app.generate_docs(output_format="markdown")
    text = (
        text[: text.index("## Table of Contents")] + text[text.index("**Commands**") :]
    )  # the page has its own contents
    text = re.sub(r"\]\(#[^)]*\)", "]", re.sub(r"\[(`[^`]*`)\]\(#[^)]*\)", r"\1", text))
    return "# Command line\n" + text.split("\n", 1)[1]
