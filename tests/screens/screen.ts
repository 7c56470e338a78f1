/** One page to take pictures of, and how it looks in them. */
import type { Page } from "playwright-core";

export interface Look {
  readonly name: string;
  readonly width: number;
  readonly height: number;
  readonly theme: "light" | "dark";
}

export interface Screen {
  /** Begins the file's name: `mail-compose`. */
  readonly name: string;
  readonly path: string;
  /** Who is logged in; absent: nobody. */
  readonly user?: "alice" | "bob" | "admin" | "zoe";
  /** Brings the page into the state to be seen, and waits until it is there. */
  readonly prepare?: (page: Page, look: Look) => Promise<void>;
  /** The whole page, not just what fits the window. */
  readonly whole?: boolean;
  /** Every call to the store fails. */
  readonly storeAway?: boolean;
}
