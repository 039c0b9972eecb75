"""How the page looks and what moves in it: constants, so that nothing of a run is ever style or code."""

from __future__ import annotations

import base64
import colorsys
import hashlib

# Okabe and Ito's hues, told apart with any colour vision; darker on white, lighter on black, 4.5:1 and more.
_LIGHT = ("#0065a3", "#b34a00", "#007a55", "#a3336f", "#6b5600", "#4a4fc4", "#b01f2e", "#3d4451")
_DARK = ("#6cb8f0", "#f5a35c", "#4fd0a5", "#eb90c0", "#d9c04d", "#a5a9ff", "#ff8f8f", "#c3cad6")


def css(runs: int) -> str:
    """The page's style, with a colour a run as ``--run0``, ``--run1`` ..."""
    light = "".join(f"--run{i}:{_colour(_LIGHT, i, 0.32)};" for i in range(runs))
    dark = "".join(f"--run{i}:{_colour(_DARK, i, 0.72)};" for i in range(runs))
    return f":root{{{light}}}@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}{_CSS}"


def _colour(chosen: tuple[str, ...], number: int, lightness: float) -> str:
    if number < len(chosen):
        return chosen[number]
    red, green, blue = colorsys.hls_to_rgb(number * 0.618034 % 1, lightness, 0.6)
    return f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"


_CSS = """
:root{--ink:#1c2230;--quiet:#566072;--rule:#d5dae2;--page:#f5f6f8;--card:#fff;--mark:#fff3cf;--link:#0b57b0;
--font:system-ui,-apple-system,"Segoe UI",Roboto,"Liberation Sans",Arial,sans-serif;color-scheme:light dark}
@media screen and (prefers-color-scheme:dark){:root{--ink:#e6e9ef;--quiet:#a3adbd;--rule:#3a4250;--page:#13161c;
--card:#1c212a;--mark:#463b14;--link:#8ab8ff}}
*{box-sizing:border-box}
html{scroll-padding-top:4rem}
body{margin:0;background:var(--page);color:var(--ink);font:1rem/1.5 var(--font)}
main,header,footer{max-width:100rem;margin:0 auto;padding:0 1.25rem}
header{padding-top:1.5rem}
h1{font-size:1.7rem;line-height:1.2;margin:0 0 .25rem;overflow-wrap:anywhere}
h2{font-size:1.25rem;margin:2.25rem 0 .5rem}
h3{font-size:1rem;margin:0;overflow-wrap:anywhere}
h4{font-size:.9rem;font-weight:600;margin:1.25rem 0 .5rem;text-transform:uppercase;letter-spacing:.04em;
color:var(--quiet)}
p{margin:.25rem 0 .75rem;max-width:75ch}
a{color:var(--link)}
nav ul{display:flex;flex-wrap:wrap;gap:.25rem 1.25rem;list-style:none;margin:.75rem 0 0;padding:0}
.quiet{color:var(--quiet);font-size:.875rem}
small{display:block;color:var(--quiet);font-size:.8125rem;line-height:1.35}
.card,.scroll{background:var(--card);border:1px solid var(--rule);border-radius:.5rem}
.card{padding:.85rem 1rem}
.scroll{overflow-x:auto;margin:.5rem 0 1rem;max-width:max-content;width:100%}
table{border-collapse:collapse;font-size:.9375rem;font-variant-numeric:tabular-nums}
caption{text-align:left;padding:.75rem 1rem .5rem;font-weight:600}
th,td{text-align:left;vertical-align:top;padding:.4rem 1rem;border-top:1px solid var(--rule);overflow-wrap:anywhere}
td{min-width:9rem;max-width:26rem}
thead th{min-width:9rem;max-width:26rem;white-space:normal}
tbody th{font-weight:500;color:var(--quiet);min-width:8.5rem;max-width:15rem;
background:var(--card);position:sticky;left:0}
tr.differs th,tr.differs td{background:var(--mark);color:var(--ink)}
.legend{position:sticky;top:0;z-index:1;display:flex;flex-wrap:wrap;gap:.4rem .6rem;padding:.6rem 0;
background:var(--page)}
button{font:inherit;color:var(--ink);background:var(--card);border:1px solid var(--rule);border-radius:.4rem;
padding:.3rem .75rem;min-height:2.5rem;cursor:pointer;max-width:100%;overflow-wrap:anywhere;text-align:left}
button:hover{border-color:var(--quiet)}
button:disabled{opacity:.45;cursor:default}
button[aria-pressed=false]{text-decoration:line-through;color:var(--quiet)}
:focus-visible{outline:3px solid var(--link);outline-offset:2px}
.swatch{display:inline-block;width:.8em;height:.8em;border-radius:.2em;margin-right:.45em}
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,25rem),1fr));gap:1rem}
figure{margin:0}
figcaption{font-size:.8125rem;color:var(--quiet);line-height:1.35}
svg{display:block;width:100%;height:auto;margin-top:.5rem}
svg *{stroke-linejoin:round;stroke-linecap:butt}
.off{display:none}
.runs{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,38rem),1fr));gap:1rem}
.pair{display:grid;grid-template-columns:1fr 1fr;gap:1rem;margin-top:.75rem}
.pair img{display:block;width:100%;height:auto;border-radius:.25rem;margin-top:.35rem}
.pair img[hidden]{display:none}
@media (min-resolution:2dppx){.pair .pixels{image-rendering:pixelated}}
.controls{display:flex;align-items:center;gap:.5rem;margin-top:.6rem;flex-wrap:wrap}
.controls[hidden]{display:none}
.controls input[type=range]{flex:1 1 8rem;min-width:6rem;height:2.5rem;accent-color:var(--link)}
.together{display:flex;gap:.5rem;align-items:center;min-height:2.5rem}
.together[hidden]{display:none}
.together input{width:1.15rem;height:1.15rem}
output{min-width:8.5rem;font-variant-numeric:tabular-nums}
summary{cursor:pointer;padding:.5rem 0;color:var(--link)}
footer{padding-bottom:2.5rem;margin-top:2rem}
@media (max-width:40rem){main,header,footer{padding-left:.75rem;padding-right:.75rem}.pair{grid-template-columns:1fr}
.legend{position:static}th,td{padding:.35rem .65rem}tbody th{min-width:6.5rem;max-width:7.5rem}
td,thead th{min-width:7rem}}
@media print{.legend{position:static}.controls,.together,nav{display:none}.card,.scroll{break-inside:avoid}}
"""

SCRIPT = """
"use strict";
const all = (where, what) => [...where.querySelectorAll(what)];
const runs = all(document, ".grids").map((box) => {
  const images = all(box, "img[data-step]");
  return {box, images, steps: images.map((image) => Number(image.dataset.step)), range: box.querySelector("input"),
          output: box.querySelector("output"), buttons: all(box, "button")};
});
const together = document.querySelector("#together");

function show(run, index) {
  const step = run.steps[index], words = "step " + step.toLocaleString("en");
  run.images.forEach((image, i) => { image.hidden = i !== index; });
  run.range.value = index;
  run.range.setAttribute("aria-valuetext", words);
  run.output.textContent = words;
  run.box.dataset.shown = step;
  run.buttons[0].disabled = index === 0;
  run.buttons[1].disabled = index === run.steps.length - 1;
}

function nearest(run, step) {
  let best = 0;
  run.steps.forEach((found, i) => { if (Math.abs(found - step) < Math.abs(run.steps[best] - step)) best = i; });
  return best;
}

function move(run, index) {
  show(run, index);
  const step = run.steps[index];
  if (together.checked) runs.forEach((other) => { if (other !== run) show(other, nearest(other, step)); });
  try { history.replaceState(null, "", "#step=" + step); } catch { /* not allowed where the page has no origin */ }
}

function follow() {
  const found = /^#step=([0-9]+)$/.exec(location.hash);
  if (!found || !runs.length) return;
  runs.forEach((run) => show(run, nearest(run, Number(found[1]))));
  document.querySelector("#samples").scrollIntoView();
}

runs.forEach((run) => {
  show(run, run.steps.length - 1);
  run.range.addEventListener("input", () => move(run, Number(run.range.value)));
  [-1, 1].forEach((by, i) => run.buttons[i].addEventListener("click", () => {
    move(run, Math.min(run.steps.length - 1, Math.max(0, Number(run.range.value) + by)));
    if (run.buttons[i].disabled) run.range.focus();
  }));
});
all(document, ".controls,.together").forEach((box) => { box.hidden = false; });
all(document, "button[data-run]").forEach((button) => {
  button.disabled = false;
  button.addEventListener("click", () => {
    const off = button.getAttribute("aria-pressed") === "true";
    button.setAttribute("aria-pressed", String(!off));
    all(document, ".run" + button.dataset.run).forEach((lines) => lines.classList.toggle("off", off));
  });
});
addEventListener("hashchange", follow);
follow();
document.documentElement.dataset.script = "ready";
"""


def policy() -> str:
    """The page's Content-Security-Policy: no network, pictures from data URIs, this script and no other."""
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    return (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )
