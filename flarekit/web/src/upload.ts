// The first panel: a scan, a predictor, a button; and the cases that are there already.

import * as api from "./api";
import { el, showDialog } from "./dom";
import { markdown } from "./markdown";

export interface Chosen { predictor: api.Predictor; files: { field: string; file: File }[]; budget: string }
interface Calls {
  start(chosen: Chosen): void;
  demo(predictor: api.Predictor): void;
  open(found: api.Case): void;
  preview(files: { name: string; file: File }[]): void;
}

const VOLUME = /\.(nii|nii\.gz|mha|nrrd)$/i;

/** Tell which channel of several a file is, by nnU-Net's number or its name. */
function channelOf(name: string, channels: string[]): number {
  const number = /_(\d{4})\.[a-z.]+$/i.exec(name)?.[1];
  if (number !== undefined && Number(number) < channels.length) return Number(number);
  const words = name.toLowerCase().split(/[^a-z0-9]+/);
  return channels.findIndex((channel) => words.includes(channel.toLowerCase()));
}

/** Return all files of a drop, those in folders too. */
export async function filesOf(transfer: DataTransfer): Promise<File[]> {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter((entry) => entry != null);
  if (entries.length === 0) return [...transfer.files];
  const found: File[] = [];
  const walk = async (entry: FileSystemEntry): Promise<void> => {
    if (entry.isFile) {
      found.push(await new Promise((take, fail) => (entry as FileSystemFileEntry).file(take, fail)));
      return;
    }
    const reader = (entry as FileSystemDirectoryEntry).createReader();
    for (;;) {
      const some = await new Promise<FileSystemEntry[]>((take, fail) => reader.readEntries(take, fail));
      if (some.length === 0) return;
      for (const each of some) await walk(each);
    }
  };
  for (const entry of entries) await walk(entry);
  return found;
}

export class UploadPanel {
  private files: File[] = [];
  private select: HTMLSelectElement;
  private list = el("div", { class: "files" });
  private start: HTMLButtonElement;
  private about = el("p", { class: "quiet" });
  private budget = el<HTMLInputElement>("input", {
    type: "number", min: 1, max: 600, step: 1, id: "budget", placeholder: "no limit", inputmode: "numeric",
  });
  readonly root: HTMLElement;

  constructor(private predictors: api.Predictor[], cases: api.Case[], private calls: Calls) {
    this.select = el<HTMLSelectElement>("select", { id: "predictor", onchange: () => this.show() },
      ...predictors.map(({ name, title }) => el("option", { value: name }, `${title} (${name})`)));
    this.start = el<HTMLButtonElement>("button", { type: "button", id: "start", class: "primary", disabled: true,
      onclick: () => this.begin() }, "Segment");
    const choose = (id: string, text: string, more: Record<string, boolean>) => {
      const input = el<HTMLInputElement>("input", { type: "file", id, class: "hidden", multiple: true, ...more,
        onchange: () => { this.add([...(input.files ?? [])]); input.value = ""; } });
      return el("label", { class: "button" }, text, input);
    };
    this.root = el("div", {},
      el("h1", {}, "Segment a scan"),
      el("p", {}, "Drop a scan anywhere on the page, or choose it."),
      el("div", { class: "row" },
        choose("files", "Choose files", {}),
        choose("folder", "DICOM folder", { webkitdirectory: true })),
      this.list,
      el("label", { for: "predictor" }, "Predictor"),
      this.select,
      this.about,
      el("details", {}, el("summary", {}, "Time limit"),
        el("label", { for: "budget" }, "Seconds a scan may take; detail is given up for it"), this.budget),
      el("div", { class: "row" }, this.start,
        el("button", { type: "button", id: "demo", onclick: () => this.calls.demo(this.demoPredictor()) }, "Try the demo")),
      el("p", { class: "quiet" }, "The demo segments a CT that is generated here; it needs no data."),
      cases.length > 0 && el("h2", {}, "Cases"),
      el("ul", { class: "cases" }, ...cases.map((found) => el("li", {},
        el("button", { type: "button", class: "link", onclick: () => this.calls.open(found) },
          `${new Date(found.created).toLocaleString()} · ${found.predictor}`),
        el("span", { class: `state ${found.state}` }, found.state)))));
    this.show();
  }

  private get predictor(): api.Predictor {
    return this.predictors.find(({ name }) => name === this.select.value) ?? this.predictors[0];
  }

  private demoPredictor(): api.Predictor {
    if (this.predictor.channels.length === 1) return this.predictor;
    return this.predictors.find(({ channels }) => channels.length === 1) ?? this.predictor;
  }

  add(files: File[]): void {
    const usable = files.filter(({ size }) => size > 0);
    const volumes = usable.every(({ name }) => VOLUME.test(name));
    const joins = volumes && this.files.every(({ name }) => VOLUME.test(name)) && this.predictor.channels.length > 1;
    this.files = joins ? [...this.files, ...usable].slice(-this.predictor.channels.length) : usable;
    if (volumes && this.files.length > this.predictor.channels.length) {
      const other = this.predictors.find(({ channels }) => channels.length === this.files.length);
      if (other) this.select.value = other.name;
    }
    this.show();
  }

  private get areVolumes(): boolean {
    return this.files.length > 0 && this.files.every(({ name }) => VOLUME.test(name));
  }

  private fields(): { field: string; file: File }[] {
    const { channels } = this.predictor;
    const chosen = [...this.list.querySelectorAll("select")].map(({ value }) => value);
    return this.files.map((file, k) => ({
      field: this.areVolumes && channels.length > 1 ? (chosen[k] ?? "scan") : "scan", file,
    }));
  }

  private show(): void {
    const { channels, takes_clicks, card, title } = this.predictor;
    this.about.replaceChildren(
      `${channels.join(" and ")}${takes_clicks ? "; clicks correct its lesions" : ""}. `,
      el("button", { type: "button", class: "link", id: "card", onclick: async () =>
        showDialog(el("h2", {}, title), markdown(await api.card(card))) }, "Card"));
    const several = this.areVolumes && channels.length > 1;
    const missing = several ? channels.length - this.files.length : 0;
    const size = this.files.reduce((sum, file) => sum + file.size, 0) / 1e6;
    this.list.replaceChildren(
      ...(this.files.length === 0 ? []
        : this.files.length > 3 ? [el("p", {}, `${this.files.length} files, ${size.toFixed(1)} MB`)]
          : this.files.map((file, k) => {
            const guess = channelOf(file.name, channels);
            const channel = guess < 0 ? k % channels.length : guess;
            return el("div", { class: "file" }, el("span", { class: "name" }, file.name),
              several ? el("select", { "aria-label": "Channel of this file", onchange: () => this.preview() },
                ...channels.map((name, at) => el("option", { selected: at === channel }, name))) : null);
          })));
    if (missing > 0) this.list.append(el("p", { class: "quiet" }, `Add ${missing} more: ${title} takes ${channels.join(" and ")}.`));
    this.start.disabled = this.files.length === 0 || missing > 0;
    this.preview();
  }

  private preview(): void {
    if (!this.areVolumes || this.files.length !== this.predictor.channels.length) return;
    const { channels } = this.predictor;
    const fields = this.fields().map(({ field, file }) => ({ name: channels.length === 1 ? channels[0] : field, file }));
    this.calls.preview(channels.map((name) => fields.find((each) => each.name === name)).filter((each) => each !== undefined));
  }

  private begin(): void {
    this.calls.start({ predictor: this.predictor, files: this.fields(), budget: this.budget.value });
  }
}

