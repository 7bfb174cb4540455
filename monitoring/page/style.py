"""The style of the pages. Pure.

Colours only underline what is said in words too; dark where the screen is, never on paper.
"""

from __future__ import annotations

STYLE = """
:root{color-scheme:light dark;--page:#fff;--ink:#1c1f24;--quiet:#5a6270;--grid:#dfe3e8;--bar:#7d93ad;--far:#c44a00;
--mark:#fdeedd;--link:#0060a0}
@media screen and (prefers-color-scheme:dark){:root{--page:#15181d;--ink:#e6e9ee;--quiet:#a0a8b5;--grid:#333a44;
--bar:#6d8199;--far:#f0803c;--mark:#43301d;--link:#7cc8f5}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:15px/1.5 system-ui,"Segoe UI","DejaVu Sans",sans-serif}
main{max-width:1120px;margin:0 auto;padding:24px 20px 60px}
h1{font-size:24px;margin:0 0 4px}h2{font-size:18px;margin:32px 0 8px}p{margin:0 0 8px}
a{color:var(--link)}.quiet,small,dt{color:var(--quiet)}.nav{font-size:14px}
.lead{font-size:18px;margin:16px 0 12px;padding:10px 14px;border-left:4px solid var(--bar);overflow-wrap:anywhere}
.alert,.quarantine,.retrain{border-left-color:var(--far)}
.lead b{text-transform:uppercase;font-size:14px;letter-spacing:.04em}
ul{margin:0 0 8px;padding-left:20px}li{overflow-wrap:anywhere}
dl{display:grid;grid-template-columns:max-content 1fr;gap:2px 18px;margin:0}dd{margin:0;overflow-wrap:anywhere}
code{font:13px/1.5 ui-monospace,"DejaVu Sans Mono",monospace;overflow-wrap:anywhere}
.wide{overflow-x:auto;margin-bottom:8px}table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:14px}
th,td{padding:5px 8px;text-align:left;border-bottom:1px solid var(--grid);vertical-align:top}
thead th{font-size:13px;font-weight:600;color:var(--quiet);vertical-align:bottom;white-space:nowrap}
tbody th{font-weight:400;overflow-wrap:break-word;max-width:18em}
th:first-child,.index td:first-child{padding-left:0}
.n{text-align:right;white-space:nowrap}.t{white-space:nowrap}
.changes{display:flex;flex-wrap:wrap;gap:0 18px}.changes>span{white-space:nowrap}
td.v{overflow-wrap:anywhere;min-width:5em;max-width:20em}td.far{background:var(--mark);font-weight:600}
tr.over>th{font-weight:600}tr.over .n b{color:var(--far)}
svg{display:block;margin-top:6px}.bar{fill:var(--bar)}.over .bar{fill:var(--far)}
.limit{stroke:var(--ink);stroke-width:1.5}.rail{fill:var(--grid)}
.index td:nth-child(4){min-width:22em;overflow-wrap:anywhere}
tr.loud td:nth-child(3){font-weight:600;color:var(--far)}
tr:target{background:var(--mark)}
@media (max-width:640px){main{padding:16px 12px 40px}.lead{font-size:16px}.index td:nth-child(4){min-width:14em}
thead th{white-space:normal}}
@media print{body{font-size:11px}main{max-width:none;padding:0}h2{margin-top:18px;break-after:avoid}
.wide{overflow:visible}table,code{font-size:10px}.lead{font-size:13px}tr{break-inside:avoid}a{color:inherit}
thead th{white-space:normal}svg{print-color-adjust:exact;-webkit-print-color-adjust:exact}}
"""
