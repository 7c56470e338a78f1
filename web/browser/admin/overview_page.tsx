/** `/admin`: is everything fine, what is wrong, and the numbers in one look. */
import type { JSX } from "preact";
import type { ClusterStatus } from "../../../proto/cluster_status.ts";
import { Button } from "../../ui/components/button.tsx";
import { Icon } from "../../ui/components/icon.tsx";
import { formatSize } from "../../ui/format.ts";
import type { IconName } from "../../ui/icons/icon_names.ts";
import { changes, diagnosis, type Sample, samples, status } from "./admin_state.ts";
import { EventList, PageHead, Panel, Waiting } from "./console_parts.tsx";
import type { Diagnosis, Finding } from "./diagnosis.ts";
import { StartButton } from "./node_actions.tsx";
import { groupNodes, NODE_STATES } from "./node_facts.ts";
import { Sparkline } from "./sparkline.tsx";
import { formatClock, formatRate } from "./spans.ts";
import { TabletBand } from "./tablet_band.tsx";

const EVENTS_SHOWN = 6;

const VERDICT_ICONS: Record<Diagnosis["tone"], IconName> = {
  success: "circle-check",
  info: "info",
  warning: "triangle-alert",
  danger: "octagon-alert",
};

export function OverviewPage(): JSX.Element {
  const cluster = status.value, found = diagnosis.value;
  if (cluster === null || found === null) return <Waiting />;
  const recent = changes.value.slice(-EVENTS_SHOWN).reverse();
  return (
    <div class="console">
      <PageHead
        title={`Cluster ${cluster.name}`}
        detail={`Mail domain ${cluster.mailDomain} · as of ${formatClock(cluster.generatedMs)}`}
      />
      <Verdict diagnosis={found} />
      {found.findings.length > 0 && (
        <ul class="findings">
          {found.findings.map((finding) => <FindingRow key={finding.title} finding={finding} />)}
        </ul>
      )}
      <Counters cluster={cluster} history={samples.value} />
      <Panel
        title="Key space"
        detail={`${cluster.tablets.length} tablets, coloured by primary`}
        end={<a href="/admin/tablets">All tablets</a>}
      >
        <TabletBand tablets={cluster.tablets} colour="primary" selected={null} />
      </Panel>
      <div class="console__columns">
        <Panel title="Nodes" end={<a href="/admin/nodes">All nodes</a>}>
          <NodeMap cluster={cluster} />
        </Panel>
        <Panel title="What happened" end={<a href="/admin/events">All events</a>} flush>
          {recent.length === 0
            ? (
              <p class="panel__empty muted">
                Nothing yet. What changes while somebody watches shows here as it happens.
              </p>
            )
            : <EventList changes={recent} />}
        </Panel>
      </div>
    </div>
  );
}

function Verdict({ diagnosis: { tone, title, text } }: { diagnosis: Diagnosis }): JSX.Element {
  return (
    <section class={`verdict verdict--${tone}`} role="status">
      <span class="verdict__icon">
        <Icon name={VERDICT_ICONS[tone]} size="large" />
      </span>
      <div>
        <h2 class="verdict__title">{title}</h2>
        <p class="verdict__text">{text}</p>
      </div>
    </section>
  );
}

function FindingRow({ finding }: { finding: Finding }): JSX.Element {
  const { tone, title, text, next, href, start } = finding;
  return (
    <li class="finding">
      <Icon name={VERDICT_ICONS[tone]} class={`tone-${tone}`} />
      <div class="finding__words">
        <h3 class="finding__title">
          {href === null ? title : <a class="plain-link" href={href}>{title}</a>}
        </h3>
        {text && <p>{text}</p>}
        {next && (
          <p class="finding__next">
            <Icon name="arrow-right" size="small" />
            {next}
          </p>
        )}
      </div>
      <div class="finding__end">
        {start.map((node) => <StartButton key={node.name} node={node} />)}
        {start.length === 0 && href && <Button small href={href}>Look</Button>}
      </div>
    </li>
  );
}

function Counters(
  { cluster, history }: { cluster: ClusterStatus; history: readonly Sample[] },
): JSX.Element {
  const { nodes, tablets } = cluster;
  const live = nodes.filter((node) => node.state === "live").length;
  const healthy = tablets.filter((tablet) => tablet.state === "healthy").length;
  const sum = (numbers: readonly number[]) => numbers.reduce((total, one) => total + one, 0);
  const now = history.at(-1);
  const catching = sum(tablets.map((tablet) => tablet.learners.length));
  const onDisk = sum(nodes.map((node) => (node.dataBytes ?? 0) + (node.logBytes ?? 0)));
  return (
    <dl class="counters">
      <Counter
        term="Nodes live"
        value={`${live}`}
        of={`of ${nodes.length}`}
        note={live === nodes.length ? "every process answers" : `${nodes.length - live} not live`}
        alert={live < nodes.length}
      />
      <Counter
        term="Tablets healthy"
        value={`${healthy}`}
        of={`of ${tablets.length}`}
        note={catching === 0 ? "no copy is behind" : `${catching} catching up`}
        alert={healthy < tablets.length}
      />
      <Counter
        term="Data"
        value={formatSize(sum(tablets.map((tablet) => tablet.bytes)))}
        note={`${formatSize(onDisk)} on all disks`}
      />
      <Counter
        term="Pages and API"
        value={formatRate(now?.pages ?? 0)}
        of="/s"
        series={history.map((sample) => sample.pages)}
      />
      <Counter
        term="Store reads"
        value={formatRate(now?.reads ?? 0)}
        of="/s"
        series={history.map((sample) => sample.reads)}
      />
      <Counter
        term="Store writes"
        value={formatRate(now?.writes ?? 0)}
        of="/s"
        series={history.map((sample) => sample.writes)}
      />
    </dl>
  );
}

interface CounterProps {
  readonly term: string;
  readonly value: string;
  readonly of?: string;
  readonly note?: string;
  readonly series?: readonly number[];
  readonly alert?: boolean;
}

function Counter({ term, value, of, note, series, alert }: CounterProps): JSX.Element {
  return (
    <div class={alert ? "counter counter--alert" : "counter"}>
      <dt class="counter__term">{term}</dt>
      <dd class="counter__value">
        {value}
        {of && <span class="counter__of">{of}</span>}
      </dd>
      <dd class="counter__note">
        {series ? <Sparkline values={series} scale={4} /> : note}
      </dd>
    </div>
  );
}

function NodeMap({ cluster }: { cluster: ClusterStatus }): JSX.Element {
  return (
    <div class="node-map">
      {groupNodes(cluster).map((group) => (
        <div key={group.title}>
          <h3 class="node-map__title">
            {group.title} <span class="muted">{group.detail}</span>
          </h3>
          <ul class="node-map__nodes">
            {group.nodes.map((node) => {
              const { word, icon, tone } = NODE_STATES[node.state];
              return (
                <li key={node.name}>
                  <a
                    class={`node-chip node-chip--${node.state}`}
                    href={`/admin/nodes/${node.port}`}
                    title={`${node.name} on port ${node.port}: ${word.toLowerCase()}`}
                  >
                    <Icon name={icon} size="small" class={`tone-${tone ?? "muted"}`} />
                    {node.name}
                    {node.state !== "live" && <span class="node-chip__word">{word}</span>}
                  </a>
                </li>
              );
            })}
          </ul>
        </div>
      ))}
    </div>
  );
}
