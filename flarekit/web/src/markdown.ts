// Enough of Markdown for a predictor's card, made of elements: nothing in it becomes markup.

import { el } from "./dom";

function inline(text: string): (Node | string)[] {
  return text.split(/(`[^`]+`|\*\*[^*]+\*\*)/).filter(Boolean).map((part) =>
    part.startsWith("`") ? el("code", {}, part.slice(1, -1))
      : part.startsWith("**") ? el("strong", {}, part.slice(2, -2)) : part);
}

const cells = (line: string): string[] => line.replace(/^\||\|\s*$/g, "").split("|").map((cell) => cell.trim());

/** Return the elements of a Markdown text: headings, paragraphs, lists, tables, code. */
export function markdown(text: string): HTMLElement {
  const root = el("article", { class: "card" });
  const lines = text.split("\n");
  for (let k = 0; k < lines.length; k++) {
    const line = lines[k];
    const heading = /^(#{1,4})\s+(.*)/.exec(line);
    const take = (test: RegExp): string[] => {
      const taken: string[] = [];
      while (k < lines.length && test.test(lines[k])) taken.push(lines[k++]);
      k--;
      return taken;
    };
    if (heading) root.append(el(`h${heading[1].length + 1}`, {}, ...inline(heading[2])));
    else if (line.startsWith("```")) {
      const from = ++k;
      while (k < lines.length && !lines[k].startsWith("```")) k++;
      root.append(el("pre", {}, lines.slice(from, k).join("\n")));
    } else if (line.startsWith("|")) {
      const [head, , ...rows] = take(/^\|/);
      root.append(el("div", { class: "wide" }, el("table", {},
        el("thead", {}, el("tr", {}, ...cells(head).map((cell) => el("th", {}, ...inline(cell))))),
        el("tbody", {}, ...rows.map((row) => el("tr", {}, ...cells(row).map((cell) => el("td", {}, ...inline(cell)))))))));
    } else if (/^\s*[-*]\s/.test(line)) {
      root.append(el("ul", {}, ...take(/^\s*[-*]\s|^\s{2,}\S/).join("\n").split(/\n?\s*[-*]\s+/)
        .filter(Boolean).map((item) => el("li", {}, ...inline(item.replace(/\n\s*/g, " "))))));
    } else if (line.trim()) root.append(el("p", {}, ...inline(take(/^[^#|`\-\s]|^\s?\S/).join(" "))));
  }
  return root;
}
