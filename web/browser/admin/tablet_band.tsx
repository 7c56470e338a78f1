/**
 * The key space from the first key to the last as one band, a segment per tablet, as wide as what it
 * keeps. A primary that moves changes its segment's colour while you watch.
 */
import { useSignal } from "@preact/signals";
import type { ComponentChildren, JSX } from "preact";
import type { TabletStatus } from "../../../proto/cluster_status.ts";
import { compareKeys } from "../../../kv/key_order.ts";
import { Icon } from "../../ui/components/icon.tsx";
import { formatCount, formatSize } from "../../ui/format.ts";
import { navigate } from "../../ui/router.ts";
import { BackendLink, TabletStateBadge } from "./console_parts.tsx";
import { rangeOf, TABLET_STATES } from "./node_facts.ts";
import { formatRate } from "./spans.ts";

/** What a segment's colour says. */
export type BandColour = "primary" | "heat" | "state";

export interface TabletBandProps {
  readonly tablets: readonly TabletStatus[];
  readonly colour: BandColour;
  /** The tablet whose details stay below the band. */
  readonly selected: string | null;
}

/** A segment this much of the widest stays wide enough to point at. */
const SHARE_MIN = 0.35;
const HUES = 8;

export function TabletBand({ tablets, colour, selected }: TabletBandProps): JSX.Element {
  const pointed = useSignal<string | null>(null);
  const sorted = [...tablets].sort((a, b) => compareKeys(a.startKey, b.startKey));
  const bytesMax = Math.max(1, ...sorted.map(sizeOf));
  const heatMax = Math.max(1, ...sorted.map(heat));
  const shown = sorted.find((tablet) => tablet.id === (pointed.value ?? selected)) ?? null;
  return (
    <div class="band-frame">
      <ol class="band" aria-label="Tablets in the order of their keys">
        {sorted.map((tablet) => (
          <li
            key={tablet.id}
            class="band__place"
            style={{ flexGrow: Math.max(SHARE_MIN, sizeOf(tablet) / bytesMax) }}
          >
            <button
              type="button"
              class={[
                "band__segment",
                `band__segment--${tablet.state}`,
                colour === "primary" && tablet.primary !== null &&
                `band__segment--hue-${tablet.primary % HUES + 1}`,
                colour === "heat" && "band__segment--heat",
                colour === "state" && `band__segment--by-state`,
              ].filter(Boolean).join(" ")}
              style={{ "--heat": `${Math.round(8 + 92 * heat(tablet) / heatMax)}%` }}
              aria-pressed={tablet.id === selected ? "true" : "false"}
              aria-label={describe(tablet)}
              onPointerEnter={() => pointed.value = tablet.id}
              onPointerLeave={() => pointed.value = null}
              onFocus={() => pointed.value = tablet.id}
              onBlur={() => pointed.value = null}
              onKeyDown={moveFocus}
              onClick={() => navigate(`/admin/tablets?tablet=${tablet.id}`)}
            >
              <span class="band__id">{tablet.id}</span>
              <span class="band__primary">
                {tablet.state === "healthy"
                  ? null
                  : <Icon name={TABLET_STATES[tablet.state].icon} size="small" />}
                {tablet.primary === null ? "none" : `b/${tablet.primary}`}
              </span>
            </button>
            <span class="band__key mono" aria-hidden="true">
              {tablet.startKey === "" ? "first" : tablet.startKey}
            </span>
          </li>
        ))}
      </ol>
      <div class="band-details">
        {shown === null
          ? (
            <p class="muted">
              Point at a segment, or move to it with the keyboard, for its details.
            </p>
          )
          : <TabletDetails tablet={shown} />}
      </div>
    </div>
  );
}

const sizeOf = (tablet: TabletStatus) => tablet.bytes + tablet.largeBytes;
const heat = (tablet: TabletStatus) => tablet.readsPerSecond + tablet.writesPerSecond;

function describe(tablet: TabletStatus): string {
  const primary = tablet.primary === null ? "no primary" : `primary backend/${tablet.primary}`;
  return `Tablet ${tablet.id}, keys ${rangeOf([tablet])}, ${TABLET_STATES[tablet.state].word}, ` +
    `${formatSize(sizeOf(tablet))}, ${primary}`;
}

function TabletDetails({ tablet }: { tablet: TabletStatus }): JSX.Element {
  return (
    <dl class="facts facts--line">
      <Fact term="Tablet">{tablet.id}</Fact>
      <Fact term="Keys">
        <span class="mono">{rangeOf([tablet])}</span>
      </Fact>
      <Fact term="State">
        <TabletStateBadge state={tablet.state} />
      </Fact>
      <Fact term="Size">
        {formatSize(tablet.bytes)} in rows, {formatSize(tablet.largeBytes)} in large values,{" "}
        {formatCount(tablet.rows)} rows
      </Fact>
      <Fact term="Epoch">{tablet.epoch}</Fact>
      <Fact term="Primary">
        {tablet.primary === null ? "none" : <BackendLink id={tablet.primary} />}
      </Fact>
      <Fact term="Secondaries">
        <Backends ids={tablet.secondaries} />
      </Fact>
      {tablet.learners.length > 0 && (
        <Fact term="Catching up">
          <Backends ids={tablet.learners} />
        </Fact>
      )}
      <Fact term="Reads, writes">
        {formatRate(tablet.readsPerSecond)}, {formatRate(tablet.writesPerSecond)} /s
      </Fact>
    </dl>
  );
}

export function Fact(
  { term, children }: { term: string; children: ComponentChildren },
): JSX.Element {
  return (
    <div class="facts__fact">
      <dt>{term}</dt>
      <dd>{children}</dd>
    </div>
  );
}

export function Backends({ ids }: { ids: readonly number[] }): JSX.Element {
  if (ids.length === 0) return <span class="muted">none</span>;
  return (
    <>
      {ids.map((id, index) => (
        <>
          {index > 0 && ", "}
          <BackendLink id={id} />
        </>
      ))}
    </>
  );
}

function moveFocus(event: KeyboardEvent): void {
  const steps: Record<string, number> = { ArrowLeft: -1, ArrowRight: 1 };
  const step = steps[event.key];
  if (step === undefined) return;
  const segment = event.currentTarget as HTMLElement;
  const all = [...segment.closest(".band")!.querySelectorAll<HTMLElement>(".band__segment")];
  all[all.indexOf(segment) + step]?.focus();
  event.preventDefault();
}
