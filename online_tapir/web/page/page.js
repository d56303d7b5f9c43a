// The page: what is seen, what is done with mouse, touch and keys, and the figures beside it.

import { Curve } from "./curve.js";
import { Link } from "./link.js";
import { Picture } from "./picture.js";

const LONG_PRESS_MS = 550;
const DRAG_PX = 8; // less is a click
const REACH_PX = 60; // of the nearest point, on the screen
const GRID_STEP_PX = 28; // between the points of a dragged grid, on the screen
const STEP_PX = 8, LARGE_STEP_PX = 40; // of the arrow keys
const CURVES_EVERY_MS = 500;
const SAID_MS = 6000;

const $ = (id) => document.getElementById(id);
const picture = new Picture($("picture"));
const curves = { fps: new Curve($("fps-curve")), latency: new Curve($("latency-curve")), points: new Curve($("points-curve")) };
const tiles = new Map(); // of the wall, by camera
const past = []; // what undo takes back: functions, by camera
let camera = null; // the one that is shown; null: the wall
let chosen = false; // whether somebody asked for what is shown
let cameras = [];
let mode = null; // what the next click does to the nearest point: inspect or name; null: it adds one
let beat = null; // the last heartbeat of the camera, until a newer frame comes
let naming = null; // the point that is being named
let right = "control";
let pressed = null; // where the pointer went down, and the frame that was shown then
let pointer = null; // where it is, image pixels
let touched = false; // whether what went down last was a finger or a pen
let saidAt = 0;

const link = new Link({ seen, told, listed: setCameras, stands });

async function seen(header, [frame, inspection]) {
  if (!cameras.includes(header.camera)) return; // it has left
  const target = camera === null ? tileOf(header.camera).picture : header.camera === camera ? picture : null;
  if (!target) return;
  const shown = camera;
  if (!(await target.show(header, frame)) || shown !== camera) return; // another one is looked at now
  if (camera === null) return caption(header);
  $("waiting").hidden = true;
  tell(header);
  if (header.inspected < 0) $("inspection").hidden = true;
  else if (inspection) showInspection(header.inspected, inspection);
  await drawn();
}

/** What the wall says below a picture. */
function caption({ camera: name, fps, visible, state }) {
  const seen = `${visible.reduce((sum, one) => sum + one, 0)} of ${visible.length} points`;
  tileOf(name).label.textContent = state === "streaming" ? `${name}: ${fps.toFixed(1)} a second, ${seen}` : `${name}: ${state}`;
}

/** The next frame of the screen; at once where none is drawn, as in a hidden tab. */
function drawn() {
  return document.hidden ? Promise.resolve() : new Promise((settle) => requestAnimationFrame(settle));
}

function showInspection(id, blob) {
  const image = $("inspected");
  const before = image.src;
  image.src = URL.createObjectURL(blob);
  if (before) URL.revokeObjectURL(before);
  $("inspection").hidden = false;
  $("inspected-id").textContent = `Point ${id}`;
}

function tell(header) {
  const visible = header.visible.reduce((sum, one) => sum + one, 0);
  $("fps").textContent = header.fps.toFixed(1);
  $("latency").textContent = header.latency_ms === null ? "-" : `${header.latency_ms.toFixed(0)} ms`;
  $("points").textContent = `${visible} of ${header.ids.length}`;
  $("searching-row").hidden = !header.searching;
  $("searching").textContent = header.searching;
  $("dropped").textContent = header.dropped;
  $("model").textContent = header.model;
  if (!beat || header.frame > beat.frame_id) { // otherwise the heartbeat is newer than this frame
    beat = null;
    stand(header.state);
  }
  press("replenish", header.replenish);
  press("record", header.recording);
  press("inspect", mode === "inspect" || header.inspected >= 0);
  press("name", mode === "name");
  $("inspect").textContent = header.inspected >= 0 ? "End inspection" : "Inspect";
  curves.fps.add(header.fps);
  if (header.latency_ms !== null) curves.latency.add(header.latency_ms);
  curves.points.add(visible);
}

function told(heartbeat) {
  if (camera === null && tiles.has(heartbeat.camera)) tiles.get(heartbeat.camera).label.textContent = `${heartbeat.camera}: ${heartbeat.state}`;
  if (heartbeat.camera !== camera) return;
  beat = heartbeat;
  stand(heartbeat.state);
}

function stand(state) {
  $("source").textContent = state;
  press("pause", state === "paused");
}

const STANDS = {
  open: "live",
  lost: "the tracker is away; waiting for it",
  ended: "this session has ended; open the link that online-tapir printed",
};

function stands(state) {
  $("link").textContent = STANDS[state];
  $("link").classList.toggle("bad", state !== "open");
  if (state === "open") return learn();
  picture.header = null; // a click on what is still seen would name a frame of a run that is over
  $("waiting").hidden = false;
}

/** Asks what this viewer may do. */
async function learn() {
  const about = await fetch("api/about").then((reply) => reply.json());
  right = about.right;
  for (const button of $("tools").querySelectorAll("button")) button.hidden = right !== "control" && button.id !== "snapshot";
  if (about.rerun) {
    const anchor = Object.assign(document.createElement("a"), { href: about.rerun, textContent: "open the Rerun viewer" });
    $("links").replaceChildren(anchor);
  }
}

/** Takes the names of the cameras that run. A camera that is looked at stays; otherwise the only one is shown, or all. */
function setCameras(names) {
  const first = cameras.length === 0 || (camera !== null && !picture.header && !chosen);
  cameras = names.slice().sort();
  const gone = camera !== null && !cameras.includes(camera);
  const usual = cameras.length === 1 ? cameras[0] : null;
  const entries = cameras.length > 1 ? [null, ...cameras] : [];
  $("cameras").replaceChildren(...entries.map((name) => {
    const button = Object.assign(document.createElement("button"), { textContent: name ?? "all cameras" });
    button.onclick = () => choose(name);
    return button;
  }));
  for (const name of tiles.keys()) {
    if (cameras.includes(name)) continue;
    tiles.get(name).element.remove();
    tiles.delete(name);
  }
  show(first || gone ? usual : camera);
}

/** Shows what was asked for. */
function choose(name) {
  chosen = true;
  show(name);
}

/** Shows one camera, or all of them (null). */
function show(name) {
  if (name !== camera) leave();
  camera = name;
  beat = null;
  $("wall").hidden = name !== null;
  $("one").hidden = name === null;
  $("figures").hidden = name === null;
  [...$("cameras").children].forEach((button, at) => button.setAttribute("aria-current", String((at ? cameras[at - 1] : null) === name)));
  document.title = name === null ? "online-tapir" : `${name} - online-tapir`;
  for (const curve of Object.values(curves)) curve.clear();
  past.length = 0;
  if (name === null) for (const one of cameras) tileOf(one);
  report();
}

/** Puts away what belongs to the camera that was shown: numbers of points and frames are its own. */
function leave() {
  picture.clear();
  mode = naming = pressed = pointer = null;
  $("waiting").hidden = false;
  $("naming").hidden = $("inspection").hidden = true;
}

/** Tells the run how large the picture is here. */
function report() {
  const canvas = camera === null ? $("wall").querySelector("canvas") : $("picture");
  const width = (canvas?.clientWidth || 640) * Math.min(devicePixelRatio || 1, 2);
  link.look(camera, Math.max(64, width));
  $("undo").disabled = past.length === 0;
}

function tileOf(name) {
  if (!tiles.has(name)) {
    const element = document.createElement("button");
    const canvas = document.createElement("canvas");
    const label = Object.assign(document.createElement("span"), { textContent: name });
    element.append(canvas, label);
    element.setAttribute("aria-label", `Show camera ${name}`);
    element.onclick = () => choose(name);
    tiles.set(name, { element, label, picture: new Picture(canvas) });
    $("wall").append(...[...tiles.keys()].sort().map((one) => tiles.get(one).element));
  }
  return tiles.get(name);
}

/** Asks the run; what it refuses is told in one sentence. */
async function ask(command, parameters = {}) {
  const asked = camera;
  try {
    const answer = await link.ask(asked, command, parameters);
    return asked === camera ? answer : null; // what another camera answered is not this one's to undo or to show
  } catch (error) {
    say(error.message);
    return null;
  }
}

function say(text) {
  $("say").textContent = text;
  saidAt = performance.now();
}

function press(id, on) {
  $(id).setAttribute("aria-pressed", String(on));
}

function remember(take) {
  past.push(take);
  $("undo").disabled = false;
}

async function add(places, frame) {
  const answer = await ask("add", { xy: places.map(({ x, y }) => [x, y]), frame_id: frame });
  if (answer) remember(() => ask("remove", { ids: answer.ids }));
  return answer;
}

async function remove(place, reach = REACH_PX) {
  const point = picture.nearest(place, reach);
  if (!point) return say("there is no point near");
  if (await ask("remove", { ids: [point.id] })) remember(() => addAgain([point]));
}

/** Names points again, where they were; those that had left the picture cannot be. */
function addAgain(points) {
  if (!picture.header) return say("there is no link to the run");
  const { width, height } = picture.header;
  const there = points.filter(({ x, y }) => x >= 0 && y >= 0 && x < width && y < height);
  return ask("add", { xy: there.map(({ x, y }) => [x, y]), names: there.map(({ name }) => name ?? "") });
}

async function clear() {
  const points = picture.points();
  if (await ask("clear")) remember(() => addAgain(points));
}

async function undo() {
  const take = past.pop();
  $("undo").disabled = past.length === 0;
  if (take) await take();
}

async function inspect(place) {
  mode = null;
  const point = place && picture.nearest(place);
  if (!point || point.id === picture.header.inspected) await ask("inspect");
  else await ask("inspect", { id: point.id });
}

/** Opens the field for the name of the nearest point. */
function beginNaming(place) {
  mode = null;
  naming = picture.nearest(place);
  if (!naming) return say("there is no point to name");
  $("naming").hidden = false;
  $("naming-id").textContent = naming.id;
  $("called").value = naming.name;
  $("called").focus();
}

async function endNaming(name) {
  const point = naming;
  naming = null;
  $("naming").hidden = true;
  canvas.focus();
  if (point && name !== null && (await ask("label", { id: point.id, name })))
    remember(() => ask("label", { id: point.id, name: point.name }));
}

function toggle(command, on) {
  return ask(command, { on: !on });
}

function snapshot() {
  const anchor = document.createElement("a");
  anchor.href = `api/cameras/${encodeURIComponent(camera)}/picture.jpg`;
  anchor.download = `${camera}-${picture.header?.frame ?? 0}.jpg`;
  anchor.click();
}

/** Places of a grid in a box of image pixels, spaced as on the screen; wider where there is no room for so many. */
function gridIn([left, top, far, low]) {
  const room = Math.max(1, picture.header.room);
  let step = GRID_STEP_PX * picture.perPixel(), columns, rows;
  do {
    [columns, rows] = [far - left, low - top].map((side) => Math.max(1, Math.round(side / step)));
    step *= 1.05;
  } while (columns * rows > room);
  const places = [];
  for (let row = 0; row < rows; row++)
    for (let column = 0; column < columns; column++)
      places.push({ x: left + ((column + 0.5) * (far - left)) / columns, y: top + ((row + 0.5) * (low - top)) / rows });
  return places;
}

function boxFrom(one, other) {
  const { width, height } = picture.header;
  const clip = (value, most) => Math.min(Math.max(value, 0), most);
  const [xs, ys] = [[one.x, other.x].map((x) => clip(x, width)).sort((a, b) => a - b), [one.y, other.y].map((y) => clip(y, height)).sort((a, b) => a - b)];
  return [xs[0], ys[0], xs[1], ys[1]];
}

const canvas = $("picture");

canvas.addEventListener("pointerdown", (event) => {
  touched = event.pointerType !== "mouse" && event.button === 0; // a pen's other button is a right click
  const place = picture.at(event);
  if (!place || event.button !== 0 || right !== "control") return;
  pressed = { place, frame: picture.header.frame, x: event.clientX, y: event.clientY, long: false, drags: false };
  if (touched) {
    const mine = pressed;
    mine.timer = setTimeout(() => {
      mine.long = true;
      if (pressed === mine && !mine.drags) remove(place);
    }, LONG_PRESS_MS);
  }
});

canvas.addEventListener("pointermove", (event) => {
  pointer = picture.at(event);
  if (!pressed || pressed.long || !pointer) return;
  if (Math.hypot(event.clientX - pressed.x, event.clientY - pressed.y) < DRAG_PX && !pressed.drags) return;
  if (event.pointerType === "touch") return cancel(); // a swipe scrolls the page
  if (!pressed.drags) canvas.setPointerCapture(event.pointerId);
  pressed.drags = true;
  picture.box = boxFrom(pressed.place, pointer);
  picture.draw();
});

canvas.addEventListener("pointerup", () => {
  if (!pressed) return;
  const { place, frame, drags, long } = pressed;
  const box = picture.box;
  cancel();
  if (long) return;
  if (drags && box) add(gridIn(box), frame);
  else if (mode === "inspect") inspect(place);
  else if (mode === "name") beginNaming(place);
  else add([place], frame);
});

canvas.addEventListener("pointercancel", cancel);
canvas.addEventListener("pointerleave", () => { pointer = null; });

function cancel() {
  clearTimeout(pressed?.timer);
  pressed = null;
  picture.box = null;
  picture.draw();
}

canvas.addEventListener("contextmenu", (event) => {
  event.preventDefault();
  if (touched) return; // a long press, which has its own timer; browsers differ in when they tell of it
  const place = picture.at(event);
  if (place && right === "control") remove(place);
});

/** Moves the cross that stands for the mouse. */
function moveCross(x, y) {
  const { width, height } = picture.header;
  const from = picture.cross ?? { x: width / 2, y: height / 2 };
  picture.cross = { x: Math.min(Math.max(from.x + x, 0), width), y: Math.min(Math.max(from.y + y, 0), height) };
  picture.draw();
}

canvas.addEventListener("blur", () => { picture.cross = null; picture.draw(); });

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || camera === null) return;
  if (event.target instanceof HTMLInputElement) return;
  const onButton = event.target instanceof HTMLButtonElement || event.target.tagName === "SUMMARY";
  if (onButton && (event.key === " " || event.key === "Enter")) return;
  const action = right === "control" ? actionOf(event) : event.key.toLowerCase() === "s" ? snapshot : null;
  const wall = event.key.toLowerCase() === "w" && cameras.length > 1 ? () => choose(null) : null;
  if (!action && !wall) return;
  event.preventDefault();
  (action ?? wall)();
});

function actionOf(event) {
  const place = picture.cross ?? pointer;
  const step = (event.shiftKey ? LARGE_STEP_PX : STEP_PX) * picture.perPixel();
  const onPicture = document.activeElement === canvas && picture.header;
  const { header } = picture;
  if (!header) return null;
  switch (event.key) {
    case "ArrowLeft": return onPicture ? () => moveCross(-step, 0) : null;
    case "ArrowRight": return onPicture ? () => moveCross(step, 0) : null;
    case "ArrowUp": return onPicture ? () => moveCross(0, -step) : null;
    case "ArrowDown": return onPicture ? () => moveCross(0, step) : null;
    case "Enter": return picture.cross ? () => add([picture.cross], header.frame) : null;
    case "Delete": case "Backspace": return place ? () => remove(place, Infinity) : null;
    case "Escape": return () => { mode = null; picture.cross = null; cancel(); };
    case " ": return () => $("pause").click();
  }
  const buttons = { u: "undo", c: "clear", r: "replenish", o: "record", s: "snapshot" };
  const key = event.key.toLowerCase();
  if (key === "i") return () => (place ? inspect(place) : $("inspect").click());
  if (key === "n") return () => (place ? beginNaming(place) : $("name").click());
  return buttons[key] ? () => $(buttons[key]).click() : null;
}

const isOn = (id) => $(id).getAttribute("aria-pressed") === "true";
$("pause").onclick = async () => {
  const answer = await ask(isOn("pause") ? "resume" : "pause");
  if (answer) press("pause", answer.paused);
};
$("undo").onclick = undo;
$("clear").onclick = clear;
$("replenish").onclick = () => toggle("replenish", isOn("replenish"));
$("record").onclick = () => toggle("record", isOn("record"));
$("snapshot").onclick = snapshot;
$("inspect").onclick = () => {
  if ((picture.header?.inspected ?? -1) >= 0) return ask("inspect");
  awaitClick("inspect");
};
$("name").onclick = () => awaitClick("name");
$("naming").onsubmit = (event) => { event.preventDefault(); endNaming($("called").value.trim()); };
$("called").onkeydown = (event) => { if (event.key === "Escape") endNaming(null); };

/** What the next click does; the same again: no longer. */
function awaitClick(wanted) {
  mode = mode === wanted ? null : wanted;
  for (const one of ["inspect", "name"]) press(one, mode === one);
  if (mode) say(`click a point to ${mode} it`);
}

new ResizeObserver(() => { picture.draw(); report(); }).observe($("stage"));
setInterval(() => {
  if (document.hidden) return;
  for (const curve of Object.values(curves)) curve.draw();
  if (performance.now() - saidAt > SAID_MS) $("say").textContent = "";
}, CURVES_EVERY_MS);
