/**
 * `deno task sim [--seeds N] [--start S] [--json]`: the simulator over many seeds. Prints what was run and
 * what broke; exits 1 on a violation, with the seed, what happened last and the command that
 * replays it.
 */
import { parseArgs } from "node:util";
import { GroupSim, type SimResult } from "./group_sim.ts";

const { values } = parseArgs({
  options: {
    seeds: { type: "string", default: "100" },
    start: { type: "string", default: "1" },
    json: { type: "boolean", default: false },
  },
});

function wholeNumber(name: "seeds" | "start"): number {
  const number = Number(values[name]);
  if (Number.isSafeInteger(number) && number >= 1) return number;
  console.error(`--${name} takes a whole number from 1 on, not "${values[name]}"`);
  Deno.exit(2);
}

/** Every seed also draws the shape of the group. */
export const shapeOf = (seed: number) => ({
  seed,
  replicas: seed % 4 === 3 ? 4 : 3,
  minInSync: seed % 5 === 4 ? 1 : 2,
});

if (import.meta.main) {
  const seeds = wholeNumber("seeds"), start = wholeNumber("start");
  const totals: Record<string, number> = {};
  const violations: { seed: number; message: string }[] = [];
  const startedMs = performance.now();
  for (let seed = start; seed < start + seeds; seed++) {
    const sim = new GroupSim(shapeOf(seed));
    try {
      count(totals, sim.run());
    } catch (error) {
      const { message } = error as Error;
      violations.push({ seed, message });
      console.error(sim.trace.slice(-40).join("\n"));
      console.error(`seed ${seed}: ${message}\nreplay: deno task sim --start ${seed} --seeds 1`);
    }
  }
  const seconds = (performance.now() - startedMs) / 1000;
  const simulatedSeconds = seeds * 40;
  const perSecond = Math.round((totals.steps ?? 0) / seconds);
  if (values.json) {
    console.log(JSON.stringify({ seeds, start, seconds, simulatedSeconds, totals, violations }));
  } else {
    console.log(`${seeds} seeds from ${start}, ${violations.length} violations`);
    for (const [name, value] of Object.entries(totals)) {
      console.log(`  ${name.padEnd(12)} ${value}`);
    }
    console.log(
      `${seconds.toFixed(1)} s: ${(simulatedSeconds / seconds).toFixed(0)} simulated seconds and ` +
        `${perSecond} steps a second`,
    );
  }
  Deno.exit(violations.length === 0 ? 0 : 1);
}

function count(totals: Record<string, number>, result: SimResult): void {
  for (const [name, value] of Object.entries(result)) {
    if (typeof value === "number") totals[name] = (totals[name] ?? 0) + value;
  }
}
