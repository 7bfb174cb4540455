"""The page's style and script; the script only shows titles at once and hides lines: all is there without it.

Six colours in the manner of Okabe and Ito (2008), which people who are colour-blind tell apart, darker on white and
lighter on black; from the seventh policy on they come again in dashes.
"""

from __future__ import annotations

STYLE = """
:root{color-scheme:light dark;--page:#fff;--ink:#1c1f24;--quiet:#5a6270;--grid:#dfe3e8;--best:#eaf3ec;
--c0:#0072b2;--c1:#d55e00;--c2:#009e73;--c3:#8833dd;--c4:#1c1f24;--c5:#663311}
@media screen and (prefers-color-scheme:dark){:root{--page:#15181d;--ink:#e6e9ee;--quiet:#a0a8b5;--grid:#333a44;
--best:#1f3327;--c0:#7cc8f5;--c1:#f0803c;--c2:#119c6c;--c3:#bb66ff;--c4:#f2f4f7;--c5:#f0e442}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:15px/1.5 system-ui,"Segoe UI","DejaVu Sans",sans-serif}
main{max-width:1120px;margin:0 auto;padding:24px 20px 60px}
h1{font-size:26px;margin:0 0 4px}h2{font-size:19px;margin:36px 0 10px}p{margin:0 0 10px}
.quiet,.unit,small{color:var(--quiet)}.lead{font-size:18px;margin:16px 0 0;max-width:60em}
.unit{font-size:13px;margin:0}.time{text-align:right;margin-bottom:14px}
figure{margin:0}svg{overflow:visible}.lines{overflow:hidden}
.plot{display:block;margin-top:16px}
.wide{overflow-x:auto;margin-bottom:8px}table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:6px 12px;text-align:right;border-bottom:1px solid var(--grid);white-space:nowrap}
th{font-weight:600;vertical-align:bottom}th small{display:block;font-weight:400;font-size:12px}
th[rowspan],tbody th{text-align:left;position:sticky;left:0;background:var(--page)}
tbody th{font-weight:400}thead th:first-child{text-align:left}th[scope=colgroup]{text-align:center}
.best{background:var(--best)}
.history{font-size:14px;width:100%}.history td,.history th{text-align:left;vertical-align:top;padding:4px 12px 4px 0}
.history td:last-child{white-space:normal;min-width:16em;overflow-wrap:anywhere}
details{border-bottom:1px solid var(--grid);padding:8px 0}summary{cursor:pointer}
.legend{list-style:none;display:flex;flex-wrap:wrap;gap:4px 18px;padding:0;margin:0 0 10px}
.legend label{cursor:pointer}.legend svg{vertical-align:middle}.key{margin:18px 0 4px;font-size:13px;color:var(--quiet)}
.lane{margin:12px 0 0}.lane p{margin:0;font-size:13px}.lane>svg{display:block}
text{fill:var(--quiet);font-size:12px;paint-order:stroke;stroke:var(--page);stroke-width:3px}
.grid{stroke:var(--grid);stroke-width:1}
.line{fill:none;stroke:currentColor;stroke-width:2;stroke-linejoin:round;stroke-linecap:round;
vector-effect:non-scaling-stroke}
.mark{stroke:currentColor;stroke-width:2}.promoted{fill:currentColor}.refused{fill:var(--page)}
.alert{stroke:var(--ink);stroke-width:2}
.quarantine{fill:var(--ink);fill-opacity:.22}
.window,.near{fill:transparent}.window:hover{fill:var(--quiet);fill-opacity:.18}
.c0{color:var(--c0)}.c1{color:var(--c1)}.c2{color:var(--c2)}.c3{color:var(--c3)}.c4{color:var(--c4)}.c5{color:var(--c5)}
.d1{stroke-dasharray:9 5}.d2{stroke-dasharray:2 5}.d3{stroke-dasharray:10 5 2 5}.d4{stroke-dasharray:18 5}
.d5{stroke-dasharray:5 5}
#tip{position:fixed;z-index:1;max-width:min(420px,90vw);padding:8px 10px;border:1px solid var(--quiet);
border-radius:4px;
background:var(--page);font-size:13px;white-space:pre-line;pointer-events:none;font-variant-numeric:tabular-nums}
[hidden]{display:none}
@media (max-width:640px){main{padding:16px 12px 40px}.lead{font-size:16px}.spare{display:none}
th,td{padding:4px 7px;font-size:13px}th svg{display:none}
.history thead{display:none}.history td{display:block;border:0;padding:0;white-space:normal}
.history tr{display:block;padding:6px 0;border-bottom:1px solid var(--grid)}}
@media print{body{font-size:11px}main{max-width:none;padding:0}h2{margin-top:20px;break-after:avoid}
input{display:none}.wide{overflow:visible}th,td{padding:3px 6px}tr,.whole{break-inside:avoid}
.unit,.lead{font-size:inherit}}
"""

SCRIPT = """
const tip = document.getElementById("tip");
for (const title of document.querySelectorAll("svg title")) {
  const said = title.textContent, area = title.parentNode;
  title.remove();
  const show = event => {
    tip.textContent = said;
    tip.hidden = false;
    const right = innerWidth - tip.offsetWidth - 8, below = event.clientY + 16;
    tip.style.left = Math.max(8, Math.min(event.clientX + 14, right)) + "px";
    tip.style.top = (below + tip.offsetHeight > innerHeight ? event.clientY - tip.offsetHeight - 12 : below) + "px";
  };
  area.addEventListener("pointermove", show);
  area.addEventListener("pointerdown", show);
  area.addEventListener("pointerleave", () => { tip.hidden = true; });
}
for (const box of document.querySelectorAll("[data-hides]"))
  box.addEventListener("change", () => {
    for (const line of document.querySelectorAll(`[data-line="${box.dataset.hides}"]`))
      line.style.display = box.checked ? "" : "none";
  });
"""
