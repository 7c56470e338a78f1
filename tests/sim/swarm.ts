/**
 * What one seed is made of: which faults it has and how strong they are, and how the cluster is
 * configured. Swarm testing (Groce et al. 2012): a run with every fault at once drowns the rare
 * states that two or three of them reach, so each seed draws its own few.
 */
import { crc32 } from "node:zlib";
import { MEMORY_BYTES_MIN } from "../../kv/node_memory.ts";
import { SeededRandom } from "./seeded_random.ts";

/** One stream of dice for all of these: to add one here makes every seed another. */
const FIRST_FAULTS = [
  "loss",
  "copies",
  "reorder",
  "slow-net",
  "late",
  "cut",
  "isolate-primary",
  "kill",
  "power-loss",
  "total-crash",
  "pause",
  "pause-primary",
  "pause-followers",
  "abandon-primary",
  "strike-at-change",
  "clock-rate",
  "freeze",
  "wall-clock",
  "slow-disk",
  "sync-error",
  "disk-full",
  "bit-flip",
  "lost-disk",
  "coordinator-crash",
  "two-coordinators",
  "unknown-swap",
  "store-away",
  "roll-back",
  "client-crash",
  "hand-over",
  "drain",
  "large-values",
] as const;
/** Each has dice of its own, so that a new one leaves the seeds without it as they were. */
const LATER_FAULTS = [
  "reshape",
  "transactions",
  "abandon",
  "strike-at-step",
  "scans",
  "late-copies",
  "clock-beyond",
  "cell-damage",
  "lost-segment",
  "moves",
  "short-memory",
] as const;

/** What meets a tablet on its way: a run that is about moves has little else. */
const BESIDE_MOVES: ReadonlySet<Fault> = new Set(
  [
    "loss",
    "copies",
    "reorder",
    "late",
    "unknown-swap",
    "two-coordinators",
    "client-crash",
    "hand-over",
    "large-values",
    "reshape",
    "transactions",
    "abandon",
    "scans",
    "late-copies",
  ] as const,
);

/** Faults by name; `--off` takes the same names. What each does is told in nemesis.ts. */
export const FAULTS = [...FIRST_FAULTS, ...LATER_FAULTS] as const;
export type Fault = (typeof FAULTS)[number];

export interface SwarmShape {
  readonly backends: number;
  readonly replicas: number;
  readonly groups: number;
  readonly minInSync: number;
  readonly readMode: "lease" | "confirm";
  readonly heartbeatMs: number;
  readonly leaseMs: number;
  readonly graceMs: number;
  readonly ackTimeoutMs: number;
  readonly coldStartWaitMs: number;
  readonly checkpointBytes: number;
  readonly segmentBytes: number;
  readonly keepBytes: number;
  readonly clients: number;
  readonly depth: number;
  readonly thinkMs: number;
  readonly deadlineMs: number;
  readonly probeMs: number;
  readonly rowsPerGroup: number;
  /** A tablet above it is split, and what is far below it merged. */
  readonly tabletBytes: number;
  /** What a node may keep in memory. With little, old versions for scans are soon given up. */
  readonly memoryBytes: number;
  /** Of tablets that move: cells in one piece, and how fast they are copied. */
  readonly moveCells: number;
  readonly moveBytesPerSecond: number;
}

/** So large that no tablet of a run reaches it. */
export const LARGE_TABLET_BYTES = 256 * 1024 * 1024;
export const AMPLE_MEMORY_BYTES = 96 * 1024 * 1024;

export interface Swarm {
  /** 0 for a fault that this seed does without, otherwise up to 1. */
  readonly strength: Readonly<Record<Fault, number>>;
  readonly shape: SwarmShape;
}

export function drawSwarm(
  seed: number,
  options: { off?: readonly string[]; shape?: Partial<SwarmShape> } = {},
): Swarm {
  const random = new SeededRandom(seed * 7919 + 17);
  const few = random.chance(0.3), isAboutMoves = diceOf(seed, "moves above all").chance(0.15);
  const strength = {} as Record<Fault, number>;
  const draw = (fault: Fault, dice: SeededRandom) => {
    // Each fault takes the same draws whatever the others are, so that one can be taken away.
    const isDrawn = dice.chance(few ? 0.15 : 0.5), drawn = dice.next();
    const present = isAboutMoves ? isWithMoves(seed, fault, isDrawn) : isDrawn;
    strength[fault] = present && options.off?.includes(fault) !== true ? 0.15 + 0.85 * drawn : 0;
  };
  for (const fault of FIRST_FAULTS) draw(fault, random);
  for (const fault of LATER_FAULTS) draw(fault, diceOf(seed, fault));
  const drawnShape = { ...drawShape(random), ...drawLaterShape(seed) };
  const shape = isAboutMoves && drawnShape.backends === 1
    ? { ...drawnShape, backends: 3, replicas: 3, minInSync: 2 }
    : drawnShape;
  // Within one group there is no more to a transaction than one entry, and nowhere to move to.
  const groups = strength.transactions + strength.moves > 0 && shape.backends > 1
    ? diceOf(seed, "groups").pick([2, 2, 3])
    : shape.groups;
  return { strength, shape: { ...shape, groups, ...options.shape } };
}

/** Moves come off mostly, and somebody is struck down in the middle of them. */
function isWithMoves(seed: number, fault: Fault, isDrawn: boolean): boolean {
  if (fault === "moves" || fault === "strike-at-step") return true;
  return isDrawn && (BESIDE_MOVES.has(fault) || diceOf(seed, `beside moves ${fault}`).chance(0.15));
}

type LaterShape = "tabletBytes" | "memoryBytes" | "moveCells" | "moveBytesPerSecond";

const diceOf = (seed: number, what: string) => new SeededRandom(crc32(`${seed} swarm ${what}`));

function drawLaterShape(seed: number): Pick<SwarmShape, LaterShape> {
  return {
    moveCells: diceOf(seed, "moveCells").pick([1, 3, 500]),
    moveBytesPerSecond: diceOf(seed, "moveBytesPerSecond").pick([20_000, 200_000, 16_000_000]),
    memoryBytes: diceOf(seed, "memoryBytes")
      .pick([AMPLE_MEMORY_BYTES, AMPLE_MEMORY_BYTES, AMPLE_MEMORY_BYTES, MEMORY_BYTES_MIN]),
    tabletBytes: diceOf(seed, "tabletBytes")
      .pick([LARGE_TABLET_BYTES, LARGE_TABLET_BYTES, 700, 1_200]),
  };
}

function drawShape(random: SeededRandom): Omit<SwarmShape, LaterShape> {
  const [backends, replicas] = random.pick(
    [[3, 3], [3, 3], [3, 3], [4, 3], [5, 3], [5, 5], [1, 1]] as const,
  );
  const groups = backends === 1 ? 1 : random.pick([1, 1, 2]);
  const minInSync = replicas === 1 ? 1 : random.pick([1, 2, 2, 2, 2, 3]);
  const heartbeatMs = random.pick([50, 80, 120, 200]);
  const leaseMs = heartbeatMs * random.pick([3, 4, 6]);
  const graceMs = Math.ceil(leaseMs * random.pick([1.1, 1.5]));
  return {
    backends,
    replicas,
    groups,
    minInSync,
    readMode: random.chance(0.25) ? "confirm" : "lease",
    heartbeatMs,
    leaseMs,
    graceMs,
    ackTimeoutMs: random.pick([150, 400, 1_000]),
    coldStartWaitMs: random.pick([300, 1_000, 3_000]),
    checkpointBytes: random.pick([1, 5_000, 1_000_000]),
    segmentBytes: random.pick([2_000, 20_000, 1_000_000]),
    keepBytes: random.pick([0, 10_000, 1_000_000]),
    clients: random.pick([1, 2, 3]),
    depth: random.pick([1, 2, 4]),
    thinkMs: random.pick([50, 150, 500]),
    deadlineMs: random.pick([800, 3_000, 10_000]),
    probeMs: random.pick([20, 60]),
    rowsPerGroup: random.pick([1, 2, 4]),
  };
}
