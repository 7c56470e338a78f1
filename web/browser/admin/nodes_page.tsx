/** `/admin/nodes`: a card per node, those together that keep the same tablets. */
import type { JSX } from "preact";
import type { NodeStatus } from "../../../proto/cluster_status.ts";
import { Icon } from "../../ui/components/icon.tsx";
import { formatFullDate, formatSize } from "../../ui/format.ts";
import { samples, status } from "./admin_state.ts";
import { NodeStateBadge, PageHead, Waiting } from "./console_parts.tsx";
import { NodeMenu } from "./node_actions.tsx";
import { groupNodes, ROLE_ICONS, runs } from "./node_facts.ts";
import { Sparkline } from "./sparkline.tsx";
import { formatRate, formatSpan } from "./spans.ts";

/** Of the series on a card. */
const CARD_SECONDS = 60;

export function NodesPage(): JSX.Element {
  const cluster = status.value;
  if (cluster === null) return <Waiting />;
  const live = cluster.nodes.filter((node) => node.state === "live").length;
  return (
    <div class="console">
      <PageHead title="Nodes" detail={`${live} of ${cluster.nodes.length} are live`} />
      {groupNodes(cluster).map((group) => (
        <section key={group.title} class="node-group">
          <h2 class="node-group__title">
            {group.title} <span class="node-group__detail">{group.detail}</span>
          </h2>
          <ul class="node-cards">
            {group.nodes.map((node) => (
              <li key={node.name}>
                <NodeCard
                  node={node}
                  nowMs={Math.max(cluster.generatedMs, node.sinceMs)}
                />
              </li>
            ))}
          </ul>
        </section>
      ))}
    </div>
  );
}

function NodeCard({ node, nowMs }: { node: NodeStatus; nowMs: number }): JSX.Element {
  const series = samples.value.slice(-CARD_SECONDS)
    .map((sample) => sample.nodes.get(node.port)?.rate ?? 0);
  return (
    <article class={`node-card node-card--${node.state}`}>
      <div class="node-card__head">
        <Icon name={ROLE_ICONS[node.role]} />
        <h3 class="node-card__name">
          <a class="plain-link" href={`/admin/nodes/${node.port}`}>{node.name}</a>
        </h3>
        <NodeMenu node={node} />
      </div>
      <p class="node-card__state">
        <NodeStateBadge state={node.state} />
        <span class="muted" title={`Since ${formatFullDate(node.sinceMs)}`}>
          for {formatSpan(nowMs - node.sinceMs)}
        </span>
        <span class="node-card__port">port {node.port}</span>
      </p>
      {node.problem !== null && <p class="node-card__problem">{node.problem}</p>}
      {runs(node) && (
        <>
          <div class="node-card__load">
            <span>
              <strong>{formatRate(node.requestsPerSecond)}</strong> requests/s
            </span>
            <Sparkline values={series} scale={4} />
          </div>
          <p class="node-card__numbers">
            <span title="Share of one core">CPU {Math.round(node.cpu * 100)} %</span>
            <span title="Resident memory">{formatSize(node.memoryBytes)} memory</span>
            {node.dataBytes !== null && (
              <span title="Checkpoints and large values, and the log">
                {formatSize(node.dataBytes + (node.logBytes ?? 0))} disk
              </span>
            )}
            {node.connections !== null && <span>{node.connections} open</span>}
          </p>
        </>
      )}
      {node.role === "backend" && (
        <p class="node-card__groups">
          {node.primaryOf.map((id) => (
            <span class="group-mark group-mark--primary" title={`Primary of group ${id}`} key={id}>
              <Icon name="crown" size="small" />
              {id}
            </span>
          ))}
          {node.secondaryOf.map((id) => (
            <span class="group-mark" title={`Secondary of group ${id}`} key={id}>{id}</span>
          ))}
          {node.primaryOf.length + node.secondaryOf.length === 0 && (
            <span class="muted">carries no groups</span>
          )}
        </p>
      )}
    </article>
  );
}
