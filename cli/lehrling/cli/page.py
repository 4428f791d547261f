"""A self-contained HTML page: no scripts, no links to anything outside."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from importlib.resources import files


def data_url(content: bytes, kind: str) -> str:
    """Return the content as a data URL."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def figure(content: bytes, caption: str, *, kind: str = "image/png", plot: bool = False) -> str:
    """Return a figure with an embedded picture."""
    name = ' class="plot"' if plot else ""
    picture = f'<img src="{data_url(content, kind)}" alt="{escape(caption)}">'
    return f"<figure{name}>{picture}<figcaption>{escape(caption)}</figcaption></figure>"


def cards(facts: Sequence[tuple[str, str]]) -> str:
    """Return large figures with their names."""
    inside = "".join(f'<div class="card"><b>{escape(v)}</b><span>{escape(k)}</span></div>' for k, v in facts)
    return f'<div class="cards">{inside}</div>'


def table(head: Sequence[str], rows: Sequence[Sequence[str | bool]], *, scroll: bool = False) -> str:
    """Return a table; booleans become a coloured yes or no."""

    def cell(value: str | bool) -> str:
        if isinstance(value, bool):
            return f'<td class="{"yes" if value else "no"}">{"yes" if value else "no"}</td>'
        return f"<td>{escape(value)}</td>"

    top = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join("<tr>" + "".join(cell(v) for v in row) + "</tr>" for row in rows)
    inside = f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="scroll">{inside}</div>' if scroll else inside


def page(title: str, lead: str, sections: Sequence[tuple[str, str]]) -> str:
    """Return the whole document; `sections` are headings and HTML."""
    style = (files("lehrling.cli") / "page.css").read_text(encoding="utf-8")
    body = "".join(f"<h2>{escape(name)}</h2>{content}" for name, content in sections if content)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{style}</style></head><body><main>"
        f'<h1>{escape(title)}</h1><p class="lead">{escape(lead)}</p>{body}</main></body></html>'
    )
