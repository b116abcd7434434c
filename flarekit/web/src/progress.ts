// The second panel: where a case stands while it is uploaded, waits and runs.

import type { Case } from "./api";
import { el } from "./dom";

const STEPS: [string, string][] = [
  ["upload", "Upload"], ["waiting", "Wait for a turn"], ["generating", "Generate the demo's CT"],
  ["loading", "Load the network"], ["reading", "Read the scan"], ["tiles", "Segment"],
  ["deciding", "Decide labels"], ["writing", "Write the mask"],
];

export class ProgressPanel {
  private bar = el<HTMLProgressElement>("progress", { max: 1, value: 0, "aria-label": "Progress" });
  private said = el("p", { class: "said", role: "status" }, "Uploading");
  private items = new Map<string, HTMLElement>();
  private began = performance.now();
  private clock = el("span", { class: "quiet" });
  private timer = window.setInterval(() => this.tick(), 200);
  readonly root: HTMLElement;

  constructor(title: string, isDemo: boolean, cancel: () => void) {
    const steps = STEPS.filter(([name]) => (name === "upload" ? !isDemo : name === "generating" ? isDemo : true));
    this.root = el("div", {},
      el("h1", {}, title), this.bar, this.said,
      el("ol", { class: "steps" }, ...steps.map(([name, text]) => {
        const item = el("li", {}, text);
        this.items.set(name, item);
        return item;
      })),
      el("div", { class: "row" }, el("button", { type: "button", id: "cancel", onclick: cancel }, "Cancel"), this.clock));
  }

  stop(): void { window.clearInterval(this.timer); }

  uploading(share: number): void {
    this.mark("upload");
    this.bar.value = share;
    this.said.textContent = share < 1 ? `Uploading: ${Math.round(share * 100)} %` : "Uploaded; the service looks at it";
  }

  show(found: Case): void {
    if (found.state === "waiting") {
      this.mark("waiting");
      this.bar.removeAttribute("value");
      const place = found.place ?? 0;
      this.said.textContent = place === 0 ? "Next in the queue" : `${place} ${place === 1 ? "case" : "cases"} before this one`;
    } else if (found.state === "running") {
      const step = found.step ?? "loading";
      this.mark(step);
      if (found.tiles && (step === "tiles" || step === "deciding")) {
        this.bar.value = found.tiles.done / found.tiles.total;
        this.said.textContent = `Tile ${found.tiles.done} of ${found.tiles.total}`;
      } else {
        this.bar.removeAttribute("value");
        this.said.textContent = STEPS.find(([name]) => name === step)?.[1] ?? step;
      }
    }
  }

  private mark(step: string): void {
    let before = true;
    for (const [name, item] of this.items) {
      const now = name === step;
      if (now) before = false;
      item.className = now ? "now" : before ? "over" : "";
      if (now) item.setAttribute("aria-current", "step"); else item.removeAttribute("aria-current");
    }
  }

  private tick(): void { this.clock.textContent = `${((performance.now() - this.began) / 1000).toFixed(0)} s`; }
}
