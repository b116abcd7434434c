// The API of the service, typed. The token travels in a header and lives as long as the tab.

export interface Label { name: string; value: number; colour: string }
export interface Predictor {
  name: string; title: string; channels: string[]; labels: Label[]; takes_clicks: boolean; card: string;
}
export type Voxel = [number, number, number];
export interface Clicks { tumor: Voxel[]; background: Voxel[] }
export interface Result {
  labels: Record<string, string>; volumes_ml: Record<string, number>; shape: Voxel;
  affine: number[][]; seconds: number; stage_seconds: Record<string, number>; traded: string[];
  warnings: string[]; memory: [number, number][]; engine: string; device: string;
  device_name: string; precision: string; refined_s?: number;
}
export interface Case {
  id: string; state: "waiting" | "running" | "done" | "failed" | "cancelled"; place: number | null;
  step: string | null; tiles: { done: number; total: number } | null; predictor: string;
  channels: string[]; created: string; expires: string; revision: number; is_dicom: boolean;
  takes_clicks: boolean; clicks: Clicks; result: Result | null;
  error: { message: string; fix: string } | null;
}
export interface Statistics {
  label: string; value: number; volume_ml: number; components: number;
  intensities: Record<string, [number, number] | null>;
  centroid_mm_ras: [number, number, number] | null; touches_edge: boolean; flags: string[];
}

export class Problem extends Error {
  constructor(readonly status: number, message: string, readonly fix: string) { super(message); }
}

const KEPT = "flarekit-token";
let askForToken: () => Promise<string | null> = async () => null;

/** Tell how to ask the user for a token, for services that need one. */
export function onTokenNeeded(ask: () => Promise<string | null>): void { askForToken = ask; }

function headers(): Record<string, string> {
  const token = sessionStorage.getItem(KEPT);
  return token ? { Authorization: `Bearer ${token}` } : {};
}

async function problemOf(response: Response): Promise<Problem> {
  try {
    const content = await response.json();
    return new Problem(response.status, String(content.detail), String(content.fix));
  } catch {
    return new Problem(response.status, `the service answered ${response.status}`, "try again");
  }
}

async function ask(path: string, options: RequestInit = {}): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(path, { ...options, headers: { ...headers(), ...options.headers } });
  } catch {
    throw new Problem(0, "the service does not answer", "check that flarekit serve still runs");
  }
  if (response.status === 401) {
    const token = await askForToken();
    if (token !== null) {
      sessionStorage.setItem(KEPT, token);
      return ask(path, options);
    }
  }
  if (!response.ok) throw await problemOf(response);
  return response;
}

const json = (body: unknown): RequestInit => ({
  method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" },
});

export const predictors = async (): Promise<Predictor[]> => (await ask("/v1/predictors")).json();
export const card = async (path: string): Promise<string> => (await ask(path)).text();
export const cases = async (): Promise<Case[]> => (await ask("/v1/cases")).json();
export const caseOf = async (id: string): Promise<Case> => (await ask(`/v1/cases/${id}`)).json();
export const demo = async (predictor: string): Promise<Case> =>
  (await ask("/v1/demo", json({ predictor }))).json();
export const cancel = async (id: string): Promise<Case> =>
  (await ask(`/v1/cases/${id}/cancel`, { method: "POST" })).json();
export const remove = async (id: string): Promise<void> => {
  await ask(`/v1/cases/${id}`, { method: "DELETE" });
};
export const click = async (id: string, clicks: Clicks): Promise<Case> =>
  (await ask(`/v1/cases/${id}/clicks`, json(clicks))).json();
export const statistics = async (id: string): Promise<Statistics[]> =>
  (await ask(`/v1/cases/${id}/statistics`)).json();

/** Fetch a file of a case, under the name that the service gives it. */
export async function file(id: string, what: string): Promise<File> {
  const response = await ask(`/v1/cases/${id}/${what}`);
  const stated = response.headers.get("Content-Disposition") ?? "";
  const name = /filename="([^"]+)"/.exec(stated)?.[1] ?? what.replace(/\?.*/, "");
  return new File([await response.blob()], name);
}

/** Upload a scan; XMLHttpRequest, because fetch does not tell how much was sent. */
export function upload(
  files: { field: string; file: File }[],
  fields: Record<string, string>,
  told: (share: number) => void,
): Promise<Case> {
  const form = new FormData();
  for (const [name, value] of Object.entries(fields)) form.append(name, value);
  for (const { field, file } of files) form.append(field, file, file.name);
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", "/v1/cases");
    for (const [name, value] of Object.entries(headers())) request.setRequestHeader(name, value);
    request.upload.onprogress = (event) => told(event.total ? event.loaded / event.total : 0);
    request.onerror = () =>
      reject(new Problem(0, "the upload was cut off", "check that flarekit serve still runs"));
    request.onload = () => {
      const content = JSON.parse(request.responseText || "{}");
      if (request.status === 202) resolve(content as Case);
      else reject(new Problem(request.status, String(content.detail), String(content.fix)));
    };
    request.send(form);
  });
}

/** Follow a case line by line until it is over. */
export async function follow(id: string, told: (found: Case) => void, signal: AbortSignal): Promise<void> {
  const response = await ask(`/v1/cases/${id}/events`, { signal });
  const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) if (line) told(JSON.parse(line) as Case);
  }
}
