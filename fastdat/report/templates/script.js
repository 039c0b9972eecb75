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
