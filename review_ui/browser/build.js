// @ts-check
// Bundles src/ into the file that FiftyOne's App loads, and that of the page before it: `node build.js`, or `node build.js FOLDER` to write it elsewhere.
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = fileURLToPath(new URL(".", import.meta.url));
const folder = process.argv[2] ?? join(here, "..", "plugin");

mkdirSync(folder, { recursive: true });
await build({
  absWorkingDir: here, // comments of the bundle name files from here on, wherever the build is started
  entryPoints: { "index.umd": "src/main.js", opening: "src/open.js", before: "src/before.js" },
  outdir: folder,
  bundle: true,
  format: "iife",
  target: "es2022",
  charset: "utf8",
  banner: { js: "// Built by `make js` from review_ui/browser/src: change it there." },
  logLevel: "warning",
});
