"""The frame of the report: one HTML page with its style, and no address of anything outside the page."""

from __future__ import annotations

from string import Template

PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
:root { color-scheme: light dark; --ink: #1c2024; --soft: #60656c; --paper: #fcfcfd; --line: #e3e5e8; --card: #f4f5f7;
  --good: #18794e; --bad: #c62a2f; --c0: #3e63dd; --c1: #e5671a; --c2: #18794e; --c3: #a13fb1; --c4: #0d8a9b;
  --c5: #946800; --c6: #cb1d63; --c7: #60656c; }
@media (prefers-color-scheme: dark) { :root { --ink: #edeef0; --soft: #a0a6ad; --paper: #121416; --line: #2d3135;
  --card: #1b1e21; --good: #4cc38a; --bad: #ff6369; --c0: #849dff; --c1: #ff8b3e; --c2: #4cc38a; --c3: #d864ed;
  --c4: #23b8cc; --c5: #f1a10d; --c6: #f76190; --c7: #a0a6ad; } }
body { margin: 0 auto; max-width: 60rem; padding: 2.5rem 1.25rem 4rem; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", sans-serif; font-variant-numeric: tabular-nums; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0; }
h2 { font-size: 1.2rem; margin: 2.6rem 0 .4rem; }
p { margin: .4rem 0 1rem; max-width: 46rem; }
.when { color: var(--soft); margin: .2rem 0 1.2rem; }
.good { color: var(--good); } .bad { color: var(--bad); }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(12.5rem, 1fr)); gap: .8rem; }
.cards div { background: var(--card); border-radius: .5rem; padding: .9rem 1rem; }
.cards h3 { font-size: .82rem; font-weight: 500; color: var(--soft); margin: 0; }
.cards strong { display: block; font-size: 1.25rem; margin: .15rem 0; }
.cards span { font-size: .82rem; color: var(--soft); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; }
th, td { text-align: right; padding: .45rem .6rem; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { color: var(--soft); font-weight: 500; }
th:first-child, td:first-child { text-align: left; padding-left: 0; white-space: normal; }
svg { display: block; width: 100%; height: auto; margin: .6rem 0; }
svg text { font: 12px system-ui, sans-serif; fill: var(--soft); } svg text.label { fill: var(--ink); }
.grid { stroke: var(--line); } .axis { stroke: var(--soft); }
.line { fill: none; stroke: currentColor; stroke-width: 2; stroke-linejoin: round; }
.bar, .dot { fill: currentColor; stroke: none; } .dot { stroke: var(--paper); stroke-width: 1.5; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; margin: 0; padding: 0; font-size: .86rem; }
.legend i { display: inline-block; width: .7rem; height: .7rem; border-radius: 2px; background: currentColor; margin-right: .4rem; }
.c0 { color: var(--c0); } .c1 { color: var(--c1); } .c2 { color: var(--c2); } .c3 { color: var(--c3); }
.c4 { color: var(--c4); } .c5 { color: var(--c5); } .c6 { color: var(--c6); } .c7 { color: var(--c7); }
@media print { body { padding: 0; } section { break-inside: avoid; } }
</style>
</head>
<body>
<h1>$title</h1>
<p class="when">$created</p>
$body
</body>
</html>
""")
