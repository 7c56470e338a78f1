/**
 * What happens to a simulated cluster: every fault of the swarm at random moments of its own, biased
 * towards those who matter, which is mostly the primary. `stop` undoes all of it.
 */
import { MEMORY_BYTES_MIN } from "../../kv/node_memory.ts";
import type { MoveStep } from "../../kv/tablet_move.ts";
import type { GroupConfig } from "../../proto/replication.ts";
import { groupId } from "../../proto/ids.ts";
import type { ClusterSim } from "./cluster_sim.ts";
import type { SeededRandom } from "./seeded_random.ts";
import type { SimNode } from "./sim_node.ts";
import type { Fault } from "./swarm.ts";

/** How often each happens at full strength, one in so many milliseconds. */
const EVERY_MS: Partial<Record<Fault, number>> = {
  "cut": 1_500,
  "isolate-primary": 2_500,
  "kill": 2_000,
  "power-loss": 3_000,
  "total-crash": 9_000,
  "pause": 2_500,
  "pause-primary": 3_000,
  "pause-followers": 4_000,
  "abandon-primary": 8_000,
  "freeze": 2_500,
  "wall-clock": 5_000,
  "slow-disk": 3_000,
  "sync-error": 5_000,
  "disk-full": 6_000,
  "bit-flip": 10_000,
  "lost-disk": 12_000,
  "lost-segment": 10_000,
  "coordinator-crash": 4_000,
  "two-coordinators": 6_000,
  "store-away": 9_000,
  "roll-back": 20_000,
  "client-crash": 5_000,
  "hand-over": 1_500,
  "drain": 6_000,
  "reshape": 500,
  "cell-damage": 2_000,
  "moves": 1_200,
  "short-memory": 400,
};
/** While a checkpoint writes them there is hardly room for more in the smallest memory. */
const SWOLLEN_BYTES = { from: 970_000, to: 1_010_000 };
const RARE_STEPS: ReadonlySet<MoveStep["kind"]> = new Set([
  "freeze",
  "seal",
  "activate",
  "drop",
  "thaw",
]);
const ROLL_BACK_MS = 3_000;

export class Nemesis {
  readonly #sim: ClusterSim;
  #stopped = false;
  /** Nothing else happens while the metadata are back in time: see `#rollBack`. */
  #isCalm = false;
  readonly #atChange: SeededRandom;
  readonly #atStep: SeededRandom;
  readonly #atMove: SeededRandom;
  readonly #healing: { atMs: number }[] = [];

  constructor(sim: ClusterSim) {
    this.#sim = sim;
    this.#atChange = sim.random("fault strike-at-change");
    this.#atStep = sim.random("fault strike-at-step");
    this.#atMove = sim.random("fault strike-at-move");
  }

  start(): void {
    const { strength } = this.#sim.swarm;
    this.#sim.net.faults = this.#netFaults();
    this.#sim.metadata.unknown = strength["unknown-swap"] * 0.3;
    for (const node of this.#sim.nodes) {
      node.syncMs = 1 + strength["slow-disk"] * this.#sim.random(`sync ${node.id}`).next() * 15;
    }
    for (const [name, everyMs] of Object.entries(EVERY_MS)) {
      const fault = name as Fault;
      if (strength[fault] === 0) continue;
      const random = this.#sim.random(`fault ${fault}`);
      const meanMs = everyMs / strength[fault];
      const again = () => {
        if (this.#stopped) return;
        if (!this.#isCalm) this.#strike(fault, random);
        this.#sim.time.after(-Math.log(1 - random.next()) * meanMs, again);
      };
      this.#sim.time.after(-Math.log(1 - random.next()) * meanMs, again);
    }
  }

  /** Everything is mended, and every node starts. */
  stop(): void {
    this.#stopped = true;
    const { net, metadata, nodes } = this.#sim;
    net.faults = { loss: 0, copies: 0, reorder: 0, slow: 0, late: 0 };
    net.heal();
    metadata.unknown = 0;
    metadata.isAway = false;
    if (metadata.isRolledBack) this.#repair();
    else if (this.#sim.coordinator?.alive !== true) this.#sim.startCoordinator();
    for (const node of nodes) {
      node.disk.capacityBytes = Infinity;
      node.checkpoints.isFull = false;
      node.stalledUntilMs = -Infinity;
      node.checkpointsUntilMs = -Infinity;
      node.syncMs = 1;
      node.clock.thaw();
      node.process?.resume();
      if (!node.isUp) this.#sim.bootIn(node, 0);
    }
  }

  #netFaults() {
    const { strength } = this.#sim.swarm;
    return {
      loss: strength.loss * 0.1,
      copies: strength.copies * 0.1,
      reorder: strength.reorder * 0.5,
      slow: strength["slow-net"] * 0.05,
      late: strength.late * 0.05,
    };
  }

  #strike(fault: Fault, random: SeededRandom): void {
    const { nodes } = this.#sim;
    const up = nodes.filter((node) => node.isUp);
    switch (fault) {
      case "cut":
        return this.#cut(random);
      case "isolate-primary":
        return this.#isolatePrimary(random);
      case "kill":
      case "power-loss":
        if (up.length === 0) return;
        return this.#sim.crash(this.#victim(random, up), {
          powerLoss: fault === "power-loss",
          downMs: downMs(random),
        });
      case "total-crash": {
        const powerLoss = random.chance(0.5);
        for (const node of up) this.#sim.crash(node, { powerLoss, downMs: downMs(random) });
        return;
      }
      case "pause":
        return this.#pause(random.pick(nodes), random, 3_000);
      case "pause-primary":
        return this.#pausePrimary(random);
      case "pause-followers":
        return this.#pauseFollowers(random);
      case "abandon-primary":
        return this.#abandonPrimary(random);
      case "freeze":
        return this.#freeze(this.#victim(random, nodes), random);
      case "wall-clock": {
        // Stays as it is to the end, which nobody may mind. Some are off by more than requests may be.
        const { name, clock } = random.pick([...nodes, ...this.#sim.clientProcesses]);
        clock.wallOffsetMs = (random.next() - 0.5) * random.pick([2_000, 90_000, 6 * 3_600_000]);
        return this.#sim.note(`${name} wall clock is off by ${clock.wallOffsetMs}`);
      }
      case "slow-disk": {
        const node = random.pick(nodes);
        node.stalledUntilMs = this.#sim.time.nowMs + random.next() * 3_000;
        return this.#sim.note(`${node.name} disk stalls`);
      }
      case "short-memory":
        return this.#fillMemory(random.pick(nodes), random);
      case "sync-error":
        return this.#failSync(random.pick(nodes));
      case "disk-full":
        return this.#fillDisk(random.pick(nodes), random);
      case "bit-flip":
        return this.#flipBit(random.pick(nodes), random);
      case "lost-segment":
        return this.#loseSegment(random.pick(nodes), random);
      case "lost-disk":
        return this.#loseDisk(random.pick(nodes), random);
      case "coordinator-crash":
        return this.#sim.crashCoordinator(random.next() * 3_000);
      case "two-coordinators":
        return this.#sim.supplantCoordinator(random.next() * 1_500);
      case "store-away":
        return this.#storeAway(random);
      case "roll-back":
        return this.#rollBack(random);
      case "client-crash":
        return this.#sim.replaceClient(random.integer(this.#sim.swarm.shape.clients));
      case "hand-over": {
        const plan = random.pick(this.#sim.plans);
        return this.#sim.handOver(plan.id, random.pick(plan.members));
      }
      case "drain":
        return this.#sim.drain(this.#victim(random, nodes));
      case "cell-damage":
        return this.#damageCell(random.pick(nodes), random);
      case "reshape":
        return this.#sim.operator?.reshape(random);
      case "moves":
        return this.#sim.operator?.move(random);
    }
  }

  /** The primary of some group, half of the time. */
  #victim(random: SeededRandom, among: readonly SimNode[]): SimNode {
    const primary = this.#sim.primaryOf(random.pick(this.#sim.plans).id);
    const any = random.pick(among);
    return random.chance(0.5) && primary !== null && among.includes(primary) ? primary : any;
  }

  // ----------------------------------------------------------------------------- network

  #cut(random: SeededRandom): void {
    const { nodes, net } = this.#sim;
    const ends = [...nodes.map(({ name }) => name), "coordinator/0"];
    const from = random.pick(ends), to = random.pick(ends);
    const shape = random.next();
    if (shape < 0.4) {
      net.cut(from, to);
      if (random.chance(0.6)) net.cut(to, from);
    } else if (shape < 0.7) {
      for (const other of ends) this.#cutBoth(from, other);
    } else {
      // In two halves.
      const side = new Set(ends.filter(() => random.chance(0.5)));
      for (const a of side) for (const b of ends) if (!side.has(b)) this.#cutBoth(a, b);
    }
    this.#sim.note(`cut ${net.cuts.join(" ")}`);
    this.#healIn(random.next() * 4_000);
  }

  /** From its members; perhaps from the coordinator; never from clients, who might be misled. */
  #isolatePrimary(random: SeededRandom): void {
    const primary = this.#sim.primaryOf(random.pick(this.#sim.plans).id);
    if (primary === null) return;
    const others = this.#sim.nodes.filter((node) => node !== primary);
    const spared = random.chance(0.3) && others.length > 0 ? random.pick(others) : null;
    for (const other of others) if (other !== spared) this.#cutBoth(primary.name, other.name);
    if (random.chance(0.7)) this.#cutBoth(primary.name, "coordinator/0");
    this.#sim.note(`isolated ${primary.name}`);
    this.#healIn(500 + random.next() * 5_000);
  }

  #cutBoth(a: string, b: string): void {
    if (a === b) return;
    this.#sim.net.cut(a, b);
    this.#sim.net.cut(b, a);
  }

  #healIn(ms: number): void {
    const atMs = this.#sim.time.nowMs + ms;
    this.#healing.push({ atMs });
    this.#sim.time.after(ms, () => {
      // A later cut lasts as long as it said.
      if (this.#healing.some((item) => item.atMs > this.#sim.time.nowMs)) return;
      this.#healing.length = 0;
      this.#sim.net.heal();
    });
  }

  // --------------------------------------------------------------------------- processes

  #pause(node: SimNode, random: SeededRandom, msMax: number): void {
    this.#pauseFor(node, random.next() ** 2 * msMax);
  }

  /** As it goes on it knows nothing of its successor: it was cut off after the pause began. */
  #pausePrimary(random: SeededRandom): void {
    const primary = this.#anyPrimary(random);
    if (primary === null) return;
    const ms = this.#sim.swarm.shape.graceMs * (0.3 + 2 * random.next());
    this.#pauseFor(primary, ms);
    if (random.chance(0.3)) return;
    this.#sim.time.after(2 + random.next() * 20, () => {
      if (this.#stopped || this.#isCalm) return;
      this.#isolate(primary);
      this.#healIn(ms + this.#sim.swarm.shape.leaseMs * random.next() * 2);
    });
  }

  /**
   * Those who should hear the primary sleep for longer than they promised, and wake up suspecting
   * it. What it sent meanwhile they answer all the same; perhaps they die right after.
   */
  #pauseFollowers(random: SeededRandom): void {
    const { time, nodes, swarm: { shape } } = this.#sim;
    const primary = this.#anyPrimary(random);
    if (primary === null) return;
    const ms = shape.graceMs * (1 + 0.3 * random.next()) + 30;
    for (const node of nodes) if (node !== primary) this.#pauseFor(node, ms);
    this.#cutBoth(primary.name, "coordinator/0");
    this.#healIn(ms + shape.leaseMs * 2);
    const isolated = random.chance(0.5), killed = random.chance(0.4);
    time.after(ms + random.next() * 40, () => {
      if (this.#stopped || this.#isCalm) return;
      if (isolated) this.#isolate(primary);
      if (!killed) return;
      for (const node of nodes) {
        if (node === primary || random.chance(0.5)) continue;
        this.#sim.crash(node, { powerLoss: false, downMs: 1 + random.next() * 30 });
      }
    });
  }

  /** It is left alone in sync, then cut off from all but its clients while others go on. */
  #abandonPrimary(random: SeededRandom): void {
    const { time, nodes, swarm: { shape } } = this.#sim;
    const primary = this.#anyPrimary(random);
    if (primary === null) return;
    const pauseMs = shape.ackTimeoutMs + 2 * shape.graceMs + 500 + random.next() * 300;
    for (const node of nodes) if (node !== primary) this.#pauseFor(node, pauseMs);
    time.after(pauseMs - 5, () => {
      if (this.#stopped || this.#isCalm) return;
      this.#isolate(primary);
      this.#healIn(shape.coldStartWaitMs + 4 * shape.graceMs + 3_000);
    });
  }

  /** Right after the records changed: the answer, or who waits for it, may be lost. */
  onSwap(config: GroupConfig): void {
    const strength = this.#sim.swarm.strength["strike-at-change"];
    if (this.#stopped || this.#isCalm || !this.#atChange.chance(strength * 0.15)) return;
    const random = this.#atChange, primary = this.#sim.nodes[config.primary.node]!;
    const added = this.#sim.nodes[config.inSync.at(-1)!.node]!;
    const dice = random.next();
    this.#sim.note(`struck at epoch ${config.epoch}`);
    if (dice < 0.35) {
      this.#isolate(primary);
      this.#healIn(500 + random.next() * 4_000);
    } else if (dice < 0.65) {
      // It goes on with the others, but does not hear what became of its change.
      this.#cutBoth(primary.name, "coordinator/0");
      this.#cutBoth(primary.name, added.name);
      this.#healIn(500 + random.next() * 5_000);
    } else if (dice < 0.8) {
      const powerLoss = random.chance(0.5), ms = random.next() * 500;
      this.#sim.time.after(random.next() * 3, () => {
        this.#sim.crash(primary, { powerLoss, downMs: ms });
      });
    } else this.#sim.time.after(0.1, () => this.#sim.crashCoordinator(random.next() * 1_000));
  }

  /** A primary goes as soon as it has committed a step of a transaction. */
  onTransactionStep(node: SimNode): void {
    const strength = this.#sim.swarm.strength["strike-at-step"], random = this.#atStep;
    if (this.#stopped || this.#isCalm || !random.chance(strength * 0.06)) return;
    const powerLoss = random.chance(0.3), ms = downMs(random);
    this.#sim.time.after(random.next() ** 2 * 5, () => {
      if (!this.#stopped && !this.#isCalm) this.#sim.crash(node, { powerLoss, downMs: ms });
    });
  }

  /** So does one that has just taken a tablet a step further to another group, and more often. */
  onMoveStep(node: SimNode, step: MoveStep["kind"]): void {
    const { strength } = this.#sim.swarm, random = this.#atMove;
    const share = RARE_STEPS.has(step) ? 0.3 : 0.03;
    if (this.#stopped || this.#isCalm || !random.chance(strength["strike-at-step"] * share)) return;
    const dice = random.next(), ms = downMs(random);
    this.#sim.note(`struck at ${step}`);
    this.#sim.time.after(random.next() ** 2 * 20, () => {
      if (this.#stopped || this.#isCalm) return;
      if (dice < 0.2) return this.#sim.crashCoordinator(ms);
      if (dice < 0.4) {
        // Mostly it can still ask, but does not hear the answer.
        this.#sim.net.cut("coordinator/0", node.name);
        if (dice < 0.25) this.#sim.net.cut(node.name, "coordinator/0");
        return this.#healIn(500 + random.next() * 4_000);
      }
      this.#sim.crash(node, { powerLoss: dice < 0.6, downMs: ms });
    });
  }

  #anyPrimary(random: SeededRandom): SimNode | null {
    const primary = this.#sim.primaryOf(random.pick(this.#sim.plans).id);
    return primary?.isUp === true ? primary : null;
  }

  #pauseFor(node: SimNode, ms: number): void {
    if (!node.isUp) return;
    node.process!.pauseUntil(this.#sim.time.nowMs + ms);
    this.#sim.count("pauses");
    this.#sim.note(`${node.name} is paused for ${ms.toFixed(0)} ms`);
  }

  #isolate(node: SimNode): void {
    for (const other of this.#sim.nodes) this.#cutBoth(node.name, other.name);
    this.#cutBoth(node.name, "coordinator/0");
    this.#sim.note(`isolated ${node.name}`);
  }

  /** Its clock stands still, within what leases allow for; never two freezes in one lease. */
  #freeze(node: SimNode, random: SeededRandom): void {
    const { leaseMs, graceMs } = this.#sim.swarm.shape;
    const nowMs = this.#sim.time.nowMs;
    if (!node.isUp || nowMs < (this.#thawedMs.get(node) ?? 0) + 2 * (leaseMs + graceMs)) return;
    const ms = Math.max(0, graceMs * 0.99 - leaseMs * 1.01) * 0.8 * random.next();
    node.clock.freeze();
    node.process!.pauseUntil(nowMs + ms);
    this.#thawedMs.set(node, nowMs + ms);
    this.#sim.time.after(ms, () => node.clock.thaw());
    this.#sim.note(`${node.name} is frozen for ${ms.toFixed(0)} ms`);
  }

  readonly #thawedMs = new Map<SimNode, number>();

  // ------------------------------------------------------------------------------- disks

  #failSync(node: SimNode): void {
    if (!node.isUp) return;
    node.hasSyncError = true;
    node.disk.failNextSync();
    this.#sim.count("syncErrors");
    this.#sim.note(`${node.name} next sync fails`);
  }

  /** Much has changed, and writing it takes long: until then there is little memory for anything else. */
  #fillMemory(node: SimNode, random: SeededRandom): void {
    const { time, swarm: { shape }, plans } = this.#sim;
    const { from, to } = SWOLLEN_BYTES, bytes = Math.floor(from + random.next() * (to - from));
    const gid = groupId(random.pick(plans).id), ms = random.next() ** 2 * 3_000;
    if (shape.memoryBytes > MEMORY_BYTES_MIN || node.checkpoints.dirtyBytes > from / 2) return;
    node.checkpoints.swell(gid, bytes);
    node.checkpointsUntilMs = time.nowMs + ms;
    this.#sim.note(`${node.name} has little memory left`);
  }

  #fillDisk(node: SimNode, random: SeededRandom): void {
    const { disk, checkpoints } = node;
    disk.capacityBytes = disk.usedBytes() + random.integer(4_000);
    checkpoints.isFull = random.chance(0.5);
    this.#sim.count("fullDisks");
    this.#sim.note(`${node.name} disk is nearly full`);
    this.#sim.time.after(500 + random.next() * 4_000, () => {
      disk.capacityBytes = Infinity;
      checkpoints.isFull = false;
    });
  }

  /** In a part of the log that was certainly synced, so that the damage must be noticed. */
  #flipBit(node: SimNode, random: SeededRandom): void {
    if (!node.isUp || node.backend === null || node.isDamaged || !this.#canLose(node)) return;
    const at = node.syncedByte(random);
    if (at === null) return;
    this.#sim.crash(node, { powerLoss: false, downMs: 100 + random.next() * 2_000 });
    node.disk.flipBits(at.path, at.offset, 1 << random.integer(8));
    node.isDamaged = true;
    this.#sim.lose(node);
    this.#sim.count("bitFlips");
    this.#sim.note(`${node.name} has a flipped bit in ${at.path} at ${at.offset}`);
  }

  /** Not the last one: what was forgotten at the end looks like a torn tail, and others have to notice. */
  #loseSegment(node: SimNode, random: SeededRandom): void {
    if (!node.isUp || node.backend === null || node.isDamaged || !this.#canLose(node)) return;
    this.#sim.crash(node, { powerLoss: false, downMs: 100 + random.next() * 2_000 });
    const lost = node.segments.slice(0, -1);
    if (lost.length === 0) return;
    const name = random.pick(lost);
    node.loseSegment(name);
    node.isDamaged = true;
    this.#sim.lose(node);
    this.#sim.count("lostSegments");
    this.#sim.note(`${node.name} has lost ${name}`);
  }

  /** In a checkpoint, where nobody may look for a long time. */
  #damageCell(node: SimNode, random: SeededRandom): void {
    if (node.isDamaged || !this.#canLose(node)) return;
    const { id } = random.pick(this.#sim.plans), gid = groupId(id);
    const cell = node.checkpoints.damageCell(gid, random);
    if (cell === null) return;
    this.#sim.lose(node, [gid]);
    this.#sim.count("damagedCells");
    this.#sim.note(`${node.name} has a damaged cell "${cell.row}" "${cell.column}" in group ${id}`);
  }

  #loseDisk(node: SimNode, random: SeededRandom): void {
    if (!node.isUp || node.isDamaged || !this.#canLose(node)) return;
    this.#sim.crash(node, { powerLoss: true, downMs: 100 + random.next() * 2_000 });
    this.#sim.lose(node);
    node.replaceDisk();
    this.#sim.count("lostDisks");
    this.#sim.note(`${node.name} has an empty disk, ${node.store}`);
  }

  /** One disk at a time, and only where the promise covers it: a minimum of two in sync. */
  #canLose(node: SimNode): boolean {
    const { shape } = this.#sim.swarm;
    if (shape.minInSync < 2) return false;
    this.#sim.countHealed();
    return this.#sim.plans.every(({ id }) => {
      const config = this.#sim.recordOf(id);
      if (config === undefined) return false;
      const electable = [...config.inSync, ...config.eligible];
      if (electable.some(({ store }) => this.#sim.isLost(config.gid, store))) return false;
      return electable.some((member) => member.node !== node.id);
    });
  }

  // ------------------------------------------------------------------------- coordinator

  #storeAway(random: SeededRandom): void {
    const { metadata, time } = this.#sim;
    metadata.isAway = true;
    this.#sim.note("the metadata store is away");
    time.after(random.next() ** 2 * 20_000, () => metadata.isAway = false);
  }

  /**
   * The coordinator starts on an older copy of its records. That can be noticed only by nodes that
   * get through to it, so for a while nothing else happens.
   */
  #rollBack(random: SeededRandom): void {
    const { metadata, nodes, net } = this.#sim;
    // A configuration that nobody has adopted had no effect, and nobody can tell of it.
    const known = this.#sim.plans.every(({ id }) => this.#sim.isAdopted(id));
    if (!known || metadata.isAway || nodes.some((node) => node.backend === null)) return;
    // What a paused process was sent or waited for stays there until the pause is over.
    if (nodes.some((node) => node.process!.isPaused)) return;
    // Who is to notice it is there for all of that time.
    if (!this.#sim.hasOneCoordinator) return;
    this.#isCalm = true;
    net.heal();
    net.faults = { loss: 0, copies: 0, reorder: 0, slow: 0, late: 0 };
    metadata.unknown = 0;
    this.#sim.note("the metadata go back in time");
    this.#sim.count("rollBacks");
    metadata.rollBack(1 + random.integer(3));
    this.#sim.crashCoordinator(1);
    this.#sim.time.after(ROLL_BACK_MS, () => {
      if (this.#stopped) return;
      this.#sim.checkRollBackNoticed();
      this.#repair();
      net.faults = this.#netFaults();
      metadata.unknown = this.#sim.swarm.strength["unknown-swap"] * 0.3;
      this.#isCalm = false;
    });
  }

  #repair(): void {
    this.#sim.note("the metadata are repaired");
    this.#sim.metadata.repair();
    if (this.#sim.coordinator?.alive === true) this.#sim.crashCoordinator(1);
    else this.#sim.startCoordinator();
  }
}

/** Mostly at once, as a supervisor restarts; sometimes long enough for others to go on without. */
const downMs = (random: SeededRandom) => random.next() ** 2 * random.pick([100, 1_000, 8_000]);
