// Elements made in code: text is always text, never markup.

type Child = Node | string | null | undefined | false;
type Attributes = Record<string, string | number | boolean | EventListener | null | undefined>;

const SVG = "http://www.w3.org/2000/svg";
const SVG_TAGS = new Set(["svg", "path", "rect", "line", "text", "polyline", "g", "title"]);

/** Make an element; attributes that begin with "on" are listeners. */
export function el<T extends Element = HTMLElement>(
  tag: string,
  attributes: Attributes = {},
  ...children: Child[]
): T {
  const node = SVG_TAGS.has(tag) ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) {
      node.setAttribute(name, String(value));
    }
  }
  node.append(...children.filter((child): child is Node | string => Boolean(child)));
  return node as unknown as T;
}

export function byId<T extends HTMLElement = HTMLElement>(id: string): T {
  const found = document.getElementById(id);
  if (found === null) throw new Error(`no element ${id}`);
  return found as T;
}

/** Show something in the dialog of the page. */
export function showDialog(...content: Child[]): void {
  byId("dialog-content").replaceChildren(...content.filter((each): each is Node => Boolean(each)));
  byId<HTMLDialogElement>("dialog").showModal();
}

export function readable(name: string): string {
  const text = name.replaceAll("_", " ");
  return text.charAt(0).toUpperCase() + text.slice(1);
}
