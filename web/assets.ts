/**
 * The built browser code and styles, as a frontend serves them: read once, kept in memory (they are
 * well below a megabyte), compressed at first use. Names carry a hash, so browsers never ask twice.
 */
import * as path from "node:path";
import { z } from "zod";

/** Which files a page of an application needs; written by build.ts. */
export const AssetManifest = z.object({
  entries: z.record(
    z.string(),
    z.object({ script: z.string().nullable(), styles: z.array(z.string()) }),
  ),
});
export type AssetManifest = z.infer<typeof AssetManifest>;

const TYPES: Record<string, string> = {
  ".js": "text/javascript; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".svg": "image/svg+xml",
  ".png": "image/png",
  ".woff2": "font/woff2",
};

export interface Asset {
  readonly type: string;
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** The same, gzipped. */
  readonly gzip: () => Promise<Uint8Array<ArrayBuffer>>;
}

export class Assets {
  /** For tests that look at no page's appearance. */
  static readonly none = new Assets({ entries: {} }, new Map());

  constructor(
    readonly manifest: AssetManifest,
    readonly files: ReadonlyMap<string, Asset>,
  ) {}

  /** Reads a folder that build.ts made. */
  static async load(folder: string): Promise<Assets> {
    let text: string;
    try {
      text = await Deno.readTextFile(path.join(folder, "manifest.json"));
    } catch (cause) {
      throw new Error(`Cannot serve pages: "${folder}" holds no build`, { cause });
    }
    const files = new Map<string, Asset>();
    for await (const entry of Deno.readDir(folder)) {
      const type = TYPES[path.extname(entry.name)];
      if (type === undefined || !entry.isFile) continue;
      const bytes = await Deno.readFile(path.join(folder, entry.name));
      let gzipped: Promise<Uint8Array<ArrayBuffer>> | null = null;
      files.set(entry.name, { type, bytes, gzip: () => gzipped ??= compress(bytes) });
    }
    return new Assets(AssetManifest.parse(JSON.parse(text)), files);
  }

  /** Address of an application's script; null when there is none. */
  script(entry: string): string | null {
    const name = this.manifest.entries[entry]?.script;
    return name ? `/static/${name}` : null;
  }

  styles(entry: string): string[] {
    return (this.manifest.entries[entry]?.styles ?? []).map((name) => `/static/${name}`);
  }
}

/** The folder that a frontend serves: beside this file, or where a packaged PennCloud unpacked it. */
export function assetsFolder(): string {
  return Deno.env.get("PENNCLOUD_ASSETS") ?? path.join(import.meta.dirname ?? ".", "dist");
}

async function compress(bytes: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>> {
  const stream = new Blob([bytes]).stream().pipeThrough(new CompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}
