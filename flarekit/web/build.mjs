// Bundles the page into dist/, which goes into the wheel: `make web`.
import { build } from "esbuild";
import { cpSync, existsSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";

rmSync("dist", { recursive: true, force: true });
mkdirSync("dist/assets", { recursive: true });
await build({
  entryPoints: ["src/page.ts", "src/docs.ts"],
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  legalComments: "linked",
  outdir: "dist/assets",
});

// what is bundled, and under which licence it may be
const lock = JSON.parse(readFileSync("package-lock.json", "utf8"));
const bundled = Object.entries(lock.packages).filter(([path, { dev }]) => path && !dev);
const licences = bundled.filter(([path]) => existsSync(path)).map(([path, { version, license }]) => {
  const file = readdirSync(path).find((name) => /^licen[cs]e/i.test(name));
  const text = file ? readFileSync(`${path}/${file}`, "utf8") : "";
  return `${path.replace("node_modules/", "")} ${version} (${license})\n\n${text}`;
});
writeFileSync("dist/assets/licences.txt", licences.join(`\n${"-".repeat(80)}\n\n`));
for (const name of ["index.html", "docs.html"]) cpSync(name, `dist/${name}`);
for (const name of ["style.css", "icon.svg"]) cpSync(name, `dist/assets/${name}`);
