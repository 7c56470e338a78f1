/**
 * Structured lines on stderr: one JSON object each, with time, level, node and event, then the
 * event's own fields.
 *
 *     {"time":"2026-01-02T03:04:05.678Z","level":"info","node":"backend/4","event":"ready","port":10004}
 *
 * `PENNCLOUD_LOG` sets the least level that is written: debug, info (the default), warning, error or
 * off. Lines are written whole and at once, so the last one before a crash is there too. A logging
 * library would do the same for 8 MiB more in each of sixteen processes.
 */
import type { LogFields } from "../kv/env.ts";

export const LOG_LEVELS = ["debug", "info", "warning", "error", "off"] as const;
export type LogLevel = Exclude<typeof LOG_LEVELS[number], "off">;

export type Log = (level: LogLevel, event: string, fields?: LogFields) => void;

export interface LogOptions {
  /** `backend/4` */
  readonly node: string;
  /** What `PENNCLOUD_LOG` says; read from the environment when absent. */
  readonly threshold?: string | undefined;
  readonly write?: (line: string) => void;
}

const FIELD_LENGTH_MAX = 4096;
/** A field cannot pass itself off as one of these. */
const OWN_FIELDS: ReadonlySet<string> = new Set(["time", "level", "node", "event"]);
const utf8Encoder = new TextEncoder();

export function openLog(options: LogOptions): Log {
  const { node, write = writeToStderr } = options;
  const threshold = thresholdIndex(options.threshold ?? Deno.env.get("PENNCLOUD_LOG"));
  return (level, event, fields = {}) => {
    if (LOG_LEVELS.indexOf(level) < threshold) return;
    const line: Record<string, unknown> = { time: new Date().toISOString(), level, node, event };
    for (const [name, value] of Object.entries(fields)) {
      if (OWN_FIELDS.has(name)) continue;
      const long = typeof value === "string" && value.length > FIELD_LENGTH_MAX;
      line[name] = long ? value.slice(0, FIELD_LENGTH_MAX) + "…" : value;
    }
    write(JSON.stringify(line) + "\n");
  };
}

function thresholdIndex(name: string | undefined): number {
  const index = (LOG_LEVELS as readonly string[]).indexOf(name ?? "info");
  return index === -1 ? LOG_LEVELS.indexOf("info") : index;
}

function writeToStderr(line: string): void {
  try {
    for (let rest = utf8Encoder.encode(line); rest.length > 0;) {
      rest = rest.subarray(Deno.stderr.writeSync(rest));
    }
  } catch {
    // Nobody reads our errors any more. That is no reason to stop serving.
  }
}
