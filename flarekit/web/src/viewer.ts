// The viewer: NiiVue with one scan of one or more channels, and a mask in the pictures' colours.

import { DRAG_MODE, MULTIPLANAR_TYPE, NVImage, Niivue, SHOW_RENDER, SLICE_TYPE } from "@niivue/niivue";
import type { Label, Voxel } from "./api";
import { strideFor, thin } from "./thin";

export type View = "all" | "axial" | "coronal" | "sagittal" | "3d";
export interface WindowPreset { name: string; low: number; high: number }
type Point = [number, number, number];

export const VIEWS: [View, string][] = [
  ["all", "All"], ["axial", "Axial"], ["coronal", "Coronal"], ["sagittal", "Sagittal"], ["3d", "3D"],
];
export const CT_WINDOWS: WindowPreset[] = [
  { name: "Soft tissue", low: -160, high: 240 }, { name: "Liver", low: -20, high: 160 },
  { name: "Lung", low: -1350, high: 150 }, { name: "Bone", low: -500, high: 1300 },
  { name: "Brain", low: 0, high: 80 },
];
export const PET_WINDOWS: WindowPreset[] = [
  { name: "SUV 0 to 5", low: 0, high: 5 }, { name: "SUV 0 to 10", low: 0, high: 10 },
  { name: "SUV 0 to 20", low: 0, high: 20 },
];
const TYPES: Record<View, SLICE_TYPE> = {
  all: SLICE_TYPE.MULTIPLANAR, axial: SLICE_TYPE.AXIAL, coronal: SLICE_TYPE.CORONAL,
  sagittal: SLICE_TYPE.SAGITTAL, "3d": SLICE_TYPE.RENDER,
};

export const isUptake = (channel: string): boolean => /pet|suv|pt/i.test(channel);

function colours(labels: Label[], hidden: Set<number>) {
  const sorted = [{ value: 0, colour: "#000000", name: "" }, ...labels].sort((a, b) => a.value - b.value);
  const part = (at: number) => sorted.map(({ colour }) => parseInt(colour.slice(at, at + 2), 16));
  return {
    R: part(1), G: part(3), B: part(5), I: sorted.map(({ value }) => value),
    A: sorted.map(({ value }) => (value === 0 || hidden.has(value) ? 0 : 255)),
    labels: sorted.map(({ name }) => name.replaceAll("_", " ")),
  };
}

export class Viewer {
  private nv: Niivue;
  private channels: { name: string; image: NVImage }[] = [];
  private mask: NVImage | null = null;
  private labels: Label[] = [];
  private view: View = "all";
  private waiting = false;
  private hasGpu = false;
  private stale = true; // the first volume has to be drawn again, not its overlays alone
  isThinned = false;
  private shown = 0; // channel; beyond the last: all of them, fused
  readonly hidden = new Set<number>();
  opacity = 0.55;
  maskVisible = true;
  position: Point | null = null;
  onMove: (mm: Point, values: string) => void = () => {};

  private constructor(private canvas: HTMLCanvasElement) {
    this.nv = new Niivue({
      backColor: [0, 0, 0, 1], crosshairColor: [0.98, 0.75, 0.14, 0.55], crosshairWidth: 0.5,
      isRadiologicalConvention: true, multiplanarShowRender: SHOW_RENDER.NEVER,
      multiplanarLayout: MULTIPLANAR_TYPE.GRID, show3Dcrosshair: false, dragAndDropEnabled: false,
      dragMode: DRAG_MODE.contrast, isColorbar: false, isOrientCube: false, loadingText: "",
      logLevel: "silent", multiplanarPadPixels: 4, fontMinPx: 15, crosshairGap: 4, isNearestInterpolation: false,
      fontColor: [0.85, 0.88, 0.9, 1], isCornerOrientationText: false,
    });
    this.nv.onLocationChange = (location: unknown) => {
      const { mm, values } = location as { mm: number[]; values: { value: number }[] };
      this.position = [mm[0], mm[1], mm[2]];
      const said = values.slice(0, this.channels.length)
        .map(({ value }, k) => `${this.channels[k]?.name ?? ""} ${value.toFixed(isUptake(this.channels[k]?.name ?? "") ? 1 : 0)}`);
      const label = this.mask && values.length > this.channels.length ? values[this.channels.length].value : 0;
      const named = this.labels.find(({ value }) => value === Math.round(label));
      if (named) said.push(named.name.replaceAll("_", " "));
      this.onMove(this.position, said.join(" · "));
    };
  }

  static async on(canvas: HTMLCanvasElement): Promise<Viewer> {
    const viewer = new Viewer(canvas);
    await viewer.nv.attachToCanvas(canvas, false);
    // beside the planes there is room for 3D, which a processor alone draws too slowly
    viewer.hasGpu = !drawsInSoftware(viewer.nv.gl);
    if (viewer.hasGpu) viewer.nv.opts.multiplanarShowRender = SHOW_RENDER.ALWAYS;
    else new ResizeObserver(() => viewer.arrange()).observe(canvas);
    return viewer;
  }

  get hasMask(): boolean { return this.mask !== null; }
  get isEmpty(): boolean { return this.channels.length === 0; }
  get channelNames(): string[] { return this.channels.map(({ name }) => name); }
  get shownChannel(): number { return this.shown; }

  clear(): void {
    this.put([]);
    this.channels = []; this.mask = null; this.labels = []; this.hidden.clear(); this.shown = 0;
    this.position = null; this.isThinned = false;
  }

  /** Show the channels of a scan, from files that NiiVue reads. */
  async load(files: { name: string; file: File }[]): Promise<void> {
    const images = await Promise.all(files.map(async ({ name, file }) => ({
      name, image: await NVImage.loadFromFile({ file, name: file.name, ...this.looks(name) } as never),
    })));
    this.clear();
    this.channels = images;
    images.forEach(({ image }) => this.thinned(image));
    this.put(images.map(({ image }) => image));
    const leading = this.channels.findIndex(({ name }) => isUptake(name));
    this.shown = leading >= 0 && this.channels.length > 1 ? this.channels.length : 0;
    this.stale = true;
    this.setView("all");
  }

  private looks(channel: string) {
    if (isUptake(channel)) return { colormap: "gray", cal_min: 0, cal_max: 10 };
    return channel.toLowerCase() === "ct" ? { colormap: "gray", cal_min: -160, cal_max: 240 } : { colormap: "gray" };
  }

  /** Show one channel, or all of them over each other where the number is their count. */
  show(channel: number): void {
    this.shown = channel;
    this.draw();
  }

  get windows(): WindowPreset[] {
    const name = this.channels[Math.min(this.shown, this.channels.length - 1)]?.name ?? "CT";
    return isUptake(name) && this.shown < this.channels.length ? PET_WINDOWS
      : this.channels[0]?.name.toLowerCase() === "ct" ? CT_WINDOWS : [];
  }

  setWindow({ low, high }: WindowPreset): void {
    const image = this.channels[this.shown < this.channels.length ? this.shown : 0]?.image;
    if (!image) return;
    image.cal_min = low; image.cal_max = high;
    this.draw();
  }

  /** Put a mask over the scan, in place of the one before. */
  async setMask(file: File, labels: Label[]): Promise<void> {
    const image = await NVImage.loadFromFile({ file, name: "mask.nii.gz", opacity: this.opacity } as never);
    this.thinned(image);
    this.labels = labels; this.mask = image;
    this.put([...this.channels.map((each) => each.image), image]);
    this.draw(true);
  }

  private thinned(image: NVImage): void {
    const stride = this.hasGpu ? 1 : strideFor(image.hdr!.dims.slice(1, 4));
    this.isThinned = this.isThinned || stride > 1;
    thin(image, stride);
  }

  /** Show or hide labels, or the whole mask, and take the opacity over. */
  apply(): void { this.draw(true); }

  setView(view: View): void {
    const was = this.view;
    this.view = view;
    this.nv.opts.sliceType = TYPES[view];
    this.arrange();
    if ((was === "3d") !== (view === "3d") || this.stale) this.draw();
    else this.nv.drawScene();
  }

  /** Without 3D the axial plane gets the room. */
  private arrange(): void {
    if (this.hasGpu) return;
    if (this.view !== "all") return this.nv.clearCustomLayout();
    const wide = this.canvas.clientWidth > this.canvas.clientHeight;
    const places: [number, number, number, number][] = wide
      ? [[0, 0, 0.6, 1], [0.6, 0, 0.4, 0.5], [0.6, 0.5, 0.4, 0.5]]
      : [[0, 0, 1, 0.6], [0, 0.6, 0.5, 0.4], [0.5, 0.6, 0.5, 0.4]];
    this.nv.setCustomLayout(places.map((position, sliceType) => ({ sliceType, position })));
  }

  get currentView(): View { return this.view; }

  goTo(mm: Point): void {
    if (this.isEmpty) return;
    this.nv.scene.crosshairPos = this.nv.mm2frac(mm);
    this.nv.drawScene();
    this.nv.createOnLocationChange();
  }

  move(x: number, y: number, z: number): void {
    if (!this.isEmpty) this.nv.moveCrosshairInVox(x, y, z);
  }

  private put(images: NVImage[]): void {
    this.nv.volumes = images;
    this.nv.back = images[0] ?? null;
    this.nv.overlays = images.slice(1);
    if (images.length === 0) this.nv.updateGLVolume();
  }

  /** Give every volume its looks, and draw once, with the next frame. */
  private draw(onlyMask = false): void {
    if (this.isEmpty) return;
    this.stale = this.stale || !onlyMask;
    const fused = this.shown >= this.channels.length;
    const in3d = this.view === "3d" && this.mask !== null;
    this.channels.forEach(({ name, image }, k) => {
      const colormap = fused && isUptake(name) ? "hot" : "gray";
      if (image.colormap !== colormap) image.colormap = colormap;
      const usual = fused ? (k === 0 ? 1 : 0.5) : k === this.shown ? 1 : 0;
      image.opacity = in3d ? (k === 0 ? 0.08 : 0) : usual;
    });
    if (this.mask) {
      this.mask.setColormapLabel(colours(this.labels, this.hidden));
      this.mask.opacity = this.maskVisible ? (in3d ? 1 : this.opacity) : 0;
    }
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      const whole = this.stale || this.view === "3d";
      this.waiting = this.stale = false;
      if (whole) return this.nv.updateGLVolume();
      this.nv.volumes.forEach((volume, layer) => layer > 0 && this.nv.refreshLayers(volume, layer));
      this.nv.drawScene();
      if (this.position) this.nv.createOnLocationChange();
    });
  }

  /** Call back with the place of a click that is none of a drag. */
  onClick(told: (mm: Point) => void): void {
    let at: [number, number] | null = null;
    this.canvas.addEventListener("pointerdown", (event) => { at = [event.clientX, event.clientY]; });
    this.canvas.addEventListener("pointerup", (event) => {
      const still = at && Math.hypot(event.clientX - at[0], event.clientY - at[1]) < 5;
      at = null;
      if (still && event.button === 0) setTimeout(() => this.position && told(this.position), 30);
    });
  }
}

function drawsInSoftware(gl: WebGL2RenderingContext): boolean {
  const told = gl.getExtension("WEBGL_debug_renderer_info");
  const renderer = String(gl.getParameter(told ? told.UNMASKED_RENDERER_WEBGL : gl.RENDERER));
  return /swiftshader|llvmpipe|software|basic render/i.test(renderer);
}

/** Return the voxel of a mask at a place, by its affine; null outside. */
export function voxelAt(mm: Point, affine: number[][], shape: Voxel): Voxel | null {
  const [a, b, c] = affine[0], [d, e, f] = affine[1], [g, h, i] = affine[2];
  const p = mm.map((value, k) => value - affine[k][3]);
  const A = e * i - f * h, B = f * g - d * i, C = d * h - e * g;
  const determinant = a * A + b * B + c * C;
  const found = [
    A * p[0] + (c * h - b * i) * p[1] + (b * f - c * e) * p[2],
    B * p[0] + (a * i - c * g) * p[1] + (c * d - a * f) * p[2],
    C * p[0] + (b * g - a * h) * p[1] + (a * e - b * d) * p[2],
  ].map((value) => Math.round(value / determinant));
  return found.every((value, k) => value >= 0 && value < shape[k]) ? (found as Voxel) : null;
}
