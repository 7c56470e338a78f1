/**
 * One node as its supervisor sees it: a child process that is started again whenever it ends, unless
 * somebody wanted it to end.
 *
 * The child's standard input is its lifeline. Closing it asks the child to stop; and when the
 * supervisor dies, however it dies, the system closes it, so no child outlives its supervisor.
 * SIGTERM asks for a drain: hand over first, then stop.
 */
import type { NodeEntry } from "../proto/cluster_config.ts";
import type { ProcessState, SupervisedProcess } from "../proto/supervision.ts";
import type { SelfCommand } from "./self_command.ts";
import { NodeLog } from "./supervisor_log.ts";

const FIRST_BACKOFF_MS = 200;
const BACKOFF_MS_MAX = 10_000;
/**
 * Who lived this long is healthy again: its next crash counts as the first. Long enough that starting
 * over and over takes little of a machine, and no longer: a back-off is time in which a replica, or the
 * coordinator, is missing.
 */
const HEALTHY_AFTER_MS = 10_000;
/** How long a child may take to stop before it is killed. */
const SHUTDOWN_GRACE_MS = 5_000;
/** Long enough after the start for the garbage of loading and connecting to be garbage. */
const TRIM_AFTER_READY_MS = 3_000;
/** Handing over primaries takes longer than closing. */
const DRAIN_GRACE_MS = 30_000;

export interface ExitReport {
  readonly node: NodeEntry;
  readonly spawn: string;
  readonly exit: string;
  /** Nobody asked for it. */
  readonly crashed: boolean;
  /** Milliseconds until it is started again; null when it stays down. */
  readonly restartInMs: number | null;
  /** By the process's own last words; null when it gave none. */
  readonly reason: string | null;
}

export interface SupervisedNodeOptions {
  readonly node: NodeEntry;
  readonly command: SelfCommand;
  readonly logPath: string;
  /** {@link HEALTHY_AFTER_MS} when absent. */
  readonly healthyAfterMs?: number;
  /** Called when a process was started: it is running, but not ready. */
  readonly onStarting?: (node: SupervisedNode) => void;
  /** Called the moment the process is gone: whoever waits for its end should hear of it now. */
  readonly onGone: (gone: { readonly node: NodeEntry; readonly spawn: string }) => void;
  /** Called shortly after, when its last words are in. */
  readonly onExit: (report: ExitReport) => void;
}

interface Life {
  readonly process: Deno.ChildProcess;
  readonly spawn: string;
  readonly startedMs: number;
  readonly lifeline: WritableStream<Uint8Array>;
  readonly gone: Promise<void>;
}

export class SupervisedNode {
  readonly node: NodeEntry;
  readonly name: string;
  readonly #options: SupervisedNodeOptions;
  readonly #log: NodeLog;
  #life: Life | null = null;
  #state: ProcessState = "stopped";
  #sinceMs = Date.now();
  #backoffMs = FIRST_BACKOFF_MS;
  #restartTimer: ReturnType<typeof setTimeout> | undefined;
  #trimTimer: ReturnType<typeof setTimeout> | undefined;
  #restarts = 0;
  #lastExit: string | null = null;

  constructor(options: SupervisedNodeOptions) {
    this.#options = options;
    this.node = options.node;
    this.name = `${options.node.role}/${options.node.id}`;
    this.#log = new NodeLog(options.logPath);
  }

  get state(): ProcessState {
    return this.#state;
  }

  get logPath(): string {
    return this.#log.path;
  }

  /** Starts the process if it does not run. */
  start(): void {
    clearTimeout(this.#restartTimer);
    if (this.#life !== null) return;
    this.#enter("starting");
    this.#log.forget();
    const spawn = crypto.randomUUID();
    const { program, args, env } = this.#options.command;
    let process: Deno.ChildProcess;
    try {
      process = new Deno.Command(program, {
        args: [...args],
        env: { ...env, PENNCLOUD_SPAWN: spawn },
        stdin: "piped",
        stdout: "piped",
        stderr: "piped",
      }).spawn();
    } catch (error) {
      this.#afterExit(spawn, `could not be started: ${(error as Error).message}`, 0);
      return;
    }
    const startedMs = Date.now();
    const outputs = Promise.allSettled([
      this.#log.copyFrom(process.stdout),
      this.#log.copyFrom(process.stderr),
    ]);
    const gone = process.status.then(async (status) => {
      this.#options.onGone({ node: this.node, spawn });
      // A grandchild could keep an output open; the process's own last words are in by then.
      await Promise.race([outputs, new Promise((resolve) => setTimeout(resolve, 200))]);
      this.#life = null;
      clearTimeout(this.#trimTimer);
      this.#afterExit(spawn, describeExit(status), Date.now() - startedMs);
    });
    this.#life = { process, spawn, startedMs, lifeline: process.stdin, gone };
    this.#options.onStarting?.(this);
  }

  /** `/readyz` says yes. */
  markReady(): void {
    if (this.#state !== "starting" || this.#life === null) return;
    this.#enter("running");
    const { spawn } = this.#life;
    this.#trimTimer = setTimeout(() => this.#trimMemory(spawn), TRIM_AFTER_READY_MS);
  }

  /**
   * Asks the process to collect its garbage and give the memory back: what it took to load the program
   * is a tenth of what it holds. Only for processes that said they are ready, and so can listen. The
   * collection stops a process for up to half a second, and a write waits for every backend: those do
   * it themselves, before they take part (see backend.ts).
   */
  #trimMemory(spawn: string): void {
    if (this.node.role === "backend" || this.#life?.spawn !== spawn) return;
    if (this.#options.command.env.DENO_USR2_MEMORY_TRIM === "1") {
      this.#signal("SIGUSR2");
    }
  }

  /** SIGKILL, and stays down. Resolves when the process is gone. */
  async kill(): Promise<void> {
    this.#wantDown("stopped");
    this.#signal("SIGKILL");
    await this.#life?.gone;
  }

  /** Asks for a hand-over; the process stops when it has nothing left, at the latest after 30 s. */
  drain(): void {
    if (this.#life === null) {
      this.#wantDown("stopped");
      return;
    }
    this.#wantDown("draining");
    this.#signal("SIGTERM");
    void this.#killAfter(this.#life, DRAIN_GRACE_MS);
  }

  /** Asks the process to stop and waits until it has; kills it after the grace time. */
  async shutDown(graceMs = SHUTDOWN_GRACE_MS): Promise<void> {
    this.#wantDown("stopped");
    const life = this.#life;
    if (life === null) return;
    life.lifeline.close().catch(() => {}); // already closed: it is on its way
    await this.#killAfter(life, graceMs);
  }

  /** Ends the process in good order if it runs, then starts it. */
  async restart(): Promise<void> {
    await this.shutDown();
    this.#backoffMs = FIRST_BACKOFF_MS;
    this.start();
  }

  describe(): SupervisedProcess {
    const { role, id, port } = this.node;
    return {
      role,
      id,
      port,
      state: this.#state,
      sinceMs: this.#sinceMs,
      pid: this.#life?.process.pid ?? null,
      spawn: this.#life?.spawn ?? null,
      restarts: this.#restarts,
      lastExit: this.#lastExit,
    };
  }

  close(): void {
    clearTimeout(this.#restartTimer);
    clearTimeout(this.#trimTimer);
    this.#log.close();
  }

  #wantDown(state: ProcessState): void {
    clearTimeout(this.#restartTimer);
    this.#enter(state);
  }

  #enter(state: ProcessState): void {
    if (this.#state !== state) this.#sinceMs = Date.now();
    this.#state = state;
  }

  #signal(signal: Deno.Signal): void {
    try {
      this.#life?.process.kill(signal);
    } catch {
      // It went by itself a moment ago; its exit is on the way to us.
    }
  }

  async #killAfter(life: Life, graceMs: number): Promise<void> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise<"late">((resolve) => {
      timer = setTimeout(() => resolve("late"), graceMs);
    });
    const first = await Promise.race([life.gone, late]);
    clearTimeout(timer);
    if (first === "late" && this.#life === life) this.#signal("SIGKILL");
    await life.gone;
  }

  #afterExit(spawn: string, exit: string, livedMs: number): void {
    this.#lastExit = exit;
    const crashed = this.#state === "starting" || this.#state === "running" ||
      this.#state === "waiting";
    let restartInMs: number | null = null;
    if (crashed) {
      const { healthyAfterMs = HEALTHY_AFTER_MS } = this.#options;
      if (livedMs >= healthyAfterMs) this.#backoffMs = FIRST_BACKOFF_MS;
      restartInMs = this.#backoffMs;
      this.#backoffMs = Math.min(this.#backoffMs * 2, BACKOFF_MS_MAX);
      this.#enter("waiting");
      this.#restartTimer = setTimeout(() => {
        this.#restarts++;
        this.start();
      }, restartInMs);
    } else {
      this.#enter("stopped");
    }
    const { node } = this;
    const reason = this.#log.reason();
    this.#options.onExit({ node, spawn, exit, crashed, restartInMs, reason });
  }
}

function describeExit(status: Deno.CommandStatus): string {
  return status.signal === null ? `exited with code ${status.code}` : `killed by ${status.signal}`;
}
