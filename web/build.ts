/**
 * Bundles the browser code and the styles into `web/dist`, under names that carry a hash, so that
 * browsers may keep them for ever. `manifest.json`, written last, says what belongs to which page.
 *
 *     deno run -A web/build.ts            builds if something is newer than the last build
 *
 * Each `web/browser/<app>.tsx` is the start of one application; what it imports of `.css` becomes a
 * style sheet beside it. Not needed at run time once `web/dist` exists: a packaged PennCloud brings
 * its own and no sources.
 */
import * as path from "node:path";
import { AssetManifest } from "./assets.ts";

const WEB = import.meta.dirname ?? ".";
const DIST = path.join(WEB, "dist");
const MANIFEST = path.join(DIST, "manifest.json");

/** Builds when the last build is older than a source. Several processes may call it at once. */
export async function ensureBuilt(): Promise<void> {
  if (await isFresh()) return;
  await Deno.mkdir(DIST, { recursive: true });
  using lock = await Deno.open(path.join(DIST, ".lock"), { create: true, write: true });
  await lock.lock(true);
  try {
    // Somebody else may have built while we waited.
    if (!await isFresh()) await build();
  } finally {
    await lock.unlock();
  }
}

async function isFresh(): Promise<boolean> {
  const built = await modifiedMs(MANIFEST);
  if (built === null) return false;
  const sources = ["ui", "browser", "pages/pages.css", "build.ts"].map((it) => path.join(WEB, it));
  for (const source of sources) {
    if (await newestMs(source) > built) return false;
  }
  return true;
}

async function modifiedMs(file: string): Promise<number | null> {
  try {
    return (await Deno.stat(file)).mtime?.getTime() ?? null;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return null;
    throw error;
  }
}

/** The newest change at or below a path, folders included, since a deletion only shows there. */
async function newestMs(place: string): Promise<number> {
  const own = await modifiedMs(place);
  if (own === null) return 0;
  let newest = own;
  if (!(await Deno.stat(place)).isDirectory) return newest;
  for await (const entry of Deno.readDir(place)) {
    newest = Math.max(newest, await newestMs(path.join(place, entry.name)));
  }
  return newest;
}

async function build(): Promise<void> {
  // Loaded here alone: a process that finds everything built does not pay for it.
  const esbuild = await import("esbuild");
  const entries = await entryPoints();
  const startedMs = Date.now();
  const result = await esbuild.build({
    entryPoints: entries,
    outdir: DIST,
    absWorkingDir: path.dirname(WEB),
    // The tests have their own folder of packages; either may be the only one there.
    nodePaths: [path.join(WEB, "../node_modules"), path.join(WEB, "../tests/node_modules")],
    bundle: true,
    splitting: true,
    minify: true,
    format: "esm",
    target: "es2022",
    platform: "browser",
    // Light-dark colours and nesting stay as written: all browsers of today know them.
    supported: { nesting: true },
    jsx: "automatic",
    jsxImportSource: "preact",
    entryNames: "[name]-[hash]",
    chunkNames: "shared-[hash]",
    assetNames: "[name]-[hash]",
    loader: { ".svg": "file", ".png": "file", ".woff2": "file" },
    metafile: true,
    logLevel: "silent",
  }).finally(() => esbuild.stop());

  await Deno.copyFile(path.join(WEB, "ui/icons/sprite.svg"), path.join(DIST, "icons.svg"));
  await Deno.copyFile(path.join(WEB, "ui/favicon.svg"), path.join(DIST, "favicon.svg"));
  const manifest = AssetManifest.parse(describeOutputs(result.metafile.outputs, entries));
  const draft = `${MANIFEST}.${crypto.randomUUID()}`;
  await Deno.writeTextFile(draft, JSON.stringify(manifest, null, 2));
  await Deno.rename(draft, MANIFEST);
  await removeStale(new Set(Object.keys(result.metafile.outputs).map((out) => path.basename(out))));
  console.error(`Bundled the pages in ${Date.now() - startedMs} ms`);
}

async function entryPoints(): Promise<Record<string, string>> {
  const entries: Record<string, string> = {
    components: path.join(WEB, "ui/components.css"),
    pages: path.join(WEB, "pages/pages.css"),
  };
  for await (const entry of Deno.readDir(path.join(WEB, "browser"))) {
    const name = path.basename(entry.name, ".tsx");
    if (entry.name.endsWith(".tsx")) entries[name] = path.join(WEB, "browser", entry.name);
  }
  return entries;
}

type Outputs = Record<
  string,
  { entryPoint?: string; cssBundle?: string; imports: { path: string }[] }
>;

function describeOutputs(outputs: Outputs, entries: Record<string, string>): AssetManifest {
  const manifest: AssetManifest = { entries: {} };
  for (const [name, source] of Object.entries(entries)) {
    const wanted = path.relative(path.dirname(WEB), source);
    for (const [file, output] of Object.entries(outputs)) {
      if (output.entryPoint !== wanted) continue;
      const styles = file.endsWith(".css") ? [file] : output.cssBundle ? [output.cssBundle] : [];
      manifest.entries[name] = {
        script: file.endsWith(".js") ? path.basename(file) : null,
        styles: styles.map((style) => path.basename(style)),
      };
    }
  }
  return manifest;
}

/** Bundles of a day ago may still be asked for by open pages; older ones go. */
async function removeStale(current: ReadonlySet<string>): Promise<void> {
  const dayAgoMs = Date.now() - 24 * 60 * 60_000;
  for await (const entry of Deno.readDir(DIST)) {
    if (!/-[A-Z0-9]{8}\.\w+$/.test(entry.name) || current.has(entry.name)) continue;
    const file = path.join(DIST, entry.name);
    if ((await modifiedMs(file) ?? 0) < dayAgoMs) await Deno.remove(file);
  }
}

if (import.meta.main) await ensureBuilt();
