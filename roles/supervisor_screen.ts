/**
 * What `penncloud up` shows: one line per step while starting, a table of the nodes, and the line
 * `ready <url>`. With `--json` each of these is one JSON object per line instead.
 */
import { type NodeEntry, opsPort } from "../proto/cluster_config.ts";
import type { SupervisedProcess } from "../proto/supervision.ts";
import { table } from "./table.ts";

export class Screen {
  readonly #json: boolean;
  readonly #startedMs = performance.now();

  constructor(options: { readonly json: boolean }) {
    this.#json = options.json;
  }

  /** One step or event, as a sentence for people and as fields for scripts. */
  say(event: string, sentence: string, fields: Readonly<Record<string, unknown>> = {}): void {
    console.log(this.#json ? JSON.stringify({ event, ...fields }) : sentence);
  }

  nodeReady(name: string, count: { readonly ready: number; readonly all: number }): void {
    const seconds = this.seconds();
    const place = `${count.ready}/${count.all}`.padStart(7);
    this.say("node-ready", `${place}  ${name.padEnd(14)} ready after ${seconds} s`, {
      node: name,
      seconds: Number(seconds),
    });
  }

  nodes(
    entries: readonly { node: NodeEntry; process: SupervisedProcess; logPath: string }[],
  ): void {
    if (this.#json) {
      this.say("nodes", "", { nodes: entries.map((entry) => entry.process) });
      return;
    }
    const rows = entries.map(({ node, process }) => {
      const web = opsPort(node) === node.port;
      return [
        `${node.role}/${node.id}`,
        web ? `http://${node.host}:${node.port}` : `${node.host}:${node.port}`,
        `http://${node.host}:${opsPort(node)}/metrics`,
        String(process.pid ?? "-"),
        process.state,
      ];
    });
    console.log(`\n${table(["NODE", "ADDRESS", "METRICS", "PID", "STATE"], rows)}\n`);
  }

  seconds(): string {
    return ((performance.now() - this.#startedMs) / 1000).toFixed(1);
  }
}
