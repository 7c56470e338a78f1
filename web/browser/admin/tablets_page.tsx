/** `/admin/tablets`: the key space as a band and as a table. */
import { signal } from "@preact/signals";
import type { JSX } from "preact";
import { compareKeys } from "../../../kv/key_order.ts";
import type { TabletStatus } from "../../../proto/cluster_status.ts";
import { Segments } from "../../ui/components/segments.tsx";
import { formatCount, formatSize } from "../../ui/format.ts";
import { route } from "../../ui/router.ts";
import { status } from "./admin_state.ts";
import { BackendLink, PageHead, Panel, TabletStateBadge, Waiting } from "./console_parts.tsx";
import { rangeOf } from "./node_facts.ts";
import { formatRate } from "./spans.ts";
import { TabletForm } from "./tablet_actions.tsx";
import { Backends, type BandColour, TabletBand } from "./tablet_band.tsx";

const colour = signal<BandColour>("primary");

export function TabletsPage(): JSX.Element {
  const cluster = status.value;
  if (cluster === null) return <Waiting />;
  const selected = route.value.query.get("tablet");
  const tablets = [...cluster.tablets].sort((a, b) => compareKeys(a.startKey, b.startKey));
  const healthy = tablets.filter((tablet) => tablet.state === "healthy").length;
  return (
    <div class="console">
      <PageHead title="Tablets" detail={`${healthy} of ${tablets.length} are healthy`} />
      <Panel
        title="Key space"
        detail="as wide as what is kept"
        end={
          <Segments
            label="Colour of the segments"
            value={colour.value}
            options={[
              { value: "primary", label: "Primary" },
              { value: "heat", label: "Heat" },
              { value: "state", label: "State" },
            ]}
            onChange={(value) => colour.value = value}
          />
        }
      >
        <TabletBand tablets={tablets} colour={colour.value} selected={selected} />
      </Panel>
      <Panel title="All tablets" flush>
        <div class="table-scroll">
          <table class="table tablets">
            <thead>
              <tr>
                <th>Tablet</th>
                <th>Keys</th>
                <th>State</th>
                <th>Primary</th>
                <th class="tablets__more">Secondaries</th>
                <th class="number tablets__more">Epoch</th>
                <th class="number tablets__more">Rows</th>
                <th class="number">Size</th>
                <th class="number tablets__more">Reads/s</th>
                <th class="number tablets__more">Writes/s</th>
              </tr>
            </thead>
            <tbody>
              {tablets.map((tablet) => (
                <tr key={tablet.id} class={tablet.id === selected ? "tablets__selected" : ""}>
                  <td>
                    <a class="plain-link" href={`/admin/tablets?tablet=${tablet.id}`}>
                      {tablet.id}
                    </a>
                  </td>
                  <td class="mono">{rangeOf([tablet])}</td>
                  <td>
                    <TabletStateBadge state={tablet.state} />
                    {tablet.move !== undefined && <div class="muted">{moveText(tablet.move)}</div>}
                  </td>
                  <td>
                    <span key={tablet.primary ?? "none"} class="tablets__primary">
                      {tablet.primary === null
                        ? <span class="muted">none</span>
                        : <BackendLink id={tablet.primary} />}
                    </span>
                  </td>
                  <td class="tablets__more">
                    <Backends ids={tablet.secondaries} />
                  </td>
                  <td class="number tablets__more">{tablet.epoch}</td>
                  <td class="number tablets__more">{formatCount(tablet.rows)}</td>
                  <td class="number">{formatSize(tablet.bytes + tablet.largeBytes)}</td>
                  <td class="number tablets__more">{formatRate(tablet.readsPerSecond)}</td>
                  <td class="number tablets__more">{formatRate(tablet.writesPerSecond)}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      </Panel>
      <Panel
        title="Boundaries"
        detail="tablets split and merge by themselves as they grow and shrink; here is how by hand"
      >
        <TabletForm />
      </Panel>
    </div>
  );
}

/** Where it is on its way to, and how far the copy is. */
function moveText({ to, state, bytes, bytesTotal }: NonNullable<TabletStatus["move"]>): string {
  if (state === "aborted") return `stays: the move to group ${to} was given up`;
  const share = Math.min(100, Math.floor(100 * bytes / Math.max(1, bytesTotal)));
  return state === "committed" ? `now group ${to}'s` : `moving to group ${to}, ${share}%`;
}
