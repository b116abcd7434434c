// The third panel: what was found, corrections by clicks, files to keep, and what it took.

import * as api from "./api";
import { el, readable } from "./dom";
import type { Viewer } from "./viewer";
import { voxelAt } from "./viewer";

type Kind = "tumor" | "background";
/** Clicks by kind, and their kinds in the order in which they were made. */
export interface Clicked { clicks: api.Clicks; order: Kind[] }
const FILES: [string, string, string][] = [
  ["mask", "Mask (NIfTI)", "mask.nii.gz"], ["segmentation.dcm", "DICOM segmentation", "segmentation.dcm"],
  ["statistics.csv", "Statistics (CSV)", "statistics.csv"], ["picture", "Picture (PNG)", "picture.png"],
  ["run", "Record (JSON)", "run.json"],
];

export class ResultPanel {
  private table = el("tbody");
  private clickState = el("p", { class: "quiet", role: "status" });
  private sent: Clicked;
  private wanted: Clicked;  // is sent once the correction before is done, so that no click is lost
  private kind: Kind | null = null;
  private kindButtons = new Map<Kind, HTMLElement>();
  private isSending = false;
  private places = new Map<string, [number, number, number]>();
  readonly root: HTMLElement;

  constructor(
    private found: api.Case, private predictor: api.Predictor, private viewer: Viewer,
    private calls: { changed(found: api.Case, wanted: Clicked | null): Promise<void>; failed(error: unknown): void; removed(): void },
  ) {
    const clicks = { tumor: [...found.clicks.tumor], background: [...found.clicks.background] };
    const order = [...clicks.tumor.map(() => "tumor" as const), ...clicks.background.map(() => "background" as const)];
    this.sent = this.wanted = { clicks, order };
    const result = found.result!;
    this.root = el("div", {},
      el("h1", {}, predictor.title),
      el("p", { class: "quiet" }, `Segmented in ${result.seconds.toFixed(1)} s on ${result.device_name} (${result.precision}).`),
      ...result.traded.map((text) => el("p", { class: "warn" }, `Given up for time: ${text}`)),
      ...result.warnings.map((text) => el("p", { class: "warn" }, text)),
      el("table", { class: "labels" },
        el("thead", {}, el("tr", {}, el("th", {}, el("span", { class: "hidden" }, "Shown")), el("th", {}, "Label"), el("th", { class: "number" }, "ml"))),
        this.table),
      found.takes_clicks ? this.clickTools() : null,
      el("h2", {}, "Keep"),
      el("div", { class: "downloads" }, ...FILES.filter(([what]) => found.is_dicom || what !== "segmentation.dcm")
        .map(([what, text, name]) => el("button", { type: "button", "data-file": what, onclick: () => this.keep(what, name) }, text))),
      el("details", {}, el("summary", {}, "Time and memory"), ...this.costs(result)),
      el("p", { class: "quiet" }, `Kept until ${new Date(found.expires).toLocaleString()}. `,
        el("button", { type: "button", class: "link", id: "delete", onclick: () => this.remove() }, "Delete now")));
    this.fill();
    this.statistics().catch(calls.failed);
  }

  private fill(): void {
    const { volumes_ml } = this.found.result!;
    const rows = this.predictor.labels.map(({ name, value, colour }) => {
      const ml = volumes_ml[name] ?? 0;
      const swatch = el("svg", { viewBox: "0 0 16 16", class: "swatch", "aria-hidden": "true" }, el("rect", { width: 16, height: 16, rx: 4, fill: colour }));
      const box = el<HTMLInputElement>("input", { type: "checkbox", checked: !this.viewer.hidden.has(value), disabled: ml === 0,
        "aria-label": `Show ${readable(name)}`, onchange: () => {
          if (box.checked) this.viewer.hidden.delete(value); else this.viewer.hidden.add(value);
          this.viewer.apply();
        } });
      return el("tr", { class: ml === 0 ? "absent" : "" },
        el("td", {}, el("label", { class: "shown" }, box, swatch)),
        el("td", {}, el("button", { type: "button", class: "link", disabled: ml === 0, "data-label": name,
          onclick: () => this.goTo(name) }, readable(name))),
        el("td", { class: "number" }, ml === 0 ? "none" : ml.toFixed(ml < 10 ? 2 : 1)));
    });
    this.table.replaceChildren(...rows);
  }

  private async statistics(): Promise<void> {
    this.table.querySelectorAll(".flag").forEach((flag) => flag.remove());
    for (const { label, centroid_mm_ras, touches_edge, components, flags } of await api.statistics(this.found.id)) {
      if (centroid_mm_ras) this.places.set(label, centroid_mm_ras);
      const link = this.table.querySelector(`[data-label="${CSS.escape(label)}"]`);
      const notes = [components > 1 && `${components} parts`, touches_edge && "touches the scan's edge"].filter(Boolean);
      if (link && notes.length) link.after(el("span", { class: "quiet" }, ` ${notes.join(", ")}`));
      if (link && flags.length) link.parentElement!.append(el("div", { class: "flag" }, `Look at it: ${flags.join("; ")}`));
    }
    this.root.setAttribute("data-measured", String(this.found.revision));
  }

  private goTo(label: string): void {
    const place = this.places.get(label);
    if (place) this.viewer.goTo(place);
  }

  private clickTools(): HTMLElement {
    const tool = (kind: Kind, text: string, key: string) => {
      const button = el("button", { type: "button", "aria-pressed": "false", "data-kind": kind, "aria-keyshortcuts": key,
        onclick: () => this.choose(this.kind === kind ? null : kind) }, text);
      this.kindButtons.set(kind, button);
      return button;
    };
    this.say();
    return el("section", { class: "clicks" }, el("h2", {}, "Correct"),
      el("div", { class: "row" }, tool("tumor", "Add a lesion", "t"), tool("background", "Take one away", "b")),
      el("div", { class: "row" },
        el("button", { type: "button", id: "undo", onclick: () => this.undo() }, "Undo"),
        el("button", { type: "button", id: "clear", onclick: () => this.clear() }, "Clear")),
      this.clickState);
  }

  choose(kind: Kind | null): void {
    if (!this.found.takes_clicks) return;
    this.kind = kind;
    for (const [name, button] of this.kindButtons) button.setAttribute("aria-pressed", String(name === kind));
    document.body.classList.toggle("clicking", kind !== null);
    this.say();
  }

  get isClicking(): boolean { return this.kind !== null; }

  clicked(mm: [number, number, number]): void {
    const { affine, shape } = this.found.result!;
    const voxel = this.kind && voxelAt(mm, affine, shape);
    if (!this.kind || !voxel) return;
    const clicks = this.copied();
    clicks[this.kind].push(voxel);
    this.want({ clicks, order: [...this.wanted.order, this.kind] });
  }

  private undo(): void {
    const kind = this.wanted.order.at(-1);
    if (!kind) return;
    const clicks = this.copied();
    clicks[kind].pop();
    this.want({ clicks, order: this.wanted.order.slice(0, -1) });
  }

  private clear(): void {
    if (this.wanted.order.length) this.want({ clicks: { tumor: [], background: [] }, order: [] });
  }

  private copied(): api.Clicks {
    const { tumor, background } = this.wanted.clicks;
    return { tumor: [...tumor], background: [...background] };
  }

  /** Correct by these clicks, as soon as the correction before is done. */
  want(wanted: Clicked): void {
    this.wanted = wanted;
    void this.send();
  }

  private async send(): Promise<void> {
    if (this.isSending) return;
    this.isSending = true;
    try {
      while (this.wanted !== this.sent) {
        this.clickState.textContent = "Correcting …";
        const began = performance.now(), wanted = this.wanted;
        const found = await api.click(this.found.id, wanted.clicks);
        this.sent = wanted;
        if (found.state !== "done") return await this.calls.changed(found, this.wanted === wanted ? null : this.wanted);
        this.found = found;
        await this.calls.changed(found, null);
        this.fill();
        this.say(`Corrected in ${((performance.now() - began) / 1000).toFixed(1)} s. `);
        this.root.setAttribute("data-revision", String(found.revision));
        if (this.wanted === wanted) await this.statistics();
      }
    } catch (error) {
      this.wanted = this.sent;
      this.say();
      this.calls.failed(error);
    } finally {
      this.isSending = false;
    }
  }

  private say(before = ""): void {
    const { tumor, background } = this.sent.clicks;
    const made = tumor.length + background.length === 0 ? "No clicks yet."
      : `${tumor.length} added, ${background.length} taken away.`;
    const now = this.kind === "tumor" ? " Click into a lesion that was missed."
      : this.kind === "background" ? " Click into what is not a lesion." : "";
    this.clickState.textContent = before + made + now;
  }

  private async keep(what: string, name: string): Promise<void> {
    try {
      const file = await api.file(this.found.id, what);
      const link = el<HTMLAnchorElement>("a", { href: URL.createObjectURL(file), download: name });
      document.body.append(link);
      link.click();
      link.remove();
      setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    } catch (error) {
      this.calls.failed(error);
    }
  }

  private async remove(): Promise<void> {
    try {
      await api.remove(this.found.id);
      this.calls.removed();
    } catch (error) {
      this.calls.failed(error);
    }
  }

  private costs(result: api.Result): HTMLElement[] {
    const times = Object.entries(result.stage_seconds);
    const longest = Math.max(...times.map(([, seconds]) => seconds), 1e-3);
    const bars = times.map(([name, seconds]) => el("tr", {}, el("td", {}, readable(name)),
      el("td", {}, el("meter", { max: longest, value: seconds, "aria-label": `${name} took ${seconds.toFixed(2)} s` })),
      el("td", { class: "number" }, `${seconds.toFixed(2)} s`)));
    const given = result.traded.length ? null : el("p", { class: "quiet" }, "Nothing was given up for time.");
    return [el("table", { class: "times" }, el("tbody", {}, ...bars)), ...(given ? [given] : []), memoryCurve(result.memory)];
  }
}

/** Draw memory against time. */
function memoryCurve(samples: [number, number][]): HTMLElement {
  const width = 320, height = 120, left = 34, bottom = 18;
  const end = samples.at(-1)?.[0] || 1, most = Math.max(...samples.map(([, mib]) => mib), 1);
  const x = (at: number) => left + (at / end) * (width - left - 4);
  const y = (mib: number) => height - bottom - (mib / most) * (height - bottom - 8);
  const text = (at: number, down: number, words: string, anchor: string) =>
    el("text", { x: at, y: down, "text-anchor": anchor }, words);
  return el("figure", {},
    el<SVGElement>("svg", { viewBox: `0 0 ${width} ${height}`, class: "curve", role: "img",
      "aria-label": `Memory over ${end.toFixed(1)} s, at most ${most.toFixed(0)} MiB` },
      el("line", { x1: left, y1: y(0), x2: width - 4, y2: y(0), class: "axis" }),
      el("line", { x1: left, y1: y(most), x2: width - 4, y2: y(most), class: "grid" }),
      el("polyline", { points: samples.map(([at, mib]) => `${x(at).toFixed(1)},${y(mib).toFixed(1)}`).join(" ") }),
      text(left - 4, y(0) + 3, "0", "end"), text(left - 4, y(most) + 3, most.toFixed(0), "end"),
      text(left, height - 4, "0 s", "start"), text(width - 4, height - 4, `${end.toFixed(1)} s`, "end")),
    el("figcaption", { class: "quiet" }, `Memory of the service in MiB, at most ${most.toFixed(0)}`));
}
