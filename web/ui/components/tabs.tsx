/** Views of one thing, as links that have an address of their own. */
import type { ComponentChildren, JSX } from "preact";

export interface Tab {
  readonly href: string;
  readonly label: ComponentChildren;
  readonly current: boolean;
}

export function Tabs({ label, tabs }: { label: string; tabs: readonly Tab[] }): JSX.Element {
  return (
    <nav class="tabs" aria-label={label}>
      {tabs.map((tab) => (
        <a
          key={tab.href}
          class="tabs__tab"
          href={tab.href}
          {...(tab.current ? { "aria-current": "page" as const } : {})}
        >
          {tab.label}
        </a>
      ))}
    </nav>
  );
}
