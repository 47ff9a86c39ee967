"use strict";
// Shows one image after another and sends what people answer: the next image comes when the answer is on disk.

const $ = (id) => document.getElementById(id);
const SAID = { skipped: "Skipped", unusable: "Unusable", unknown_class: "Not listed" };
const RENEW = 40_000; // milliseconds; the server keeps a page's images for it for 120 seconds
const LOOK = 3_000; // the same where nothing is left to do, and where the server is gone

const tab = tabName();
const viewer = new Viewer($("stage"));
const choices = new Choices($("classes"), $("filter"), (name) => answer("labelled", name));
const pictures = new Map(); // images that are loaded or being loaded, by their ids
let start = {}; // what stays the same
let person = ""; // the name that answers get
let queue = []; // images of this tab: the first is shown, the others are loaded meanwhile
let earlier = null; // answers that somebody looks through, the oldest first; null at the front
let at = 0; // which of them is shown
let busy = true; // an answer is being saved, or no image is shown
let asked = 0; // requests so far
let shown = 0; // when the image was shown, in milliseconds
let troubles = 0; // requests that wait for somebody to have them tried again
let last = { left: 0, progress: [] }; // the newest reply

const current = () => (earlier ? earlier[at] : queue[0]);
const mine = () => ({ annotator: person, page: tab, keep: queue.map((item) => item.sample) });

function picture(sample) {
  if (!pictures.has(sample)) {
    const image = new Image();
    image.alt = "Image to be labelled";
    image.draggable = false;
    image.src = imageAddress(sample);
    const found = { image, loaded: false, ready: image.decode().then(() => true, () => false) };
    found.ready.then(() => (found.loaded = true));
    pictures.set(sample, found);
  }
  return pictures.get(sample);
}

/** Take in a reply: what comes next, and how far everything is. */
function take(reply) {
  [queue, last] = [reply.queue, reply];
  choices.set(reply.classes);
  const near = [...queue, ...(earlier ?? []).slice(Math.max(0, at - 2), at + 3)].map((item) => item.sample);
  for (const sample of pictures.keys()) if (!near.includes(sample)) pictures.delete(sample);
  for (const sample of near) picture(sample);
  drawProgress();
}

/** Show the current image, or why there is none. */
async function show() {
  busy = true;
  const item = current();
  drawAround(item);
  if (!item) {
    viewer.show(null);
    drawEnd();
    return;
  }
  const { image, loaded, ready } = picture(item.sample);
  if (!loaded) viewer.show(null); // rather nothing than the image before
  let [found, whole] = [image, await ready];
  if (!whole) {
    // Perhaps the server was gone for a moment while this was loaded ahead.
    pictures.delete(item.sample);
    const second = picture(item.sample);
    [found, whole] = [second.image, await second.ready];
  }
  if (item !== current()) return; // somebody has moved on
  if (!whole) pictures.delete(item.sample);
  viewer.show(whole ? found : null);
  $("broken").hidden = whole;
  choices.enable(whole);
  shown = performance.now();
  busy = false;
}

async function answer(status, label = null) {
  const item = current();
  if (busy || !item || (label !== null && !$("broken").hidden)) return;
  busy = true;
  document.body.classList.add("saving");
  mark(status, label);
  const comment = $("comment").value;
  const seconds = (performance.now() - shown) / 1000;
  try {
    const reply = await insist("answer", () => ({ ...mine(), sample: item.sample, status, label, seconds, comment }));
    say(`Saved: ${label ?? SAID[status]}`);
    if (earlier) earlier[at].answer = { status, label, comment };
    goOn(reply);
  } catch (error) {
    if (error.status === 409) {
      say(error.message);
      goOn(error.reply);
    } else {
      mark(item.answer?.status, item.answer?.label);
      busy = false; // the image is still there: it can be answered again
      if (error.status) say(error.message);
    }
  } finally {
    document.body.classList.remove("saving");
  }
}

/** After an answer: the next image, or the next of the earlier answers. */
function goOn(reply) {
  choices.clear();
  $("comment").value = "";
  take(reply);
  if (earlier && ++at >= earlier.length) earlier = null;
  show();
}

async function undo() {
  if (busy && current()) return;
  busy = true;
  earlier = null;
  try {
    const reply = await insist("undo", mine);
    say(reply.undone ? `Withdrawn: ${reply.undone.label ?? SAID[reply.undone.status]}` : "There is no answer to withdraw.");
    take(reply);
  } catch (error) {
    say(error.message);
  }
  show();
}

async function back() {
  if (busy && current()) return;
  if (!earlier) {
    const given = (await insist("earlier", mine)).earlier;
    if (!given.length) {
      say("There are no earlier answers.");
      return;
    }
    [earlier, at] = [given, given.length];
  }
  at = Math.max(0, at - 1);
  show();
}

function forward() {
  if (!earlier || busy) return;
  if (++at >= earlier.length) earlier = null;
  show();
}

/** Keep this tab's images for it, and learn what is new. */
async function refresh() {
  if (!person || (busy && current())) return;
  let reply;
  const number = asked + 1;
  try {
    reply = await insist("next", mine);
  } catch {
    return;
  }
  if (number !== asked || (busy && current())) return; // an answer has been sent since
  const [before, ended] = [current()?.sample, !$("end").hidden];
  take(reply);
  if (current()?.sample !== before) {
    if (before && !earlier) say("Somebody else has got the image that was here.");
    show();
  } else if (ended) drawEnd();
}

/** Ask until it is done: what stands in the way is shown, and the answer is kept meanwhile. */
async function insist(what, body) {
  for (;;) {
    try {
      asked++;
      const reply = await ask(what, body());
      $("banner").hidden = !troubles;
      return reply;
    } catch (error) {
      if (!(error instanceof Refused) || error.status === 409 || error.status === 400) throw error;
      if (!(await trouble(error, what === "answer"))) throw error;
    }
  }
}

/** Show what went wrong; true to try again, which happens by itself where the server is gone. */
function trouble(error, ofAnswer) {
  const kept = ofAnswer ? " Your answer is kept here and not saved yet." : "";
  const gone = `The labelling program does not reply. Does it still run in its terminal?${kept}`;
  $("banner-text").textContent = error.status === 0 ? gone : `${error.message}${kept}`;
  $("other").hidden = !ofAnswer;
  $("banner").hidden = false;
  $("clients").hidden = true;
  troubles++;
  return new Promise((resolve) => {
    const timer = error.status === 0 ? setTimeout(() => resolve(true), LOOK) : null;
    const done = (again) => {
      clearTimeout(timer);
      troubles--;
      if (!again) $("banner").hidden = true;
      resolve(again);
    };
    $("again").onclick = () => done(true);
    $("other").onclick = () => done(false);
  });
}

function say(text) {
  $("said").textContent = text;
}

/** Mark an answer's button; nothing for none. */
function mark(status, label) {
  choices.mark(status === "labelled" ? label : null);
  for (const button of $("others").children) button.setAttribute("aria-pressed", String(button.dataset.status === status));
}

/** Ask for the person's name unless it is known. */
async function introduce(again = false) {
  if (start.annotator) return start.annotator;
  const before = kept("annotator") ?? "";
  if (before && !again) return before;
  $("given-name").value = before || start.suggested;
  $("names").replaceChildren(...start.annotators.map((name) => new Option(name)));
  $("ask-name").showModal();
  $("given-name").select();
  await new Promise((resolve) => ($("ask-name").onclose = resolve));
  const name = $("given-name").value.trim() || before;
  keep("annotator", name);
  return name || introduce(true);
}

async function begin(again = false) {
  start = await insist("start", mine);
  person = await introduce(again);
  $("name").textContent = person;
  $("name").disabled = Boolean(start.annotator);
  earlier = null;
  take(await insist("next", mine));
  show();
}

/** Wait between looks less long where nothing is left to do. */
async function keepUp() {
  for (;;) {
    await new Promise((resolve) => setTimeout(resolve, $("end").hidden ? RENEW : LOOK));
    await refresh();
  }
}
