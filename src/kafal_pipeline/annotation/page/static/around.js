"use strict";
// What stands around the image: progress, notes, the last page; and what keys and buttons do.

function drawProgress() {
  const sum = (of) => last.progress.reduce((total, client) => total + of(client), 0);
  const isDone = (client) => client.asked - client.open - client.conflicts;
  const [total, done, conflicts] = [sum((client) => client.asked), sum(isDone), sum((client) => client.conflicts)];
  $("bar").ariaValueNow = done;
  $("bar").ariaValueMax = total;
  $("bar-done").style.width = `${total ? (100 * done) / total : 0}%`;
  const yours = start.wanted > 1 ? `, ${last.left} left for you` : "";
  const enough = done < total && last.progress.every((client) => client.enough) ? ", enough to resume the run" : "";
  $("counts").textContent = `${done} of ${total}${yours}${conflicts ? `, ${conflicts} in conflict` : ""}${enough}`;
  const rows = last.progress.map((client) => [client.who, `${isDone(client)} of ${client.asked}`, client.conflicts || ""]);
  const cells = (kind, texts) => {
    const row = document.createElement("tr");
    for (const text of texts) row.append(Object.assign(document.createElement(kind), { textContent: text }));
    return row;
  };
  $("clients").replaceChildren(cells("th", ["", "answered", "conflicts"]), ...rows.map((row) => cells("td", row)));
}

/** Draw what belongs to an image: whose it is, notes, and the answer that it has. */
function drawAround(item) {
  $("which").textContent = item ? `${item.who}, cycle ${item.cycle}${item.part === "test" ? ", test image" : ""}` : "";
  $("end").hidden = Boolean(item);
  $("broken").hidden = true;
  $("forward").disabled = !earlier;
  mark(item?.answer?.status, item?.answer?.label);
  if (!earlier) $("comment").value = "";
  else $("comment").value = item.answer.comment;
  const given = item?.answer && (item.answer.label ?? SAID[item.answer.status]);
  const note = given
    ? `Your answer ${at + 1} of ${earlier.length}: ${given}. Another answer replaces it.`
    : item?.conflict ? "Others disagree about this image. Your answer decides." : "";
  $("note").textContent = note;
  $("note").hidden = !note;
  for (const button of document.querySelectorAll("#others button, #tools button, #comment")) button.disabled = !item;
  if (!item) choices.enable(false);
}

/** Draw why there is no image. */
function drawEnd() {
  const sum = (key) => last.progress.reduce((total, client) => total + client[key], 0);
  const [asked, open, conflicts] = [sum("asked"), sum("open"), sum("conflicts")];
  const done = open + conflicts === 0;
  const several = start.wanted > 1 ? ` (${start.wanted} people label each image)` : "";
  let text = `The rest waits for other people: ${open} images are open${several}, ${conflicts} in conflict.`;
  if (done) text = "Give the command of the run again:";
  else if (last.left) text = "Other pages have the last images. What they leave open comes here in two minutes.";
  $("end-title").textContent = done ? (asked === 1 ? "The image is answered" : `All ${asked} images are answered`) : "Nothing is left for you now";
  $("end-text").textContent = text;
  $("end-command").textContent = start.resume;
  $("end-command").hidden = !done;
}

function help() {
  const keys = [...(choices.keys?.keys() ?? [])];
  $("keys-classes").replaceChildren(...keys.map((key) => Object.assign(document.createElement("kbd"), { textContent: key })));
  for (const part of document.querySelectorAll("[data-many]")) part.hidden = !choices.many;
  $("keys").showModal();
}

function find() {
  if (choices.many) $("filter").focus();
}

const KEYS = {
  s: () => answer("skipped"),
  u: () => answer("unusable"),
  n: () => answer("unknown_class"),
  z: undo,
  c: () => $("comment").focus(),
  d: changeTheme,
  p: () => viewer.changeSmoothing(),
  r: () => viewer.reset(),
  0: () => viewer.reset(),
  "+": () => viewer.zoom(1.4),
  "=": () => viewer.zoom(1.4),
  "-": () => viewer.zoom(1 / 1.4),
  "?": help,
  "/": find,
  Enter: find,
  ArrowLeft: back,
  ArrowRight: forward,
};

function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || document.querySelector("dialog[open]")) return;
  if (event.target === $("comment")) {
    if (event.key === "Enter" || event.key === "Escape") $("comment").blur();
    return;
  }
  if (event.key === "Enter" && event.target.closest("button")) return; // it presses the button
  const label = choices.keys?.get(event.key);
  const does = label === undefined ? (KEYS[event.key] ?? KEYS[event.key.toLowerCase()]) : () => answer("labelled", label);
  if (!does) return;
  event.preventDefault();
  const again = ["+", "=", "-", "ArrowLeft", "ArrowRight"].includes(event.key);
  if (!event.repeat || again) does(); // a key that is held down answers one image, not all of them
}

function listen() {
  document.addEventListener("keydown", pressed);
  for (const button of $("others").children) button.onclick = () => answer(button.dataset.status);
  const clicks = { back, forward, undo, help, theme: changeTheme, whole: KEYS.r, smooth: KEYS.p, closer: KEYS["+"], farther: KEYS["-"] };
  for (const [id, does] of Object.entries(clicks)) $(id).onclick = () => does();
  $("name").onclick = () => begin(true);
  $("progress").onclick = () => {
    $("clients").hidden = !$("clients").hidden;
    $("progress").ariaExpanded = String(!$("clients").hidden);
  };
  document.addEventListener("click", (event) => {
    if (!event.target.closest("header")) {
      $("clients").hidden = true;
      $("progress").ariaExpanded = "false";
    }
  });
  // A button that was clicked must not be pressed again by Space or Enter, which somebody means for the next image.
  $("panel").addEventListener("click", (event) => event.detail && event.target.closest("button")?.blur());
  $("ask-name").oncancel = (event) => event.preventDefault();
  let away = 0; // since when nobody has looked at the page
  document.onvisibilitychange = () => {
    if (document.hidden) away = performance.now();
    else {
      shown += performance.now() - away;
      refresh();
    }
  };
  addEventListener("pagehide", () => person && ask("leave", mine(), { keepalive: true }).catch(() => {}));
  addEventListener("pageshow", (event) => event.persisted && refresh());
  addEventListener("beforeunload", (event) => document.body.classList.contains("saving") && event.preventDefault());
}

listen();
begin().then(keepUp);
