/**
 * What the server tells a page's application at its start, in a JSON block named `boot`: who is
 * logged in and where the cluster is.
 */
export type AppName = "mail" | "drive" | "admin" | "account" | "home";

export interface BootData {
  readonly user: { readonly username: string; readonly address: string; readonly admin: boolean };
  readonly mailDomain: string;
  /** Origin of the balancer, where another frontend can be had; null behind a proxy. */
  readonly balancer: string | null;
}

/** Reads the block from the page. In the browser only. */
export function readBoot(): BootData {
  const block = document.getElementById("boot");
  if (block === null) throw new Error("Cannot start: this page has no boot data");
  return JSON.parse(block.textContent ?? "") as BootData;
}
