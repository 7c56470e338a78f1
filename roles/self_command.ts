/**
 * How this program starts itself again as one of its nodes: from the source tree, from a bundled
 * single file, or as a compiled binary.
 */
import type { Role } from "../proto/cluster_config.ts";

export interface SelfCommand {
  readonly program: string;
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string>>;
}

/** `args` are what a person would type behind `penncloud`. */
export function selfCommand(role: Role, args: readonly string[]): SelfCommand {
  return {
    program: Deno.execPath(),
    args: [...programArgs(), ...args],
    env: {
      ...MEMORY[role],
      // Deno then answers SIGUSR2 by giving memory back; see memory_return.ts.
      DENO_USR2_MEMORY_TRIM: "1",
      DENO_NO_UPDATE_CHECK: "1",
      NO_COLOR: "1",
    },
  };
}

/**
 * Fifteen processes share one machine. A small young generation keeps each one's garbage small, and
 * one collector thread is enough for heaps of this size; threads share one or two heaps of the C
 * library instead of having one each. Processes through which much data passes (backends, frontends,
 * mail) are spared what saves more and costs throughput: up to a third of it.
 */
const BUSY = {
  DENO_V8_FLAGS: "--max-semi-space-size=2,--single-threaded-gc",
  MALLOC_ARENA_MAX: "2",
};
const QUIET = {
  DENO_V8_FLAGS: "--max-semi-space-size=1,--single-threaded-gc,--optimize-for-size",
  MALLOC_ARENA_MAX: "1",
};
/**
 * A password's hash takes 19 MiB for a moment. Without a fixed limit the C library, having given one
 * such piece back to the system, keeps the next ones: 130 MiB after eight logins.
 */
const HASHING = { MALLOC_MMAP_THRESHOLD_: String(8 * 1024 * 1024) };
/**
 * A download frees 4 MiB and takes 4 MiB anew, hundreds of times a second. With a fixed threshold, as
 * above, the C library would give each back to the system, which hands it out again page by page.
 */
const STREAMING = { MALLOC_TRIM_THRESHOLD_: String(16 * 1024 * 1024) };
const MEMORY: Record<Role, Readonly<Record<string, string>>> = {
  coordinator: QUIET,
  backend: BUSY,
  frontend: { ...BUSY, ...HASHING, ...STREAMING },
  balancer: QUIET,
  mail: { ...BUSY, ...HASHING },
};

/**
 * What stands between the program and the arguments. `PENNCLOUD_DENO_FLAGS` adds to it, words apart by
 * blanks, for looking into nodes: `--cpu-prof --cpu-prof-dir=/somewhere`.
 */
function programArgs(): string[] {
  if (Deno.build.standalone) return [];
  const more = Deno.env.get("PENNCLOUD_DENO_FLAGS")?.split(" ").filter((word) => word !== "") ?? [];
  // A bundle has all it needs in it; a deno.json that happens to lie around is not its own.
  const bundled = Deno.mainModule.endsWith(".js");
  const flags = bundled ? ["--no-config", "--no-lock", "--no-remote"] : [];
  return ["run", "-A", "--quiet", "--no-check", ...flags, ...more, Deno.mainModule];
}
