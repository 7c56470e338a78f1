/**
 * The self-extracting program: a shell script with an archive behind it.
 *
 *     stub         unpacks the archive to $XDG_CACHE_HOME/penncloud/<hash> once, then runs it
 *     tar.gz       deno, program/*.js, web/dist/*
 *
 * It asks for no more than sh, tar, gzip and tail, and works with an empty environment. Several first
 * starts at once each unpack to a folder of their own, and whoever is first gets to name it.
 */
import { basename, dirname, join, relative, resolve } from "node:path";
import * as esbuild from "esbuild";
import { findHiddenModules, plainImports } from "./find_modules.ts";

/** npm packages for Node expect `require` even in a module. */
const REQUIRE_BANNER =
  `import { createRequire as __createRequire } from "node:module"; const require = __createRequire(import.meta.url);`;

export async function buildSingleFile(output: string): Promise<void> {
  const dir = await Deno.makeTempDir({ prefix: "penncloud-build-" });
  try {
    await bundle(join(dir, "program"));
    await copyFolder("web/dist", join(dir, "web/dist"));
    await Deno.copyFile(Deno.execPath(), join(dir, "deno"));
    await Deno.chmod(join(dir, "deno"), 0o755);
    const archive = join(dir, "..", `${basename(dir)}.tar.gz`);
    try {
      await run("tar", ["-czf", archive, "-C", dir, "deno", "program", "web"]);
      await writeProgram(output, await Deno.readFile(archive));
    } finally {
      await Deno.remove(archive).catch(() => {});
    }
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
}

/**
 * All of main.ts and the workers, split where they share code: a process then reads only the parts of
 * the one role it plays. All files lie in one folder, so `import.meta.url` means the same in each.
 */
async function bundle(outdir: string): Promise<void> {
  const root = resolve(".");
  const { workers } = await findHiddenModules();
  try {
    await esbuild.build({
      entryPoints: {
        main: "main.ts",
        ...Object.fromEntries(workers.map((path) => [basename(path, ".ts"), path])),
      },
      outdir,
      bundle: true,
      splitting: true,
      format: "esm",
      platform: "node",
      target: "esnext",
      minifySyntax: true,
      minifyWhitespace: true,
      keepNames: true,
      legalComments: "none",
      loader: { ".toml": "text" },
      // Only a source tree bundles its pages.
      external: ["esbuild"],
      banner: { js: REQUIRE_BANNER },
      chunkNames: "part-[hash]",
      jsx: "automatic",
      jsxImportSource: "preact",
      plugins: [besideEachOther(root)],
      logLevel: "warning",
    });
  } finally {
    await esbuild.stop();
  }
}

/** All bundles lie in one folder, so a worker is beside whoever starts it. */
function besideEachOther(root: string): esbuild.Plugin {
  return {
    name: "plain-imports",
    setup(build) {
      build.onLoad({ filter: /\.tsx?$/ }, async ({ path }) => {
        if (relative(root, path).startsWith("node_modules")) return null;
        const source = await Deno.readTextFile(path), contents = plainImports(source);
        if (contents === source) return null;
        return { contents, loader: path.endsWith("x") ? "tsx" : "ts" };
      });
    },
  };
}

async function writeProgram(output: string, archive: Uint8Array<ArrayBuffer>): Promise<void> {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", archive));
  const stub = new TextEncoder().encode(stubFor(digest.toHex().slice(0, 16)));
  const program = new Uint8Array(stub.length + archive.length);
  program.set(stub);
  program.set(archive, stub.length);
  await Deno.mkdir(dirname(output), { recursive: true });
  // The old one may be running: replace the name, not the bytes under it.
  await Deno.writeFile(`${output}.new`, program, { mode: 0o755 });
  await Deno.rename(`${output}.new`, output);
}

function stubFor(hash: string): string {
  const lines = (count: number) =>
    `#!/bin/sh
# PennCloud in one file. The archive behind this script is unpacked once per version.
PATH=\${PATH:-/usr/local/bin:/usr/bin:/bin}
if [ -n "\${XDG_CACHE_HOME:-}" ]; then cache=$XDG_CACHE_HOME/penncloud
elif [ -n "\${HOME:-}" ]; then cache=$HOME/.cache/penncloud
else cache=/tmp/penncloud-$(id -u); fi
dir=$cache/${hash}
if [ ! -x "$dir/deno" ]; then
  (umask 077 && mkdir -p "$cache") || exit 1
  fresh=$(mktemp -d "$cache/unpacking.XXXXXX") || exit 1
  if ! tail -n +${count} "$0" | tar -xzf - -C "$fresh"; then
    echo "penncloud: cannot unpack to $cache: is the disk full?" >&2
    rm -rf "$fresh"; exit 1
  fi
  mv -T "$fresh" "$dir" 2>/dev/null || rm -rf "$fresh"
fi
PENNCLOUD_ASSETS=$dir/web/dist DENO_DIR=$cache/deno DENO_NO_UPDATE_CHECK=1 DENO_USR2_MEMORY_TRIM=1
export PENNCLOUD_ASSETS DENO_DIR DENO_NO_UPDATE_CHECK DENO_USR2_MEMORY_TRIM
exec "$dir/deno" run -A --quiet --v8-flags=--max-semi-space-size=2,--single-threaded-gc --no-config --no-lock --no-remote "$dir/program/main.js" "$@"
`;
  // The archive begins on the line after the last one.
  return lines(lines(0).split("\n").length);
}

async function copyFolder(from: string, to: string): Promise<void> {
  await Deno.mkdir(to, { recursive: true });
  for await (const entry of Deno.readDir(from)) {
    if (entry.isDirectory) await copyFolder(join(from, entry.name), join(to, entry.name));
    else if (!entry.name.startsWith(".")) {
      await Deno.copyFile(join(from, entry.name), join(to, entry.name));
    }
  }
}

async function run(program: string, args: readonly string[]): Promise<void> {
  const { success, stderr } = await new Deno.Command(program, { args: [...args] }).output();
  if (!success) throw new Error(`${program} failed: ${new TextDecoder().decode(stderr)}`);
}
