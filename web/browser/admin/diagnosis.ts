/**
 * The first thing an operator wants to know: is everything fine and, if not, what is wrong, why, who
 * notices, and what to do next. Made from the status document alone. Pure.
 */
import type { ClusterStatus, NodeStatus, TabletStatus } from "../../../proto/cluster_status.ts";
import { plural } from "../../ui/format.ts";
import { backend, holdersOf, membersOf, runs, withoutNode } from "./node_facts.ts";
import { formatClock, formatSpan, listed } from "./spans.ts";

export type FindingTone = "danger" | "warning" | "info";

export interface Finding {
  readonly tone: FindingTone;
  readonly title: string;
  /** The cause, and who notices. */
  readonly text: string;
  /** What to do; null when waiting is enough and the text says so. */
  readonly next: string | null;
  readonly href: string | null;
  /** Nodes to start, with a button each. */
  readonly start: readonly NodeStatus[];
}

export interface Diagnosis {
  readonly tone: "success" | FindingTone;
  readonly title: string;
  readonly text: string;
  /** Worst first. */
  readonly findings: readonly Finding[];
}

/** A process that has not become ready by then has a problem. */
const JOINING_MS_MAX = 30_000;
/** A change of primary takes a few seconds; one that takes longer than this is a failure. */
const FAILOVER_MS_MAX = 15_000;
const WEIGHT: Record<FindingTone, number> = { danger: 0, warning: 1, info: 2 };

export function diagnose(status: ClusterStatus): Diagnosis {
  const findings = tabletFindings(status);
  // What a finding about tablets says of a backend and lets start need not be said twice.
  const said = new Set(findings.flatMap((finding) => finding.start.map((node) => node.name)));
  for (const node of status.nodes) {
    const finding = said.has(node.name) ? null : nodeFinding(node, status);
    if (finding !== null) findings.push(finding);
  }
  findings.push(...otherProblems(status));
  findings.sort((a, b) => WEIGHT[a.tone] - WEIGHT[b.tone]);
  return { ...verdict(status, findings), findings };
}

function verdict(
  status: ClusterStatus,
  findings: readonly Finding[],
): Pick<Diagnosis, "tone" | "title" | "text"> {
  const { nodes, tablets } = status;
  const worst = findings[0]?.tone;
  const count = (state: TabletStatus["state"]) =>
    tablets.filter((tablet) => tablet.state === state).length;
  const away = count("unavailable"), readOnly = count("readonly");
  const moving = tablets.filter((tablet) => isChangingOver(tablet, status)).length;
  if (away > 0 && moving === away && readOnly === 0) {
    return {
      tone: "warning",
      title: "Part of the data is changing over",
      text: `${plural(away, "tablet gets", "tablets get")} a new primary, which takes a few ` +
        "seconds. Who needs what they keep waits that long; nothing is lost.",
    };
  }
  if (away > 0) {
    return {
      tone: "danger",
      title: away === tablets.length
        ? "The store cannot be reached"
        : "Part of the data cannot be reached",
      text: `${plural(away, "tablet", "tablets")} of ${tablets.length} ${
        away === 1 ? "has" : "have"
      } no working primary. Nothing that was stored is lost.`,
    };
  }
  if (readOnly > 0) {
    return {
      tone: "danger",
      title: "Part of the data cannot be changed",
      text: `${plural(readOnly, "tablet", "tablets")} of ${tablets.length} ${
        readOnly === 1 ? "has" : "have"
      } too few copies in sync to take writes. Reading goes on.`,
    };
  }
  if (worst === "danger") {
    return { tone: "danger", title: findings[0]!.title, text: findings[0]!.text };
  }
  if (status.stale) {
    return {
      tone: "warning",
      title: "The coordinator is away, the rest goes on",
      text: `Users notice nothing. What is shown of the nodes is from ${
        formatClock(status.generatedMs)
      }.`,
    };
  }
  if (worst === "warning") {
    return {
      tone: "warning",
      title: "Everything works, with less in reserve",
      text: "Users notice nothing. It is still worth a look, before something else fails.",
    };
  }
  const live = nodes.filter((node) => node.state === "live").length;
  const copies = Math.min(...tablets.map((tablet) => tablet.secondaries.length + 1));
  const kept = tablets.length === 0
    ? ""
    : copies === 1
    ? `, and all ${tablets.length} tablets are healthy`
    : `, and each of the ${tablets.length} tablets is on ${copies} disks`;
  return {
    tone: "success",
    title: "Everything is fine",
    text: `${
      live === nodes.length ? `All ${live}` : `${live} of ${nodes.length}`
    } nodes are live${kept}.`,
  };
}

/** Tablets that do not serve as they should, together where the cause is the same. Worst first. */
function tabletFindings(status: ClusterStatus): Finding[] {
  const alike = Map.groupBy(
    status.tablets.filter((tablet) => tablet.state !== "healthy"),
    (tablet) =>
      `${tablet.state} ${isChangingOver(tablet, status)} ${
        membersOf(tablet).toSorted((a, b) => a - b)
      }`,
  );
  const order: TabletStatus["state"][] = ["unavailable", "readonly", "degraded"];
  return [...alike.values()]
    .sort((a, b) => order.indexOf(a[0]!.state) - order.indexOf(b[0]!.state))
    .flatMap((tablets) => tabletFinding(tablets, status) ?? []);
}

function tabletFinding(tablets: readonly TabletStatus[], status: ClusterStatus): Finding | null {
  const first = tablets[0]!, one = tablets.length === 1, href = "/admin/tablets";
  const names = `${one ? "Tablet" : "Tablets"} ${listed(tablets.map((tablet) => tablet.id))}`;
  const missing = membersOf(first).toSorted((a, b) => a - b).map((id) => backend(status, id))
    .filter((node): node is NodeStatus => node !== undefined && !runs(node));
  const cause = missing.length === 0
    ? ""
    : ` ${listed(missing.map((node) => node.name))} ${
      missing.length === 1 ? "does" : "do"
    } not run.`;
  if (isChangingOver(first, status)) {
    return {
      tone: "warning",
      title: `${names} ${one ? "gets" : "get"} a new primary`,
      text: `This takes a few seconds.${cause}`,
      next: null,
      href,
      start: [],
    };
  }
  if (first.state === "unavailable") {
    const enough = missing.length < membersOf(first).length / 2;
    return {
      tone: "danger",
      title: `${names} ${one ? "does" : "do"} not serve`,
      text: `Who needs what ${one ? "it keeps" : "they keep"} has to wait.${cause}` +
        (!enough
          ? ""
          : status.stale
          ? " A new primary is chosen as soon as the coordinator is back."
          : " A new primary should have been chosen by now; look at the coordinator's log."),
      next: enough ? null : "Start the backends that are missing. Nothing is lost meanwhile.",
      href,
      start: enough ? [] : missing,
    };
  }
  if (first.state === "readonly") {
    return {
      tone: "danger",
      title: `${names} ${one ? "takes" : "take"} no writes`,
      text: "Only one copy is in sync, and a write has to be on two disks before we say it is " +
        `stored.${cause}`,
      next: missing.length === 0
        ? "The other copies are catching up, which takes a moment."
        : "Start one of the missing backends.",
      href,
      start: missing,
    };
  }
  // A backend that does not run says the same of itself, with what to do.
  const behind = membersOf(first).length - holdersOf(first).length;
  if (behind <= missing.length) return null;
  const learners = new Set(tablets.flatMap((tablet) => tablet.learners));
  const catching = learners.size === 0
    ? ""
    : ` ${listed([...learners].map((id) => `backend/${id}`))} is catching up.`;
  return {
    tone: "warning",
    title: `${names} ${one ? "has" : "have"} a copy less than wished`,
    text: `Reads and writes go on.${cause}${catching}`,
    next: null,
    href,
    start: [],
  };
}

/** Whether a tablet that does not serve now is about to: something just happened to one of its backends. */
function isChangingOver(tablet: TabletStatus, status: ClusterStatus): boolean {
  if (tablet.state !== "unavailable" || status.stale) return false;
  const members = membersOf(tablet).map((id) => backend(status, id)).filter((node) => !!node);
  return members.filter(runs).length > members.length / 2 &&
    members.some((node) => status.generatedMs - node.sinceMs < FAILOVER_MS_MAX);
}

function nodeFinding(node: NodeStatus, status: ClusterStatus): Finding | null {
  const nowMs = Math.max(status.generatedMs, node.sinceMs);
  const since = formatSpan(nowMs - node.sinceMs);
  const href = `/admin/nodes/${node.port}`;
  const name = `${node.name} (port ${node.port})`;
  switch (node.state) {
    case "stopped":
      return {
        tone: "warning",
        title: `${name} is stopped`,
        text: `It was stopped on purpose ${since} ago. ${effectOf(node, status)}`,
        next: "Start it when you are done with it.",
        href,
        start: [node],
      };
    case "down":
      return {
        tone: node.role === "balancer" || isLastFrontend(node, status) ? "danger" : "warning",
        title: `${name} is down`,
        text: `For ${since}. ${node.problem === null ? "" : `${node.problem}. `}${
          effectOf(node, status)
        }`,
        next: node.problem === null
          ? "Its supervisor starts it again by itself. If it stays down, start it, and look at its log."
          : "Wait a moment; if it falls again, look at its log.",
        href,
        start: [node],
      };
    case "suspect":
      return {
        tone: "warning",
        title: `${name} has gone silent`,
        text:
          "No sign of life for more than a second. Others take over by themselves if it stays so.",
        next: null,
        href,
        start: [],
      };
    case "joining":
      return {
        tone: nowMs - node.sinceMs > JOINING_MS_MAX ? "warning" : "info",
        title: `${name} is getting ready`,
        text: node.problem === null ? `Since ${since}.` : `Since ${since}: ${node.problem}.`,
        next: null,
        href,
        start: [],
      };
    case "draining":
      return {
        tone: "info",
        title: `${name} is draining`,
        text: "It hands over what it has and then stops.",
        next: null,
        href,
        start: [],
      };
    case "live":
      if (node.problem === null) return null;
      return {
        tone: "warning",
        title: `${name} reports a problem`,
        text: node.problem,
        next: null,
        href,
        start: [],
      };
  }
}

function isLastFrontend(node: NodeStatus, { nodes }: ClusterStatus): boolean {
  return node.role === "frontend" &&
    !nodes.some((other) => other.role === "frontend" && runs(other));
}

/** Who notices that this node does not run. */
function effectOf(node: NodeStatus, status: ClusterStatus): string {
  if (node.role !== "backend") {
    // The sentence about what would happen is also true of what has happened.
    return isLastFrontend(node, status)
      ? "No page opens until a frontend is back."
      : withoutNode(status, { ...node, state: "live" }).text;
  }
  const carried = status.tablets.filter((tablet) => membersOf(tablet).includes(node.id));
  return carried.every((tablet) => tablet.state === "healthy" || tablet.state === "degraded")
    ? `${plural(carried.length, "tablet has", "tablets have")} a copy less; users notice nothing.`
    : "Some of its tablets do not serve as they should.";
}

/** What the coordinator says beyond what nodes and tablets show, such as metadata gone back in time. */
function otherProblems(status: ClusterStatus): Finding[] {
  const shown = new Set(
    status.tablets.filter((tablet) => tablet.state !== "healthy").map((tablet) => tablet.id),
  );
  const names = status.nodes.filter((node) => node.state !== "live" || node.problem !== null)
    .map((node) => node.name);
  return status.problems
    .filter((sentence) => {
      const tablet = /^Tablet (\S+?):? /.exec(sentence)?.[1];
      if (/metadata/.test(sentence)) return true;
      if (tablet !== undefined && shown.has(tablet)) return false;
      return !names.some((name) =>
        sentence.startsWith(`${name} (`) || sentence.startsWith(`${name}:`)
      );
    })
    .map((sentence) => ({
      tone: /metadata/.test(sentence) ? "danger" : "warning",
      title: sentence,
      text: "",
      next: null,
      href: null,
      start: [],
    }));
}
