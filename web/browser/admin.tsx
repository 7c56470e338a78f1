/**
 * The admin console: is everything fine, and what to do if not. Every place has an address:
 * `/admin`, `/admin/nodes`, `/admin/nodes/10003`, `/admin/tablets`, `/admin/data/10003?start=`,
 * `/admin/events`. What is shown comes from admin/admin_state.ts, which keeps itself up to date.
 */
import { effect } from "@preact/signals";
import type { JSX } from "preact";
import { type BootData, readBoot } from "../ui/boot.ts";
import { Button } from "../ui/components/button.tsx";
import { EmptyState } from "../ui/components/states.tsx";
import { mount } from "../ui/mount.ts";
import { navigate, route, startRouter } from "../ui/router.ts";
import { AppShell, RailLink } from "../ui/shell.tsx";
import { diagnosis, startFeed, status } from "./admin/admin_state.ts";
import { addressOfRow, DataPage } from "./admin/data_page.tsx";
import { EventsPage } from "./admin/events_page.tsx";
import { NodePage } from "./admin/node_page.tsx";
import { NodesPage } from "./admin/nodes_page.tsx";
import { OverviewPage } from "./admin/overview_page.tsx";
import { TabletsPage } from "./admin/tablets_page.tsx";
import "./admin/admin.css";

function AdminApp({ boot }: { boot: BootData }): JSX.Element {
  return (
    <AppShell
      app="admin"
      user={boot.user}
      balancer={boot.balancer}
      rail={<Rail />}
      search={{
        placeholder: "Find a row",
        onSearch: (row) => {
          if (row !== "" && status.value !== null) navigate(addressOfRow(status.value, row));
        },
      }}
    >
      <Place />
    </AppShell>
  );
}

function Rail(): JSX.Element {
  const [, , place = ""] = route.value.path.split("/");
  const notLive = status.value?.nodes.filter((node) => node.state !== "live").length ?? 0;
  const unwell = status.value?.tablets.filter((tablet) => tablet.state !== "healthy").length ?? 0;
  return (
    <>
      <RailLink icon="gauge" label="Overview" href="/admin" current={place === ""} />
      <RailLink
        icon="server"
        label="Nodes"
        href="/admin/nodes"
        current={place === "nodes"}
        count={notLive}
      />
      <RailLink
        icon="layers"
        label="Tablets"
        href="/admin/tablets"
        current={place === "tablets"}
        count={unwell}
      />
      <RailLink icon="table-2" label="Data" href="/admin/data" current={place === "data"} />
      <RailLink icon="activity" label="Events" href="/admin/events" current={place === "events"} />
    </>
  );
}

function Place(): JSX.Element {
  const [, , place = "", detail = ""] = route.value.path.split("/");
  switch (place) {
    case "":
      return <OverviewPage />;
    case "nodes":
      return detail === "" ? <NodesPage /> : <NodePage port={Number(detail)} />;
    case "tablets":
      return <TabletsPage />;
    case "data":
      return <DataPage port={detail === "" ? null : Number(detail)} />;
    case "events":
      return <EventsPage />;
    default:
      return (
        <EmptyState icon="server" title="There is no such page" text="The console has others.">
          <Button href="/admin">Overview</Button>
        </EmptyState>
      );
  }
}

/** A tab in the background says by its title that something is wrong. */
function keepTitle(): void {
  effect(() => {
    const found = diagnosis.value;
    const calm = found === null || found.tone === "success" || found.tone === "info";
    document.title = `${calm ? "" : "! "}Admin · PennCloud`;
  });
}

startRouter("/admin");
startFeed();
keepTitle();
mount(<AdminApp boot={readBoot()} />);
