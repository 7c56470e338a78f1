/** Starts an application in its page: takes the place of what the server drew there. */
import { type ComponentChild, render } from "preact";

export function mount(app: ComponentChild): void {
  const root = document.getElementById("app");
  if (root === null) throw new Error("Cannot start: this page has no place for an application");
  // Emptied and drawn in one go, so that nothing flickers.
  root.replaceChildren();
  render(app, root);
}
