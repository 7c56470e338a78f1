/** `/admin/events`: what happened, as it happens, with filters that the address remembers. */
import { signal } from "@preact/signals";
import type { JSX } from "preact";
import type { NumberedChange } from "../../admin/cluster_changes.ts";
import { Button } from "../../ui/components/button.tsx";
import { Segments } from "../../ui/components/segments.tsx";
import { EmptyState } from "../../ui/components/states.tsx";
import { plural } from "../../ui/format.ts";
import { navigate, route } from "../../ui/router.ts";
import { changes } from "./admin_state.ts";
import { EventList, PageHead, Panel } from "./console_parts.tsx";

type About = "all" | "node" | "tablet" | "trouble";

/** While somebody reads, the list as it was then. */
const held = signal<readonly NumberedChange[] | null>(null);

export function EventsPage(): JSX.Element {
  const { query } = route.value;
  const about = (query.get("about") ?? "all") as About, words = query.get("q") ?? "";
  const all = held.value ?? changes.value;
  const shown = all.filter((change) => matches(change, about, words)).reverse();
  const missed = held.value === null ? 0 : changes.value.length - held.value.length;
  const go = (change: Record<string, string>) => {
    const next = new URLSearchParams(query);
    for (const [name, value] of Object.entries(change)) {
      if (value === "" || value === "all") next.delete(name);
      else next.set(name, value);
    }
    navigate(next.size === 0 ? "/admin/events" : `/admin/events?${next}`, { replace: true });
  };
  return (
    <div class="console">
      <PageHead title="Events" detail="What changed while somebody watched, newest first" />
      <div class="filters">
        <Segments
          label="Which events"
          value={about}
          options={[
            { value: "all", label: "All" },
            { value: "node", label: "Nodes" },
            { value: "tablet", label: "Tablets" },
            { value: "trouble", label: "Trouble" },
          ]}
          onChange={(value) => go({ about: value })}
        />
        <input
          class="input filters__words"
          type="search"
          placeholder="Only with these words"
          aria-label="Only events with these words"
          value={words}
          onInput={(event) => go({ q: event.currentTarget.value })}
        />
        <Button
          icon={held.value === null ? "pause" : "play"}
          aria-pressed={held.value === null ? "false" : "true"}
          onClick={() => held.value = held.value === null ? changes.value : null}
        >
          {held.value === null ? "Hold" : missed > 0 ? `Go on (${missed} new)` : "Go on"}
        </Button>
      </div>
      <Panel title={plural(shown.length, "event", "events")} flush>
        {shown.length > 0 ? <EventList changes={shown} /> : all.length > 0
          ? (
            <EmptyState
              icon="list-filter"
              title="No event matches"
              text="Others are there without the filter."
            >
              <Button onClick={() => go({ about: "all", q: "" })}>Show all</Button>
            </EmptyState>
          )
          : (
            <EmptyState
              icon="activity"
              title="Nothing has happened yet"
              text="Nodes that come and go and primaries that move show here as it happens."
            />
          )}
      </Panel>
    </div>
  );
}

function matches(change: NumberedChange, about: About, words: string): boolean {
  if (about === "trouble" && change.tone !== "warning" && change.tone !== "danger") return false;
  if ((about === "node" || about === "tablet") && change.about !== about) return false;
  const text = change.text.toLowerCase();
  return words.toLowerCase().split(/\s+/).every((word) => text.includes(word));
}
