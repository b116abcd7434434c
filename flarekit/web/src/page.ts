// The page: a viewer on one side, one of three panels on the other.

import * as api from "./api";
import { byId, el, showDialog } from "./dom";
import { ProgressPanel } from "./progress";
import { ResultPanel } from "./result";
import { UploadPanel, filesOf } from "./upload";
import { VIEWS, Viewer, isUptake } from "./viewer";

const KEYS: [string, string][] = [
  ["1 to 5", "all planes, axial, coronal, sagittal, 3D"], ["Arrows", "move the crosshair in the slice"],
  ["Page up, page down", "next slice up or down"], ["W", "next window"], ["M", "mask on or off"],
  ["C", "next channel"], ["T, B", "add a lesion, take one away"], ["Escape", "stop correcting"],
  ["N", "new scan"], ["?", "these keys"],
];
const panel = byId("panel"), toolbar = byId("toolbar");
let viewer: Viewer;
let predictors: api.Predictor[] = [];
let uploads: UploadPanel | null = null;
let result: ResultPanel | null = null;
let following: AbortController | null = null;
let windowAt = 0;

function failed(error: unknown): void {
  const problem = error instanceof api.Problem ? error
    : new api.Problem(0, "the page came upon something unexpected", String(error));
  panel.querySelector(".problem")?.remove();
  panel.prepend(el("div", { class: "problem", role: "alert" },
    el("p", {}, el("strong", {}, problem.message)), el("p", {}, problem.fix),
    el("button", { type: "button", class: "link", onclick: (event: Event) => (event.target as Element).closest(".problem")?.remove() }, "Dismiss")));
}

function show(root: HTMLElement): void {
  panel.replaceChildren(root);
}

async function newScan(): Promise<void> {
  following?.abort();
  following = null;
  result = null;
  document.body.classList.remove("clicking");
  history.replaceState(null, "", location.pathname);
  viewer.clear();
  showTools();
  uploads = new UploadPanel(predictors, (await api.cases()).reverse().slice(0, 20), {
    start: ({ predictor, files, budget }) => void begin(predictor, files, budget),
    demo: (predictor) => void demo(predictor),
    open: (found) => void open(found),
    preview: (files) => { viewer.load(files).then(showTools).catch(() => viewer.clear()); },
  });
  show(uploads.root);
}

async function begin(predictor: api.Predictor, files: { field: string; file: File }[], budget: string): Promise<void> {
  const sending = new ProgressPanel(predictor.title, false, () => location.reload());
  show(sending.root);
  try {
    const fields: Record<string, string> = { predictor: predictor.name };
    if (budget) fields.time_budget_s = budget;
    const found = await api.upload(files, fields, (share) => sending.uploading(share));
    await open(found, sending);
  } catch (error) {
    sending.stop();
    if (uploads) show(uploads.root);
    failed(error);
  }
}

async function demo(predictor: api.Predictor): Promise<void> {
  try {
    viewer.clear();
    await open(await api.demo(predictor.name));
  } catch (error) {
    failed(error);
  }
}

/** Follow a case to its end and show what it came to. */
async function open(found: api.Case, before?: ProgressPanel): Promise<void> {
  following?.abort();
  const mine = (following = new AbortController());
  history.replaceState(null, "", `#case=${found.id}`);
  showTools();
  const predictor = predictors.find(({ name }) => name === found.predictor);
  if (!predictor) return failed(new api.Problem(0, `${found.predictor} is no longer offered`, "choose another case"));
  const isDemo = found.step === "generating" || (!before && viewer.isEmpty && found.state !== "done");
  const progress = before ?? new ProgressPanel(predictor.title, isDemo, () => { api.cancel(found.id).catch(failed); });
  progress.root.querySelector("#cancel")?.replaceWith(el("button", { type: "button", id: "cancel",
    onclick: () => { api.cancel(found.id).catch(failed); } }, "Cancel"));
  let scan: Promise<void> | null = viewer.isEmpty ? null : Promise.resolve();
  const loadScan = (now: api.Case) => {
    if (scan || ["generating", "loading"].includes(now.step ?? "") || now.state === "waiting") return;
    scan = loadChannels(now).catch(() => { scan = null; });
  };
  try {
    if (found.state === "waiting" || found.state === "running") {
      show(progress.root);
      progress.show(found);
      while (found.state === "waiting" || found.state === "running") {
        await api.follow(found.id, (now) => { found = now; progress.show(now); loadScan(now); }, mine.signal)
          .catch((error) => { if (mine.signal.aborted || error instanceof api.Problem) throw error; });
        found = await api.caseOf(found.id);
      }
    }
    if (mine.signal.aborted) return;
    if (found.state !== "done") {
      await newScan();
      failed(new api.Problem(0, found.error?.message ?? "The case was cancelled", found.error?.fix ?? "Nothing of it is kept but the scan; see the cases below."));
      return;
    }
    loadScan(found);
    await scan;
    if (viewer.isEmpty) await loadChannels(found);
    await finished(found, predictor);
  } catch (error) {
    if (!mine.signal.aborted) { await newScan(); failed(error); }
  } finally {
    progress.stop();
  }
}

async function loadChannels(found: api.Case): Promise<void> {
  const files = await Promise.all(found.channels.map(async (name) =>
    ({ name, file: await api.file(found.id, `scan?channel=${encodeURIComponent(name)}`) })));
  await viewer.load(files);
  showTools();
}

async function finished(found: api.Case, predictor: api.Predictor): Promise<void> {
  await viewer.setMask(await api.file(found.id, "mask"), predictor.labels);
  result = new ResultPanel(found, predictor, viewer, {
    changed: async (now, wanted) => {
      if (now.state === "done") return viewer.setMask(await api.file(now.id, "mask"), predictor.labels);
      await open(now);
      if (wanted) result?.want(wanted);
    },
    failed,
    removed: () => void newScan(),
  });
  show(result.root);
  showTools();
  document.body.setAttribute("data-ready", found.id);
}

function showTools(): void {
  byId("empty").hidden = !viewer.isEmpty || following !== null;
  byId("orientation").hidden = viewer.isEmpty;
  byId("orientation").textContent = `The patient's right is on the left.${viewer.isThinned ? " Shown with fewer pixels: this browser draws without a GPU." : ""}`;
  toolbar.hidden = viewer.isEmpty;
  if (viewer.isEmpty) return;
  const pressed = (text: string, on: boolean, act: () => void, more: Record<string, string> = {}) =>
    el("button", { type: "button", "aria-pressed": String(on), onclick: () => { act(); showTools(); }, ...more }, text);
  const group = (name: string, ...items: (HTMLElement | null)[]) => el("div", { class: "group", role: "group", "aria-label": name }, ...items);
  const names = viewer.channelNames;
  const windows = viewer.windows;
  const opacity = el<HTMLInputElement>("input", { type: "range", min: 0, max: 1, step: 0.05, value: viewer.opacity, "aria-label": "Opacity of the mask",
    oninput: () => { viewer.opacity = Number(opacity.value); viewer.apply(); } });
  toolbar.replaceChildren(...[
    group("Planes", ...VIEWS.map(([view, text]) => pressed(text, viewer.currentView === view, () => viewer.setView(view), { "data-view": view }))),
    ...(names.length > 1 ? [group("Channel", ...names.map((name, k) => pressed(name, viewer.shownChannel === k, () => viewer.show(k))),
      names.some(isUptake) ? pressed("Fused", viewer.shownChannel >= names.length, () => viewer.show(names.length)) : null)] : []),
    ...(windows.length ? [el("select", { "aria-label": "Window", id: "window", onchange: (event: Event) => {
      windowAt = (event.target as HTMLSelectElement).selectedIndex; viewer.setWindow(windows[windowAt]);
    } }, ...windows.map(({ name }, k) => el("option", { selected: k === windowAt % windows.length }, name)))] : []),
    viewer.hasMask && group("Mask", pressed("Mask", viewer.maskVisible, () => { viewer.maskVisible = !viewer.maskVisible; viewer.apply(); }), opacity)].filter((each): each is HTMLElement => Boolean(each)));
}

function key(event: KeyboardEvent): void {
  const target = event.target as HTMLElement;
  if (event.ctrlKey || event.metaKey || event.altKey || byId<HTMLDialogElement>("dialog").open) return;
  if (/^(input|select|textarea)$/i.test(target.tagName) && (target as HTMLInputElement).type !== "checkbox") return;
  const moves: Record<string, [number, number, number]> = {
    ArrowLeft: [-1, 0, 0], ArrowRight: [1, 0, 0], ArrowUp: [0, 1, 0], ArrowDown: [0, -1, 0], PageUp: [0, 0, 1], PageDown: [0, 0, -1],
  };
  const view = VIEWS[Number(event.key) - 1];
  const move = moves[event.key];
  if (event.key === "?") return showKeys();
  if (event.key.toLowerCase() === "n") return void newScan();
  if (viewer.isEmpty) return;
  if (view) viewer.setView(view[0]);
  else if (move) { event.preventDefault(); return viewer.move(...move); }
  else if (event.key.toLowerCase() === "m") { viewer.maskVisible = !viewer.maskVisible; viewer.apply(); }
  else if (event.key.toLowerCase() === "w" && viewer.windows.length) { windowAt = (windowAt + 1) % viewer.windows.length; viewer.setWindow(viewer.windows[windowAt]); }
  else if (event.key.toLowerCase() === "c") {
    const names = viewer.channelNames;
    viewer.show((viewer.shownChannel + 1) % (names.length > 1 && names.some(isUptake) ? names.length + 1 : names.length));
  } else if (event.key.toLowerCase() === "t") result?.choose("tumor");
  else if (event.key.toLowerCase() === "b") result?.choose("background");
  else if (event.key === "Escape") result?.choose(null);
  else return;
  showTools();
}

function showKeys(): void {
  showDialog(el("h2", {}, "Keys"), el("table", { class: "keys" }, el("tbody", {},
    ...KEYS.map(([name, what]) => el("tr", {}, el("th", { scope: "row" }, name), el("td", {}, what))))));
}

function setTheme(theme: string): void {
  document.documentElement.setAttribute("data-theme", theme);
  byId("theme").textContent = theme === "dark" ? "Light" : "Dark";
  localStorage.setItem("flarekit-theme", theme);
}

function askForToken(): Promise<string | null> {
  return new Promise((resolve) => {
    const input = el<HTMLInputElement>("input", { type: "password", id: "token", autocomplete: "off" });
    showDialog(el("h2", {}, "Token"), el("p", {}, "This service lets in those who have a token."), el("label", { for: "token" }, "Token"), input);
    const dialog = byId<HTMLDialogElement>("dialog");
    input.focus();
    dialog.addEventListener("close", () => resolve(input.value.trim() || null), { once: true });
  });
}

async function main(): Promise<void> {
  setTheme(localStorage.getItem("flarekit-theme") ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"));
  byId("theme").addEventListener("click", () => setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));
  byId("help").addEventListener("click", showKeys);
  byId("new").addEventListener("click", () => void newScan());
  document.addEventListener("keydown", key);
  document.addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("dropping"); });
  document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("dropping"); });
  document.addEventListener("drop", async (event) => {
    event.preventDefault();
    document.body.classList.remove("dropping");
    const files = event.dataTransfer ? await filesOf(event.dataTransfer) : [];
    if (files.length === 0) return;
    if (result || following) await newScan();
    uploads?.add(files);
  });
  api.onTokenNeeded(askForToken);
  try {
    viewer = await Viewer.on(byId<HTMLCanvasElement>("canvas"));
  } catch (error) {
    return failed(new api.Problem(0, "this browser has no WebGL 2, which the viewer needs", String(error)));
  }
  viewer.onMove = (mm, values) => { byId("location").textContent = `${mm.map((at) => at.toFixed(0)).join(", ")} mm · ${values}`; };
  viewer.onClick((mm) => result?.isClicking && result.clicked(mm));
  try {
    predictors = await api.predictors();
    const id = /^#case=([\w-]+)$/.exec(location.hash)?.[1];
    await newScan();
    if (id) await open(await api.caseOf(id));
  } catch (error) {
    failed(error);
  }
}

void main();
