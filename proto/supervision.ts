/**
 * Orders for the supervisor of a host (`penncloud up`): what it runs, and starting and ending nodes.
 * It alone has the process ids of its host, and it alone knows which end was meant.
 */
import { z } from "zod";
import { Role } from "./cluster_config.ts";
import { method } from "./rpc.ts";

/** Which node, as in `backend/4`. */
const NodeName = z.object({ role: Role, id: z.int().nonnegative() });
export type NodeName = z.infer<typeof NodeName>;

/**
 * starting: runs, not ready yet. running: said it is ready. waiting: crashed, and is started again in
 * a moment. draining: hands over its work, then stops. stopped: ended on purpose, stays down.
 */
export const ProcessState = z.enum(["starting", "running", "waiting", "draining", "stopped"]);
export type ProcessState = z.infer<typeof ProcessState>;

export const SupervisedProcess = z.object({
  role: Role,
  id: z.int(),
  port: z.int(),
  state: ProcessState,
  /** When it came into this state, in milliseconds since 1970. */
  sinceMs: z.number(),
  pid: z.int().nullable(),
  /** Names this life of the process; null when it does not run. */
  spawn: z.string().nullable(),
  /** How often it was started again after a crash. */
  restarts: z.int(),
  /** How it ended last, in a few words. */
  lastExit: z.string().nullable(),
});
export type SupervisedProcess = z.infer<typeof SupervisedProcess>;

export const supervisionConversation = {
  /** anybody → supervisor: what runs on your host? */
  list: method(z.object({}), z.object({ pid: z.int(), nodes: z.array(SupervisedProcess) })),
  /** operator → supervisor: end it with SIGKILL, and leave it down. Answered when it is gone. */
  kill: method(NodeName, SupervisedProcess),
  /** operator → supervisor: start it; if it runs, end it in good order first. Answered at the start. */
  restart: method(NodeName, SupervisedProcess),
  /** operator → supervisor: let it hand over its work and stop. Answered at once; watch `list`. */
  drain: method(NodeName, SupervisedProcess),
} as const;
