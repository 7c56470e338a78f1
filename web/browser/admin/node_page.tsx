/** `/admin/nodes/10003`: one node, what it carries, and whether it can be switched off. */
import type { JSX } from "preact";
import type { ClusterStatus, NodeStatus } from "../../../proto/cluster_status.ts";
import { Button } from "../../ui/components/button.tsx";
import { Icon } from "../../ui/components/icon.tsx";
import { Notice } from "../../ui/components/notice.tsx";
import { EmptyState } from "../../ui/components/states.tsx";
import { formatFullDate, formatSize } from "../../ui/format.ts";
import { changes, type Sample, samples, status } from "./admin_state.ts";
import {
  EventList,
  NodeStateBadge,
  PageHead,
  Panel,
  TabletStateBadge,
  Waiting,
} from "./console_parts.tsx";
import { NodeButtons } from "./node_actions.tsx";
import { membersOf, rangeOf, runs, scrubText, withoutNode } from "./node_facts.ts";
import { Sparkline } from "./sparkline.tsx";
import { formatRate, formatSpan } from "./spans.ts";
import { Fact } from "./tablet_band.tsx";

const EVENTS_SHOWN = 12;

export function NodePage({ port }: { port: number }): JSX.Element {
  const cluster = status.value;
  if (cluster === null) return <Waiting />;
  const node = cluster.nodes.find((it) => it.port === port);
  if (node === undefined) {
    return (
      <EmptyState icon="server" title={`No node has port ${port}`} text="The cluster has others.">
        <Button href="/admin/nodes">All nodes</Button>
      </EmptyState>
    );
  }
  const own = changes.value.filter((change) => change.subject === node.name)
    .slice(-EVENTS_SHOWN).reverse();
  return (
    <div class="console">
      <a class="back-link" href="/admin/nodes">
        <Icon name="arrow-left" size="small" />
        All nodes
      </a>
      <PageHead title={node.name} detail={<StateLine node={node} cluster={cluster} />}>
        <NodeButtons node={node} />
      </PageHead>
      <SwitchOff node={node} cluster={cluster} />
      <div class="charts">
        <Chart
          title="Requests"
          value={`${formatRate(node.requestsPerSecond)} /s`}
          values={seriesOf(samples.value, port, "rate")}
          scale={4}
        />
        <Chart
          title="Processor"
          value={`${Math.round(node.cpu * 100)} %`}
          values={seriesOf(samples.value, port, "cpu")}
          scale={0.25}
        />
        <Chart
          title="Memory"
          value={formatSize(node.memoryBytes)}
          values={seriesOf(samples.value, port, "memory")}
          scale={100_000_000}
        />
      </div>
      <Panel title="About this node">
        <Facts node={node} />
      </Panel>
      {node.role === "backend" && <Carried node={node} cluster={cluster} />}
      {own.length > 0 && (
        <Panel title="What happened to it" flush>
          <EventList changes={own} />
        </Panel>
      )}
    </div>
  );
}

function StateLine({ node, cluster }: { node: NodeStatus; cluster: ClusterStatus }): JSX.Element {
  const nowMs = Math.max(cluster.generatedMs, node.sinceMs);
  return (
    <span class="state-line">
      <NodeStateBadge state={node.state} />
      <span title={formatFullDate(node.sinceMs)}>for {formatSpan(nowMs - node.sinceMs)}</span>
      {node.problem !== null && <span>· {node.problem}</span>}
    </span>
  );
}

/** The operator's question before touching a machine, answered. */
function SwitchOff(
  { node, cluster }: { node: NodeStatus; cluster: ClusterStatus },
): JSX.Element | null {
  if (!runs(node)) return null;
  const { text, weight } = withoutNode(cluster, node);
  const answer = { none: "Yes. ", less: "Yes, for a while. ", harm: "Better not now. " }[weight];
  return (
    <Notice tone={weight === "harm" ? "warning" : weight === "less" ? "info" : "success"}>
      <strong>Can it be switched off? {answer}</strong>
      {text}
    </Notice>
  );
}

function seriesOf(
  history: readonly Sample[],
  port: number,
  field: "rate" | "cpu" | "memory",
): number[] {
  return history.map((sample) => sample.nodes.get(port)?.[field] ?? 0);
}

function Chart(
  { title, value, values, scale }: {
    title: string;
    value: string;
    values: readonly number[];
    scale: number;
  },
): JSX.Element {
  return (
    <section class="chart">
      <h2 class="chart__title">{title}</h2>
      <p class="chart__value">{value}</p>
      <Sparkline values={values} scale={scale} large />
    </section>
  );
}

function Facts({ node }: { node: NodeStatus }): JSX.Element {
  return (
    <dl class="facts">
      <Fact term="Address">
        <span class="mono">{node.host}:{node.port}</span>
      </Fact>
      {node.zone !== "" && <Fact term="Zone">{node.zone}</Fact>}
      <Fact term="Process">{node.pid ?? "none"}</Fact>
      <Fact term="Started">
        {node.startedMs === null ? "not running" : formatFullDate(node.startedMs)}
      </Fact>
      {node.logBytes !== null && <Fact term="Log">{formatSize(node.logBytes)}</Fact>}
      {node.dataBytes !== null && (
        <Fact term="Checkpoints and large values">{formatSize(node.dataBytes)}</Fact>
      )}
      {node.disk != null && <Fact term="Disk read again">{scrubText(node.disk.scrub)}</Fact>}
      {node.disk != null && node.disk.quarantine.count > 0 && (
        <Fact term="Damaged files kept aside">{formatSize(node.disk.quarantine.bytes)}</Fact>
      )}
      {node.connections !== null && <Fact term="Open requests">{node.connections}</Fact>}
    </dl>
  );
}

function Carried({ node, cluster }: { node: NodeStatus; cluster: ClusterStatus }): JSX.Element {
  const tablets = cluster.tablets.filter((tablet) =>
    tablet.primary === node.id || tablet.secondaries.includes(node.id) ||
    tablet.learners.includes(node.id) || membersOf(tablet).includes(node.id)
  );
  const office = (tablet: typeof tablets[number]) =>
    tablet.primary === node.id
      ? "Primary"
      : tablet.secondaries.includes(node.id)
      ? "Secondary"
      : tablet.learners.includes(node.id)
      ? "Catching up"
      : "Missing";
  return (
    <Panel
      title="Tablets"
      detail={`leads ${node.primaryOf.length}, follows ${node.secondaryOf.length}`}
      end={<a href={`/admin/data/${node.port}`}>Look at its rows</a>}
      flush
    >
      <div class="table-scroll">
        <table class="table">
          <thead>
            <tr>
              <th>Tablet</th>
              <th>Keys</th>
              <th>Here as</th>
              <th>State</th>
              <th class="number">Epoch</th>
              <th class="number">Size</th>
            </tr>
          </thead>
          <tbody>
            {tablets.map((tablet) => (
              <tr key={tablet.id}>
                <td>
                  <a class="plain-link" href={`/admin/tablets?tablet=${tablet.id}`}>{tablet.id}</a>
                </td>
                <td class="mono">{rangeOf([tablet])}</td>
                <td>{office(tablet)}</td>
                <td>
                  <TabletStateBadge state={tablet.state} />
                </td>
                <td class="number">{tablet.epoch}</td>
                <td class="number">{formatSize(tablet.bytes)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </Panel>
  );
}
