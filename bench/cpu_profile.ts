/**
 * What V8's sampler saw of a process (`deno run --cpu-prof`): self time by function and by file.
 *
 * A sample is the function that was on top of the stack, once a millisecond. "(program)" is native code
 * and also waiting, which V8 cannot tell apart here, so shares are taken of the time spent in
 * functions and in the garbage collector alone.
 */

export interface CpuProfile {
  readonly nodes: readonly {
    readonly id: number;
    readonly callFrame: {
      readonly functionName: string;
      readonly url: string;
      readonly lineNumber: number;
    };
  }[];
  /** Microseconds since the machine's start, as /proc/uptime counts. */
  readonly startTime: number;
  readonly samples: readonly number[];
  readonly timeDeltas: readonly number[];
}

export interface SelfTime {
  /** `writeAll kv/disk/wal.ts:301`, or a file's name. */
  readonly name: string;
  readonly ms: number;
  /** Of all time in JavaScript, 0 to 1. */
  readonly share: number;
}

const NOT_RUNNING = new Set(["(idle)", "(program)", "(root)"]);

/** Self times, largest first, of the samples between two moments in µs since the machine's start. */
export function selfTimes(
  profile: CpuProfile,
  { fromUs, untilUs, by }: { fromUs: number; untilUs: number; by: "function" | "file" },
): SelfTime[] {
  const names = new Map(
    profile.nodes.map(({ id, callFrame }) => [id, nameOf(callFrame, by)] as const),
  );
  const spentUs = new Map<string, number>();
  let atUs = profile.startTime, totalUs = 0;
  profile.samples.forEach((id, index) => {
    const deltaUs = profile.timeDeltas[index]!;
    atUs += deltaUs;
    const name = names.get(id) ?? "?";
    if (atUs < fromUs || atUs > untilUs || NOT_RUNNING.has(name)) return;
    spentUs.set(name, (spentUs.get(name) ?? 0) + deltaUs);
    totalUs += deltaUs;
  });
  return Array.from(spentUs, ([name, us]) => ({ name, ms: us / 1000, share: us / totalUs }))
    .sort((a, b) => b.ms - a.ms);
}

function nameOf(
  { functionName, url, lineNumber }: CpuProfile["nodes"][number]["callFrame"],
  by: "function" | "file",
): string {
  const file = fileOf(url);
  if (file === "") return functionName === "" ? "(anonymous)" : functionName;
  if (by === "file") return file;
  return `${functionName === "" ? "(anonymous)" : functionName} ${file}:${lineNumber + 1}`;
}

/** The path within the repository or the package; Deno's own and built-in modules by their names. */
function fileOf(url: string): string {
  const place = url.replace(/^file:\/\//, "");
  const [, inPackage] = place.match(/node_modules\/(?!.*node_modules\/)(.*)$/) ?? [];
  if (inPackage !== undefined) return inPackage;
  return place.replace(/^.*\/(?=(?:proto|kv|apps|web|roles|cli)\/)/, "");
}

/** Now, in the time of {@link CpuProfile.startTime}; to within ten milliseconds. */
export function uptimeUs(): number {
  return Number(Deno.readTextFileSync("/proc/uptime").split(" ")[0]) * 1e6;
}

/** The profile that the process `pid` left in `dir` when it ended; null when it left none. */
export async function readProfile(dir: string, pid: number): Promise<CpuProfile | null> {
  for await (const { name } of Deno.readDir(dir)) {
    if (name.endsWith(`.${pid}.cpuprofile`)) {
      return JSON.parse(await Deno.readTextFile(`${dir}/${name}`));
    }
  }
  return null;
}
