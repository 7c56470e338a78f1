/** Kill, restart, drain and start: asked about first, with what will happen, then carried out. */
import { signal } from "@preact/signals";
import type { JSX } from "preact";
import type { NodeStatus } from "../../../proto/cluster_status.ts";
import { ApiFailure } from "../../ui/api.ts";
import { Button } from "../../ui/components/button.tsx";
import { confirm } from "../../ui/components/confirm.tsx";
import { MenuButton } from "../../ui/components/menu.tsx";
import { showToast } from "../../ui/components/toast.tsx";
import { giveOrder } from "./admin_api.ts";
import { refresh, status } from "./admin_state.ts";
import { type Order, questionFor, runs } from "./node_facts.ts";

/** Ports with an order on its way. */
const underWay = signal<ReadonlySet<number>>(new Set());

const DONE: Record<Order, (name: string) => string> = {
  kill: (name) => `${name} has been killed. It stays down until you start it.`,
  restart: (name) => `${name} is starting.`,
  drain: (name) => `${name} is handing over its work and then stops.`,
};

/** Asks where something running would end; starting needs no question. */
export async function order(kind: Order, node: NodeStatus): Promise<void> {
  const current = status.value;
  if (current === null) return;
  if (runs(node) && !await confirm(questionFor(kind, node, current))) return;
  mark(node.port, true);
  try {
    await giveOrder(kind, node.port);
    showToast({ message: DONE[kind](node.name), icon: "check" });
  } catch (error) {
    const message = error instanceof ApiFailure ? error.message : String(error);
    showToast({ message, icon: "triangle-alert", durationMs: 15_000 });
  }
  mark(node.port, false);
  await refresh();
}

function mark(port: number, busy: boolean): void {
  const ports = new Set(underWay.value);
  if (busy) ports.add(port);
  else ports.delete(port);
  underWay.value = ports;
}

/** The buttons on a node's own page. */
export function NodeButtons({ node }: { node: NodeStatus }): JSX.Element {
  const busy = underWay.value.has(node.port);
  if (!runs(node)) {
    return (
      <Button
        variant="primary"
        icon="play"
        busy={busy}
        onClick={() => void order("restart", node)}
      >
        Start
      </Button>
    );
  }
  return (
    <div class="button-row">
      <Button icon="rotate-cw" busy={busy} onClick={() => void order("restart", node)}>
        Restart
      </Button>
      <Button
        icon="hourglass"
        disabled={busy || node.state === "draining"}
        onClick={() => void order("drain", node)}
      >
        Drain
      </Button>
      <Button
        class="kill-button"
        icon="power"
        disabled={busy}
        onClick={() => void order("kill", node)}
      >
        Kill
      </Button>
    </div>
  );
}

/** The same, folded into a menu, on a card. */
export function NodeMenu({ node }: { node: NodeStatus }): JSX.Element {
  if (!runs(node)) {
    return (
      <Button
        small
        icon="play"
        busy={underWay.value.has(node.port)}
        onClick={() => void order("restart", node)}
      >
        Start
      </Button>
    );
  }
  return (
    <MenuButton
      small
      label={`Actions for ${node.name}`}
      items={[
        { label: "Restart", icon: "rotate-cw", onSelect: () => void order("restart", node) },
        { label: "Drain and stop", icon: "hourglass", onSelect: () => void order("drain", node) },
        { label: "Kill", icon: "power", danger: true, onSelect: () => void order("kill", node) },
        ...(node.role === "backend"
          ? [
            "separator" as const,
            {
              label: "Look at its rows",
              icon: "table-2" as const,
              href: `/admin/data/${node.port}`,
            },
          ]
          : []),
      ]}
    />
  );
}

/** The button beside a finding. */
export function StartButton({ node }: { node: NodeStatus }): JSX.Element {
  return (
    <Button
      small
      icon="play"
      busy={underWay.value.has(node.port)}
      onClick={() => void order("restart", node)}
    >
      Start {node.name}
    </Button>
  );
}
