// The description of the API as a page, from /openapi.json.

import { byId, el } from "./dom";

interface Schema { type?: string; description?: string; $ref?: string; anyOf?: Schema[]; items?: Schema; properties?: Record<string, Schema>; enum?: string[]; format?: string }
interface Operation {
  summary?: string; description?: string; parameters?: { name: string; in: string; required?: boolean; schema: Schema }[];
  requestBody?: { content: Record<string, { schema: Schema }> }; responses: Record<string, { description: string; content?: Record<string, { schema?: Schema }> }>;
}

const nameOf = (schema: Schema | undefined): string =>
  !schema ? "" : schema.$ref ? schema.$ref.replace(/.*\//, "") : schema.enum ? schema.enum.join(" | ")
    : schema.anyOf ? schema.anyOf.map(nameOf).join(" or ") : schema.items ? `list of ${nameOf(schema.items)}` : schema.format ?? schema.type ?? "";

function properties(schema: Schema): HTMLElement {
  return el("div", { class: "wide" }, el("table", {}, el("tbody", {}, ...Object.entries(schema.properties ?? {}).map(([name, each]) =>
    el("tr", {}, el("td", {}, el("code", {}, name)), el("td", {}, nameOf(each)), el("td", {}, each.description ?? ""))))));
}

function operation(method: string, path: string, found: Operation): HTMLElement {
  const [kind, body] = Object.entries(found.requestBody?.content ?? {})[0] ?? [];
  return el("section", { class: "operation" },
    el("h2", {}, el("span", { class: `method ${method}` }, method.toUpperCase()), ` ${path}`),
    el("p", {}, found.description ?? found.summary ?? ""),
    found.parameters?.length ? el("p", { class: "quiet" }, `Takes ${found.parameters.map(({ name, in: where }) => `${name} (${where})`).join(", ")}.`) : null,
    body ? el("p", { class: "quiet" }, `Body: ${kind} ${nameOf(body.schema)}`) : null,
    body?.schema.properties ? properties(body.schema) : null,
    el("ul", {}, ...Object.entries(found.responses).map(([status, each]) => el("li", {},
      el("code", {}, status), ` ${nameOf(Object.values(each.content ?? {})[0]?.schema) || each.description}`))));
}

const described = await (await fetch("/openapi.json")).json() as {
  info: { title: string; description: string }; paths: Record<string, Record<string, Operation>>; components: { schemas: Record<string, Schema> };
};
byId("docs").append(
  el("h1", {}, "API"), el("p", {}, described.info.description, " Errors are problem+json: detail says what happened, fix what to do."),
  ...Object.entries(described.paths).flatMap(([path, methods]) => Object.entries(methods).map(([method, found]) => operation(method, path, found))),
  el("h1", {}, "What is in the answers"),
  ...Object.entries(described.components.schemas).map(([name, schema]) =>
    el("section", {}, el("h2", {}, name), schema.description ? el("p", {}, schema.description) : null, properties(schema))));
