/** The thread behind link_net.ts: opens links and does to them what it is told. */
/// <reference lib="deno.worker" />
import { Link } from "../cluster/link.ts";
import type { LinkRequest } from "./link_net.ts";

const links = new Map<string, Link>();

self.onmessage = ({ data }: MessageEvent<LinkRequest>) => {
  const { id, request } = data;
  let port = 0;
  if (request.kind === "open") {
    const link = Link.open(request.port, request.hostname);
    links.set(request.name, link);
    port = link.port;
  } else {
    for (const name of request.names) obey(links.get(name)!, request);
  }
  self.postMessage({ id, port });
};

function obey(link: Link, request: Exclude<LinkRequest["request"], { kind: "open" }>): void {
  switch (request.kind) {
    case "cut":
      return link.cut();
    case "stall":
      return link.stall(request.directions);
    case "slow":
      return link.slow(request.delayMs);
    case "heal":
      return link.heal();
  }
}
