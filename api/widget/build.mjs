// Builds the widget (script tag and ES module) and the pages into ../web/static, and writes the hash of
// the sources, by which a test sees that the committed build is the one of the committed sources.
import { createHash } from "node:crypto";
import { copyFileSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "vite";

const BUNDLED = ["lit", "lit-html", "lit-element", "@lit/reactive-element", "marked", "dompurify"];
const BANNER = "/*! ChatGGLM widget, Apache-2.0. With Lit (BSD-3-Clause), marked (MIT) and DOMPurify (Apache-2.0 or MPL-2.0): widget-licenses.txt */";

const root = dirname(fileURLToPath(import.meta.url));
const out = join(root, "../web/static");

const outputs = [
  ["src/script.ts", "iife", "widget.js"],
  ["src/index.ts", "es", "widget.mjs"],
  ["pages/home.ts", "es", "home.js"],
  ["pages/viewer.ts", "es", "viewer.js"],
];

rmSync(out, { recursive: true, force: true });
mkdirSync(out, { recursive: true });
for (const name of files(join(root, "public"))) copyFileSync(name, join(out, relative(join(root, "public"), name)));
for (const [entry, format, fileName] of outputs) {
  await build({
    root,
    configFile: false,
    publicDir: false,
    logLevel: "warn",
    define: { "process.env.NODE_ENV": JSON.stringify("production") },
    build: {
      target: "es2022",
      outDir: out,
      emptyOutDir: false,
      rolldownOptions: { output: { minify: true, comments: false, postBanner: fileName.startsWith("widget") ? BANNER : "" } },
      lib: { entry: join(root, entry), name: "ChatGGLMWidget", formats: [format], fileName: () => fileName },
    },
  });
}
writeFileSync(join(out, "widget-licenses.txt"), BUNDLED.map(licence).join("\n\n"));
writeFileSync(join(out, "build.json"), JSON.stringify({ sources: sourceHash() }) + "\n");

/** SHA-256 over the names and bytes of what is built, in the order of the names. */
function sourceHash() {
  const hash = createHash("sha256");
  const names = ["src", "pages", "public"].flatMap((folder) => files(join(root, folder)));
  names.push(join(root, "package-lock.json"));
  for (const name of names.map((n) => relative(root, n).replaceAll("\\", "/")).sort()) {
    hash.update(name).update("\0").update(readFileSync(join(root, name))).update("\0");
  }
  return hash.digest("hex");
}

/** Name, version and licence text of a library inside the widget. */
function licence(name) {
  const folder = join(root, "node_modules", name);
  const { version, license } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
  const file = readdirSync(folder).find((f) => /^licen[cs]e/i.test(f));
  return `${name} ${version} (${license})\n\n${readFileSync(join(folder, file), "utf8").trim()}\n`;
}

function files(folder) {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name));
}
