"use strict";
const all = (where, what) => [...where.querySelectorAll(what)];
const runs = all(document, ".grids").map((box) => {
  const images = all(box, "img[data-step]");
  return {box, images, steps: images.map((image) => Number(image.dataset.step)), range: box.querySelector("input"),
          output: box.querySelector("output"), buttons: all(box, "button"), controls: box.querySelector(".controls")};
});
const bar = document.querySelector(".controls.all"), together = document.querySelector("#together");
const steps = [...new Set(runs.flatMap((run) => run.steps))].sort((a, b) => a - b);
const common = bar && {steps, range: bar.querySelector("input[type=range]"), buttons: all(bar, "button"),
                       output: bar.querySelector("output")};

function set(control, index) {
  const words = "step " + control.steps[index].toLocaleString("en");
  control.range.value = index;
  control.range.setAttribute("aria-valuetext", words);
  control.output.textContent = words;
  control.buttons[0].disabled = index === 0;
  control.buttons[1].disabled = index === control.steps.length - 1;
}

function show(run, index) {
  run.images.forEach((image, i) => { image.hidden = i !== index; });
  set(run, index);
}

function nearest(found, step) {
  let best = 0;
  found.forEach((other, i) => { if (Math.abs(other - step) < Math.abs(found[best] - step)) best = i; });
  return best;
}

function showAll(step) {
  runs.forEach((run) => show(run, nearest(run.steps, step)));
  set(common, nearest(steps, step));
}

function remember(step) {
  try { history.replaceState(null, "", "#step=" + step); } catch { /* not allowed where the page has no origin */ }
}

function follow() {
  const found = /^#step=([0-9]+)$/.exec(location.hash);
  if (!found || !runs.length) return;
  showAll(Number(found[1]));
  document.querySelector("#samples").scrollIntoView();
}

function arrange() {
  const one = runs.length === 1 || together.checked;
  runs.forEach((run) => { run.controls.hidden = one; });
  all(bar, "button,input[type=range],output").forEach((control) => { control.hidden = !one; });
  together.closest("label").hidden = runs.length === 1;
  bar.hidden = false;
}

function listen(control, move) {
  control.range.addEventListener("input", () => move(Number(control.range.value)));
  [-1, 1].forEach((by, i) => control.buttons[i].addEventListener("click", () => {
    move(Math.min(control.steps.length - 1, Math.max(0, Number(control.range.value) + by)));
    if (control.buttons[i].disabled) control.range.focus();
  }));
}

if (runs.length) {
  runs.forEach((run) => {
    show(run, run.images.findIndex((image) => !image.hidden));
    listen(run, (index) => { show(run, index); remember(run.steps[index]); });
  });
  common.range.max = steps.length - 1;
  set(common, nearest(steps, Math.max(...runs.map((run) => run.steps[run.range.value]))));
  listen(common, (index) => { showAll(steps[index]); remember(steps[index]); });
  together.addEventListener("change", () => {
    arrange();
    if (together.checked) showAll(runs[0].steps[runs[0].range.value]);
  });
  arrange();
}
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
