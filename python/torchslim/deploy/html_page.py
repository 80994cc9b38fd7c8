# SPDX-License-Identifier: BSD-3-Clause
"""One HTML file with everything inside, for a phone or a desk, light or dark; asks no server for anything."""

from collections.abc import Mapping, Sequence
from html import escape
from string import Template


def html_page(
    title: str,
    *,
    notes: Sequence[str] = (),
    cards: Mapping[str, str] = {},
    table: str = "",
    figures: Sequence[tuple[str, str]] = (),
    tables: Sequence[tuple[str, Sequence[Sequence[str]]]] = (),
    facts: Mapping[str, str] = {},
) -> str:
    """Return a page as HTML text; all text but the drawings is escaped.

    Args:
        title: of the page.
        notes: what the reader must know first.
        cards: large value -> what it is.
        table: plain text with aligned columns.
        figures: (caption, `<svg>` element of `charts`).
        tables: (caption, rows of cells); the first row heads the columns, of which the first two are text, the
            others numbers.
        facts: name -> value, at the end.
    """
    return _PAGE.substitute(
        title=escape(title),
        notes="".join(f'<p class="note">{escape(note)}</p>' for note in notes),
        cards="".join(f"<div><b>{escape(value)}</b>{escape(text)}</div>" for value, text in cards.items()),
        table=f"<pre>{escape(table)}</pre>" if table else "",
        figures="".join(_figure(caption, svg) for caption, svg in figures),
        tables="".join(_table(caption, rows) for caption, rows in tables),
        facts="".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items()),
    )


def _figure(caption: str, svg: str) -> str:
    return f'<figure role="img" aria-label="{escape(caption)}"><figcaption>{escape(caption)}</figcaption>{svg}</figure>'


def _table(caption: str, rows: Sequence[Sequence[str]]) -> str:
    head, *body = ["".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in row) for tag, row in _tagged(rows)]
    lines = "".join(f"<tr>{row}</tr>" for row in body)
    return (
        f'<h2>{escape(caption)}</h2><div class="wide"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{lines}</tbody></table></div>"
    )


def _tagged(rows: Sequence[Sequence[str]]) -> list[tuple[str, Sequence[str]]]:
    return [("th" if i == 0 else "td", row) for i, row in enumerate(rows)]


_PAGE = Template("""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>$title</title>
<style>
:root { color-scheme: light dark; --back: #fff; --card: #f3f5f7; --stripe: #e8eaed; --text: #1c2126;
  --soft: #5b6670; }
@media (prefers-color-scheme: dark) {
  :root { --back: #14181c; --card: #1f252b; --stripe: #293037; --text: #e6eaee; --soft: #9aa7b3; } }
body { margin: 0 auto; padding: 1rem; max-width: 70rem; background: var(--back); color: var(--text);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; line-height: 1.2; } h2 { font-size: 1.1rem; }
.note { background: #e0812f33; border-left: 4px solid #e0812f; padding: .5rem .75rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(13rem, 1fr)); gap: .75rem; }
.cards div, figure, pre, .wide { background: var(--card); border-radius: .5rem; padding: .75rem; margin: 0; }
.cards div { color: var(--soft); font-size: .9rem; }
.cards b { display: block; font-size: 1.5rem; color: var(--text); }
pre { overflow-x: auto; font-size: .8rem; line-height: 1.35; margin: 1rem 0; }
.figures { columns: 26rem; column-gap: 1rem; margin-top: 1rem; }
figure { break-inside: avoid; margin-bottom: 1rem; }
figcaption { font-weight: 600; }
svg { display: block; width: 100%; max-width: 34rem; height: auto; }
svg text { font-family: system-ui, sans-serif !important; }
.wide { overflow-x: auto; padding-left: 0; }
table { border-collapse: collapse; font-size: .8rem; font-variant-numeric: tabular-nums; width: 100%; }
th, td { text-align: right; padding: .15rem .5rem; vertical-align: top; }
th { color: var(--soft); font-weight: 600; vertical-align: bottom; line-height: 1.2; }
td { white-space: nowrap; }
td:nth-child(2) { white-space: normal; min-width: 9rem; }
th:nth-child(-n+2), td:nth-child(-n+2) { text-align: left; }
tr { background: var(--card); }
tbody tr:nth-child(odd) { background: var(--stripe); }
th:first-child, td:first-child { position: sticky; left: 0; background: inherit; padding-left: .75rem; }
dl { display: grid; grid-template-columns: minmax(9rem, 1fr) 2fr; gap: .25rem 1rem; font-size: .9rem; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
</style>
<h1>$title</h1>
$notes
<div class="cards">$cards</div>
$table
<div class="figures">$figures</div>
$tables
<h2>The run</h2>
<dl>$facts</dl>
</html>
""")
