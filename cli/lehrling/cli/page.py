"""A self-contained HTML page: no scripts, no links to anything outside."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape

STYLE = """
:root { color-scheme: light dark; --ink:#1d2b36; --pale:#5d6f7b; --card:#fff; --back:#f3f5f6; --line:#dde3e7; --accent:#c4620f }
@media (prefers-color-scheme: dark) { :root { --ink:#e6edf1; --pale:#9fb1bd; --card:#182127; --back:#0f1519; --line:#2a363e; --accent:#f0913c } }
* { box-sizing: border-box } body { margin:0; background:var(--back); color:var(--ink); font:16px/1.5 system-ui,sans-serif }
main { max-width: 1040px; margin: 0 auto; padding: 32px 20px 64px } h1 { font-size: 30px; margin: 0 } h2 { font-size: 20px; margin: 40px 0 12px }
p.lead { color: var(--pale); max-width: 70ch } .cards { display:grid; grid-template-columns: repeat(auto-fit,minmax(150px,1fr)); gap:12px; margin-top:20px }
.card { background:var(--card); border:1px solid var(--line); border-radius:10px; padding:12px 14px } .card b { display:block; font-size:24px; color:var(--accent) }
.card span { color:var(--pale); font-size:13px } figure { margin:0; background:var(--card); border:1px solid var(--line); border-radius:10px; padding:12px; overflow:auto }
figure img { max-width:100%; height:auto; display:block; margin:0 auto; border-radius:6px } figure.plot img { background:#fff } figcaption { color:var(--pale); font-size:13px; margin-top:8px }
.grid { display:grid; grid-template-columns: repeat(auto-fill,minmax(220px,1fr)); gap:12px } .two { display:grid; grid-template-columns: repeat(auto-fit,minmax(420px,1fr)); gap:12px }
table { border-collapse:collapse; width:100%; font-size:14px; background:var(--card) } th,td { text-align:left; padding:5px 10px; border-bottom:1px solid var(--line) } th { color:var(--pale); font-weight:600 }
.yes { color:#2e8b57 } .no { color:#c0392b } .scroll { max-height: 480px; overflow:auto; border:1px solid var(--line); border-radius:10px } code { background:var(--line); border-radius:4px; padding:1px 5px }
"""


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
    body = "".join(f"<h2>{escape(name)}</h2>{content}" for name, content in sections if content)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><main>"
        f'<h1>{escape(title)}</h1><p class="lead">{escape(lead)}</p>{body}</main></body></html>'
    )
