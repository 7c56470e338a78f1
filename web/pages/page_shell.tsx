/**
 * The frame of pages that the server draws whole: the same bars as the applications', with forms in
 * place of menus, so that everything works without browser code.
 */
import type { ComponentChildren, JSX } from "preact";
import type { AppName, BootData } from "../ui/boot.ts";
import { Brand } from "../ui/brand.tsx";
import { Avatar } from "../ui/components/avatar.tsx";
import { Icon } from "../ui/components/icon.tsx";
import { AppLinks } from "../ui/shell.tsx";

export interface PageShellProps {
  readonly app: AppName;
  readonly user: BootData["user"];
  readonly children: ComponentChildren;
}

export function PageShell({ app, user, children }: PageShellProps): JSX.Element {
  return (
    <div class="shell">
      <a class="skip-link" href="#main">Skip to content</a>
      <header class="top-bar">
        <Brand />
        <div class="top-bar__end">
          <a class="account-button" href="/account" aria-label={`Account of ${user.username}`}>
            <Avatar name={user.username} address={user.address} />
          </a>
          <form method="post" action="/logout">
            <button type="submit" class="icon-button" aria-label="Log out" title="Log out">
              <Icon name="log-out" />
            </button>
          </form>
        </div>
      </header>
      <nav class="app-rail" aria-label="Applications">
        <AppLinks app={app} admin={user.admin} />
      </nav>
      <main class="main" id="main" tabIndex={-1}>
        <div class="page">{children}</div>
      </main>
      <nav class="bottom-bar" aria-label="Applications">
        <AppLinks app={app} admin={user.admin} />
      </nav>
    </div>
  );
}
